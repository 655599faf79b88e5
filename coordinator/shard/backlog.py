"""The queue of a member's operations, and the choice of those that the next call sends."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from forebay.coordinator.server.membership import Membership
from forebay.coordinator.shard.operation import Args, OnOutcome, Operation

OPERATIONS_PER_CALL: Final = 64
RECHECKS_PER_CALL: Final = 8
"""Places of a call that are reserved for rechecks."""


@dataclass(slots=True, eq=False, kw_only=True)
class Pending:
    """A submitted operation that has no result yet.

    Attributes:
        operation: the operation; None before it is made.
        make: makes the operation each time its call is about to leave; None where it is given.
        on_outcome: called once with the outcome.
        since: loop time when it was submitted.
        args: its arguments, as they are sent.
        is_release: as the operation's.
        needs_memory: as the operation's.
        may_wait: whether its caller gets no error for a server that is away.
        membership: under which it was sent last.
        is_given_up: whether its caller got an error already.
    """

    operation: Operation[Any] | None
    make: Callable[[], Operation[Any]] | None
    on_outcome: OnOutcome[Any]
    since: float
    args: Args = ()
    is_release: bool = False
    needs_memory: bool = True
    may_wait: bool = False
    membership: Membership | None = None
    is_given_up: bool = False

    @property
    def is_to_go(self) -> bool:
        """Whether the operation is sent: a release is, even after its caller got an error."""
        return self.is_release or not self.is_given_up


class Backlog:
    """The operations that wait to be sent, in the order of their kinds.

    A call takes first what belongs to no group (releases, registrations, all of a pool), in order
    of submission; then the acquires, one of each group in turn; then rechecks, which find
    `RECHECKS_PER_CALL` places in any case. So 100,000 acquires of one tenant, or the rechecks of
    100,000 waiters, hold up neither a release nor another tenant's acquire.

    Attributes:
        count: how many there are.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first: deque[Pending] = deque()
        self._groups: OrderedDict[str, deque[Pending]] = OrderedDict()  # in order of turns
        self._rechecks: deque[Pending] = deque()

    def __iter__(self) -> Iterator[Pending]:
        return chain(self._first, *self._groups.values(), self._rechecks)

    def add(self, pending: Pending) -> None:
        """Append an operation to those of its kind."""
        self.count += 1
        operation = pending.operation
        group = None if operation is None else operation.group_key
        if operation is not None and operation.is_recheck:
            self._rechecks.append(pending)
        elif group is not None:
            self._groups.setdefault(group, deque()).append(pending)
        else:
            self._first.append(pending)

    def put_first(self, operations: Sequence[Pending]) -> None:
        """Put operations before all others, in their order."""
        self.count += len(operations)
        self._first.extendleft(reversed(operations))

    def take(self) -> list[Pending]:
        """Remove and return the operations of the next call, `OPERATIONS_PER_CALL` at most."""
        left = OPERATIONS_PER_CALL - min(RECHECKS_PER_CALL, len(self._rechecks))
        taken = [self._first.popleft() for _ in range(min(left, len(self._first)))]
        while self._groups and len(taken) < left:
            taken.append(self._take_turn())
        left = min(OPERATIONS_PER_CALL - len(taken), len(self._rechecks))
        taken += [self._rechecks.popleft() for _ in range(left)]
        self.count -= len(taken)
        return taken

    def _take_turn(self) -> Pending:
        group, waiting = self._groups.popitem(last=False)
        first = waiting.popleft()
        if waiting:
            self._groups[group] = waiting
        return first

    def keep(self, is_kept: Callable[[Pending], bool]) -> None:
        """Drop the operations for which a predicate is false."""
        self._first = deque(filter(is_kept, self._first))
        self._rechecks = deque(filter(is_kept, self._rechecks))
        kept = [(group, deque(filter(is_kept, line))) for group, line in self._groups.items()]
        self._groups = OrderedDict((group, line) for group, line in kept if line)
        self.count = sum(1 for _ in self)


class SendQueue:
    """The operations that wait to be sent: those just submitted, behind the backlog.

    Attributes:
        submitted: in order of submission; all that waits, while one call can take it.
        backlog: what more than one call has to take.
    """

    def __init__(self) -> None:
        self.submitted: list[Pending] = []
        self.backlog = Backlog()

    def __iter__(self) -> Iterator[Pending]:
        return chain(self.backlog, self.submitted)

    def put_first(self, operations: list[Pending]) -> None:
        """Put operations before all others, in their order."""
        if self.backlog.count:
            self.backlog.put_first(operations)
        else:
            self.submitted = operations + self.submitted

    def withdraw(self, kind: type[Any]) -> list[Pending]:
        """Remove and return the operations of a class that were never sent."""
        withdrawn = dict.fromkeys(
            pending
            for pending in self
            if isinstance(pending.operation, kind) and pending.membership is None
        )
        self.keep(lambda pending: pending not in withdrawn)
        return list(withdrawn)

    def keep(self, is_kept: Callable[[Pending], bool]) -> None:
        """Drop the operations for which a predicate is false."""
        self.submitted = list(filter(is_kept, self.submitted))
        self.backlog.keep(is_kept)
