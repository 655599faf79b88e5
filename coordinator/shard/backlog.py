"""The operations that wait for a call of their member, and which of them the next call takes."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, Generic, TypeVar

from forebay.coordinator.server.membership import Membership
from forebay.coordinator.shard.operation import Args, OnOutcome, Operation, Reply, Source

T = TypeVar("T")

OPERATIONS_PER_CALL: Final = 64
RECHECKS_PER_CALL: Final = 8
"""So many places of a call are left to rechecks, however many other operations wait."""


class Pending(Generic[T]):
    """An operation on its way.

    Args:
        operation: the operation, or a function that makes it each time its call is about to leave.
        on_outcome: called once with the outcome.

    Attributes:
        since: loop time when it was submitted.
        is_given_up: whether its caller got an error already.
    """

    __slots__ = ("_make", "args", "is_given_up", "is_release", "membership", "needs_memory",
                 "on_outcome", "operation", "since")  # fmt: skip

    def __init__(self, operation: Source[T], on_outcome: OnOutcome[T]) -> None:
        self.args: Args = ()
        self.operation: Operation[T] | None = None
        self._make: Callable[[], Operation[T]] | None = None
        self.is_release, self.needs_memory = False, True
        if isinstance(operation, Operation):
            self.operation = operation
            self.args = operation.encode()  # now, so that its caller hears of a wrong argument
            self.is_release, self.needs_memory = operation.is_release, operation.needs_memory
        else:
            self._make = operation
        self.on_outcome = on_outcome
        self.since = 0.0
        self.membership: Membership | None = None
        self.is_given_up = False

    @property
    def group(self) -> str | None:
        """The group in whose turn the operation is sent; None where it is sent before them all."""
        return None if self._make or self.operation is None else self.operation.group_key

    @property
    def is_recheck(self) -> bool:
        """Whether the operation only asks for what the shard would tell by itself."""
        return not self._make and self.operation is not None and self.operation.is_recheck

    def prepare(self, membership: Membership) -> None:
        """Make the operation and its arguments, before its call is sent under a new number."""
        self.membership = membership
        if self._make is not None:
            self.operation = self._make()
            self.args = self.operation.encode()

    def sent(self, terms: Sequence[Any], payloads: Sequence[bytes]) -> tuple[Operation[T], Reply]:
        """Return the operation that was sent, and its reply, made of these terms."""
        assert self.operation is not None  # noqa: S101 - for mypy; it was sent
        assert self.membership is not None  # noqa: S101 - so it was sent under one
        return self.operation, Reply(terms, self.membership, payloads)


class Backlog:
    """The operations that wait to be sent.

    A call takes first what belongs to no group (releases, registrations, all of a pool), in order
    of submission; then the acquires, one of each group in turn; then rechecks, which find
    `RECHECKS_PER_CALL` places in any case. So 100,000 acquires of one tenant, or the rechecks of
    100,000 waiters, hold up neither a release nor another tenant's acquire.
    """

    def __init__(self) -> None:
        self._first: deque[Pending[Any]] = deque()
        self._groups: OrderedDict[str, deque[Pending[Any]]] = OrderedDict()  # in order of turns
        self._rechecks: deque[Pending[Any]] = deque()

    def __bool__(self) -> bool:
        return bool(self._first or self._groups or self._rechecks)

    def __iter__(self) -> Iterator[Pending[Any]]:
        return chain(self._first, *self._groups.values(), self._rechecks)

    def add(self, pending: Pending[Any]) -> None:
        """Let an operation wait behind those of its kind."""
        if pending.is_recheck:
            self._rechecks.append(pending)
        elif (group := pending.group) is not None:
            self._groups.setdefault(group, deque()).append(pending)
        else:
            self._first.append(pending)

    def put_first(self, operations: Sequence[Pending[Any]]) -> None:
        """Let operations be the first that are sent, in their order."""
        self._first.extendleft(reversed(operations))

    def take(self) -> list[Pending[Any]]:
        """Take out what the next call sends, `OPERATIONS_PER_CALL` operations at most."""
        left = OPERATIONS_PER_CALL - min(RECHECKS_PER_CALL, len(self._rechecks))
        taken = [self._first.popleft() for _ in range(min(left, len(self._first)))]
        while self._groups and len(taken) < left:
            taken.append(self._take_turn())
        left = min(OPERATIONS_PER_CALL - len(taken), len(self._rechecks))
        return taken + [self._rechecks.popleft() for _ in range(left)]

    def _take_turn(self) -> Pending[Any]:
        group, waiting = self._groups.popitem(last=False)
        first = waiting.popleft()
        if waiting:
            self._groups[group] = waiting
        return first

    def keep(self, is_kept: Callable[[Pending[Any]], bool]) -> None:
        """Forget all operations but those of which this is true."""
        kept = [pending for pending in self if is_kept(pending)]
        self.clear()
        for pending in kept:
            self.add(pending)

    def clear(self) -> None:
        """Forget all operations."""
        self._first.clear()
        self._groups.clear()
        self._rechecks.clear()
