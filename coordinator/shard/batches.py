"""A member's numbered batches: the queue, the call under way, the deadlines.

One call travels at a time. If its reply is lost it is sent again, and counts once (design 06).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from forebay.contracts.errors import CoordinatorError, ForebayError
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.server.refusals import refused_operation
from forebay.coordinator.server.wire import is_sendable, read_json
from forebay.coordinator.shard.backlog import OPERATIONS_PER_CALL, Pending, SendQueue
from forebay.coordinator.shard.deadlines import Deadlines
from forebay.coordinator.shard.operation import (
    Listener,
    OnOutcome,
    Operation,
    Reply,
    Source,
    Submitted,
)
from forebay.coordinator.shard.shard_time import ShardTime
from forebay.coordinator.supervision import Guard

T = TypeVar("T")
Sent = tuple[Operation[Any], Reply]
Answered = list[tuple[Pending, list[Any]]]  # each with the terms of its result

RESULTS_PER_TURN: Final = 16
"""Half a call or less, so that the server and this process work at the same time."""


class Batches:
    """The operations of one member, from their submission to their result; `Session` sends them.

    Args:
        shard: the shard's name, for messages.
        listener: gets what a reply says beside the results.
        guard: logs what an operation raises.
        timeout_seconds: how long a caller waits for a result, as for `Deadlines`.
        on_overdue: called when a caller has waited that long; returns the error for such callers.
        may_wait: whether callers of operations that can wait for the server get no such error.

    Attributes:
        waiting: the operations that wait to be sent.
        under_way: the operations of the call that was not answered yet.
        arguments: the ARGV of that call, the same each time it is sent.
        is_refused: whether the shard refused that call, as it does not know the member.
        generation: the shard's as of the last reply; None before a reply.
        time: the shard's time, and the number of its last event.
    """

    def __init__(
        self,
        shard: str,
        listener: Listener,
        guard: Guard,
        *,
        timeout_seconds: float,
        on_overdue: Callable[[], ForebayError],
        may_wait: bool = False,
    ) -> None:
        self.waiting = SendQueue()
        self.under_way: list[Pending] = []
        self.arguments: list[str | int | bytes] = []
        self.is_refused = False
        self.generation: str | None = None
        self.time = ShardTime()
        self._shard = shard
        self._listener = listener
        self._guard = guard
        self._on_overdue = on_overdue
        self._may_wait = may_wait
        self._deadlines = Deadlines(
            timeout_seconds, guard, awaited=self._all, on_overdue=self._give_up_overdue
        )
        self._loop = asyncio.get_running_loop()
        self._number = 0

    @property
    def has_waiting(self) -> bool:
        """Whether an operation waits to be sent."""
        return bool(self.waiting.submitted or self.waiting.backlog.count)

    @property
    def is_release(self) -> bool:
        """Whether the call under way holds releases alone, which run on a server without memory."""
        return not any(pending.needs_memory for pending in self.under_way)

    def add(self, operation: Source[T], on_outcome: OnOutcome[T]) -> None:
        """Queue an operation for the next call."""
        self.waiting.submitted.append(self._pending(operation, on_outcome))

    def _pending(self, operation: Source[T], on_outcome: OnOutcome[T]) -> Pending:
        now = self._loop.time()
        if isinstance(operation, Operation):
            pending = Pending(
                operation=operation,
                make=None,
                on_outcome=on_outcome,
                since=now,
                args=operation.encode(),  # now, so that its caller hears of a wrong argument
                is_release=operation.is_release,
                needs_memory=operation.needs_memory,
                may_wait=self._may_wait and operation.waits_for_server,
            )
        else:
            pending = Pending(operation=None, make=operation, on_outcome=on_outcome, since=now)
        if self._deadlines.timer is None:
            self._deadlines.watch(now)
        return pending

    def begin(self, first: Sequence[Submitted]) -> None:
        """Begin a membership: calls are numbered from 1, and ``first`` comes before all else."""
        ahead = [self._pending(*submitted) for submitted in first]  # all, before any is put there
        self._number = 0
        self.waiting.put_first(ahead)

    def withdraw(self, kind: type[T], error: ForebayError) -> list[T]:
        """Remove and return the unsent operations of a class; their callers get an error."""
        withdrawn = self.waiting.withdraw(kind)
        self._deliver_error(withdrawn, error)
        return [pending.operation for pending in withdrawn if isinstance(pending.operation, kind)]

    def put_ahead(self, first: Sequence[Submitted], remembered: int) -> None:
        """Send a member's statement to its shard before all waiting operations.

        The call under way follows them under a new number where the shard refused it, or does not
        remember it: a release that came before its lease is stated would find none.

        Args:
            first: the operations.
            remembered: the number of the last call that the shard remembers.
        """
        ahead = [self._pending(*submitted) for submitted in first]
        if self.under_way and remembered < self._number:
            self.is_refused = True
        self.waiting.put_first(ahead + self.end_refused())

    def unanswered(self, kind: type[T]) -> list[T]:
        """Return the operations of a class that no reply has answered, given up or not."""
        return [one.operation for one in self._all() if isinstance(one.operation, kind)]

    def refuse(self, operations: list[Pending]) -> None:
        """Keep a call that the shard refused under way until the next join explains it."""
        self.under_way, self.is_refused = operations, True

    def end_refused(self) -> list[Pending]:
        """End a call that the shard refused; return its operations, none for any other call."""
        if not self.is_refused:
            return []
        self.is_refused = False
        return self.end_call()

    # -- calls

    def take_next(self, membership: Membership) -> bool:
        """Put the next operations under way; False where none of them can be sent.

        Where one call takes all that wait, they go in order of submission.
        """
        waiting = self.waiting
        taken, waiting.submitted = waiting.submitted, []
        if waiting.backlog.count or len(taken) > OPERATIONS_PER_CALL:
            for pending in taken:
                waiting.backlog.add(pending)
            taken = waiting.backlog.take()
        return self.take(taken, membership)

    def take(self, operations: Sequence[Pending], membership: Membership) -> bool:
        """Put operations under way under a new number; False where none of them can be sent."""
        self.arguments = [membership.member_id, self._number + 1]
        self.under_way = list(operations)  # before they are made: a statement tells of the others
        for pending in operations:
            pending.membership = membership
            try:
                if pending.make is not None:
                    pending.operation = pending.make()
                    pending.args = pending.operation.encode()
            except Exception as error:  # noqa: BLE001 - the others are to go
                self.under_way.remove(pending)
                self._fail(pending, error)
            else:
                self.arguments += pending.args
        if self.under_way:
            self._number += 1
            self._deadlines.silent_since = self._loop.time()
        return bool(self.under_way)

    def retake_sendable(self, error: Exception, membership: Membership) -> bool:
        """Fail the operations that cannot be packed into bytes, and take the others again."""
        operations = self.end_call()
        self._number -= 1
        sendable = [pending for pending in operations if is_sendable(pending.args)]
        rest = sendable if len(sendable) < len(operations) else []
        for pending in operations:
            if pending not in rest:
                self._fail(pending, error)
        return self.take(rest, membership)

    def end_call(self) -> list[Pending]:
        """Return the operations of the call under way, and have none under way any more."""
        operations, self.under_way = self.under_way, []
        return operations

    # -- replies

    def take_reply(
        self,
        reply: bytes | list[bytes],
        operations: Sequence[Pending],
        *,
        between: Callable[[], None],
    ) -> None:
        """Decode a reply: give its notices to the listener, and each result to its caller.

        Args:
            reply: the reply's text, or that and the payloads that it speaks of.
            operations: those of its call.
            between: called after each part of the results: what it brings up can go already.

        Raises:
            Exception: it cannot be read, and nothing was delivered.
        """
        text, *payloads = reply if isinstance(reply, list) else [reply]
        now_us, wake_us, generation, results, notices, sequence = read_json(text)
        answered = list(zip(operations, results, strict=True))
        self.generation = generation
        self._deadlines.silent_since = self._loop.time()
        self.time.note(now_us, sequence)
        if notices:
            self._guard.call(self._listener.on_notices, generation, notices)
        self._guard.call(self._listener.on_next_wake, (wake_us - now_us) / 1e6 if wake_us else None)
        self._deliver(answered, payloads, between)

    def _deliver(
        self, answered: Answered, payloads: Sequence[bytes], between: Callable[[], None]
    ) -> None:
        """Deliver results to their callers in portions, one per turn of the loop."""
        for pending, terms in answered[:RESULTS_PER_TURN]:
            try:
                self._settle(pending, terms, payloads)
            except Exception as error:  # noqa: BLE001 - the others are to get theirs
                self._fail(pending, error)
                self._guard.call(self._listener.on_unclaimed, *sent(pending, terms, payloads))
        if rest := answered[RESULTS_PER_TURN:]:
            between()
            self._loop.call_soon(self._guard.call, self._deliver, rest, payloads, between)

    def _settle(self, pending: Pending, terms: list[Any], payloads: Sequence[bytes]) -> None:
        operation, reply = sent(pending, terms, payloads)
        if terms[0] == "error":
            if not pending.is_given_up:
                pending.on_outcome(refused_operation(terms[1], terms[2]))
        elif pending.is_given_up or not pending.on_outcome(operation.decode(reply)):
            self._listener.on_unclaimed(operation, reply)

    # -- errors

    def give_up(self, error: ForebayError, operations: Sequence[Pending] | None = None) -> None:
        """Fail operations, all by default, with an error; releases go on without their callers."""
        self._deliver_error(self._all() if operations is None else operations, error)
        self.waiting.keep(lambda pending: pending.is_to_go)

    def _deliver_error(self, operations: Sequence[Pending], error: ForebayError) -> None:
        for pending in operations:
            if not pending.is_given_up:
                pending.is_given_up = True
                self._guard.call(pending.on_outcome, error)

    def _all(self) -> list[Pending]:
        return [*self.under_way, *self.waiting]

    def _give_up_overdue(self, overdue: Sequence[Pending]) -> None:
        self.give_up(self._on_overdue(), [one for one in overdue if not one.may_wait])

    def clear(self) -> None:
        """Forget all operations, waiting and under way."""
        self._deadlines.stop()
        self.under_way.clear()
        self.waiting = SendQueue()

    def _fail(self, pending: Pending, error: Exception) -> None:
        """Fail an operation whose code raised an exception."""
        self._guard.note(type(pending.operation).__qualname__, error)
        failed = CoordinatorError(
            f"an operation on {self._shard} failed within Forebay ({type(error).__qualname__},"
            " see the log); please report this."
        )
        self.give_up(failed, [pending])


def sent(pending: Pending, terms: Sequence[Any], payloads: Sequence[bytes]) -> Sent:
    """Return the operation that was sent, with its decoded reply."""
    assert pending.operation is not None and pending.membership is not None  # noqa: S101, PT018
    return pending.operation, Reply(terms, pending.membership, payloads)
