"""A member's numbered batches: what waits, what is under way, what becomes of it (spec 06).

At most 64 operations travel in one call, and one call at a time. A call whose reply was lost is
sent again under its number, so it is carried out once.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from forebay.contracts.errors import CoordinatorError, ForebayError
from forebay.coordinator.server.refusals import refused_operation
from forebay.coordinator.server.wire import is_sendable
from forebay.coordinator.shard.membership import Membership
from forebay.coordinator.shard.operation import Listener, Operation, Result
from forebay.coordinator.supervision import Guard, name_of

OPERATIONS_PER_CALL: Final = 64
RESULTS_PER_TURN: Final = 16
"""Half a call or less, so that the server and this process work at the same time."""


class Batches:
    """The operations of one member on their way; it sends nothing, which is for `Session` to do.

    Args:
        shard: whose they are, for messages.
        listener: told what a reply says beside the results.
        guard: logs what an operation raises.
        timeout_seconds: how long a caller waits for a result at most.
        on_overdue: called when one has waited for so long; returns what such callers are told.

    Attributes:
        under_way: the operations of the call that was not answered yet.
        arguments: the ARGV of that call, the same each time it is sent.
        clock_ahead_us: how far the shard's clock is ahead of the loop's; None before a reply.
    """

    def __init__(
        self,
        shard: str,
        listener: Listener,
        guard: Guard,
        *,
        timeout_seconds: float,
        on_overdue: Callable[[], ForebayError],
    ) -> None:
        self.under_way: list[Operation] = []
        self.arguments: list[str | int | bytes] = []
        self.clock_ahead_us: float | None = None
        self._shard = shard
        self._listener = listener
        self._guard = guard
        self._timeout_seconds = timeout_seconds
        self._on_overdue = on_overdue
        self._overdue: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Operation] = deque()
        self._number = 0

    @property
    def has_waiting(self) -> bool:
        """Whether an operation waits to be sent."""
        return bool(self._queue)

    @property
    def is_freeing(self) -> bool:
        """Whether the call under way only gives back, and so runs in a server without memory."""
        return not any(operation.takes for operation in self.under_way)

    def add(self, operation: Operation) -> None:
        """Let an operation wait for the next call."""
        operation.since = self._loop.time()
        self._queue.append(operation)
        if self._overdue is None:
            self._look_for_overdue_at(operation.since + self._timeout_seconds)

    def begin(self, first: Sequence[Operation]) -> None:
        """Begin a membership: calls are numbered from 1, and ``first`` comes before all else."""
        self._number = 0
        for operation in first:
            operation.since = self._loop.time()
        self._queue.extendleft(reversed(first))

    # -- calls

    def take_next(self, membership: Membership) -> bool:
        """Put what waits longest under way; False where nothing of it can be sent."""
        count = min(len(self._queue), OPERATIONS_PER_CALL)
        return self.take([self._queue.popleft() for _ in range(count)], membership)

    def take(self, operations: Sequence[Operation], membership: Membership) -> bool:
        """Put operations under way under a new number; False where none of them can be sent."""
        for operation in operations:
            operation.sent_as = membership
            try:
                operation.prepare()
            except Exception as error:  # noqa: BLE001 - the others are to go
                self._fail(operation, operation.prepare, error)
            else:
                self.under_way.append(operation)
        if not self.under_way:
            return False
        self._number += 1
        self.arguments = [membership.member_id, self._number]
        for operation in self.under_way:
            self.arguments += operation.args
        return True

    def retake_sendable(self, error: Exception, membership: Membership) -> bool:
        """Fail what has no form in bytes, and put the rest of the call under way instead.

        Args:
            error: what was raised when the call was packed, of which nothing was sent.
            membership: under which the rest is sent.
        """
        operations = self.end_call()
        self._number -= 1
        rest = [operation for operation in operations if is_sendable(operation.args)]
        if len(rest) == len(operations):
            rest = []
        for operation in operations:
            if operation not in rest:
                self._fail(operation, is_sendable, error)
        return self.take(rest, membership)

    def end_call(self) -> list[Operation]:
        """Return the operations that were under way; they are no more."""
        operations, self.under_way = self.under_way, []
        return operations

    # -- replies

    def take_reply(
        self,
        reply: bytes | list[bytes],
        operations: Sequence[Operation],
        *,
        between: Callable[[], None],
    ) -> None:
        """Tell what a reply says: to the listener what befell the member, then each result.

        Args:
            reply: the reply's text, or that and the payloads that it speaks of.
            operations: those of its call.
            between: called after each part of the results but the last, as what a part brings up
                can go already.

        Raises:
            Exception: it cannot be read, and nothing was told.
        """
        text, *payloads = reply if isinstance(reply, list) else [reply]
        now_us, wake_us, generation, results, notices = json.loads(text)
        told = list(zip(operations, results, strict=True))
        if payloads:
            for operation in operations:
                operation.payloads = payloads
        self.clock_ahead_us = now_us - self._loop.time() * 1e6
        seconds = (wake_us - now_us) / 1e6 if wake_us else None
        if notices:
            self._guard.call(self._listener.on_notices, generation, notices)
        self._guard.call(self._listener.on_next_wake, seconds)
        self._tell(told, between)

    def _tell(self, told: list[tuple[Operation, Result]], between: Callable[[], None]) -> None:
        """Tell results, a part of them in a turn of the loop."""
        for operation, result in told[:RESULTS_PER_TURN]:
            try:
                if operation.given_up:
                    operation.late(result)
                elif result[0] == "error":
                    operation.done(refused_operation(result[1], result[2]))
                else:
                    operation.done(result)
            except Exception as error:  # noqa: BLE001 - the others are to be told theirs
                self._fail(operation, operation.done, error, result)
        if rest := told[RESULTS_PER_TURN:]:
            between()
            self._loop.call_soon(self._guard.call, self._tell, rest, between)

    def requeue(self, operations: Sequence[Operation]) -> None:
        """Sort what met the end of a membership: releases have nothing left to free."""
        again = []
        for operation in operations:
            if operation.frees and not operation.given_up:
                self._guard.call(operation.done, ["stale_lease"])
            elif not operation.frees and operation.is_wanted:
                again.append(operation)
        self._queue.extendleft(reversed(again))

    # -- errors

    def give_up(self, error: ForebayError, operations: Sequence[Operation] | None = None) -> None:
        """Tell callers an error; releases go on, whatever their callers were told.

        Args:
            error: what they are told.
            operations: whose callers; None for all.
        """
        for operation in [*self.under_way, *self._queue] if operations is None else operations:
            if not operation.given_up:
                operation.given_up = True
                self._guard.call(operation.done, error)
        self._queue = deque(op for op in self._queue if op.frees or not op.given_up)

    def _look_for_overdue_at(self, instant: float) -> None:
        self._overdue = self._loop.call_at(instant, self._guard.call, self._give_up_overdue)

    def _give_up_overdue(self) -> None:
        self._overdue = None
        latest = self._loop.time() - self._timeout_seconds
        if overdue := [op for op in self._awaited if op.since <= latest]:
            self.give_up(self._on_overdue(), overdue)
        since = min((op.since for op in self._awaited), default=None)
        if since is not None and self._overdue is None:
            self._look_for_overdue_at(since + self._timeout_seconds)

    @property
    def _awaited(self) -> Iterator[Operation]:
        return (op for op in (*self.under_way, *self._queue) if not op.given_up)

    def clear(self) -> None:
        """Forget what waits and what is under way."""
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        self.under_way.clear()
        self._queue.clear()

    def _fail(
        self,
        operation: Operation,
        raised_in: Callable[..., object],
        error: Exception,
        result: Result | None = None,
    ) -> None:
        """End an operation that raised: its caller is told an error, and what it took goes back."""
        self._guard.note(name_of(raised_in), error)
        if operation.given_up:
            return
        failed = CoordinatorError(
            f"an operation on {self._shard} failed within Forebay ({type(error).__qualname__},"
            " see the log); please report this."
        )
        self.give_up(failed, [operation])
        if result is not None:
            self._guard.call(operation.late, result)
