"""A member's channel to one shard: numbered batches, each carried out once (spec 06).

Operations of one turn of the event loop travel in one script call; while a call is under way the
next ones gather, at most 64 a call. A call whose reply was lost is sent again under its number, so
it happens once. Cancelling a caller never cancels a command.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from redis.exceptions import RedisError

from forebay.contracts.errors import (
    CoordinatorError,
    CoordinatorFull,
    CoordinatorUnavailable,
    ForebayError,
)
from forebay.coordinator.keys import ShardKeys
from forebay.coordinator.logs import Logger
from forebay.coordinator.scripts.composing import Script
from forebay.coordinator.server.link import (
    Answer,
    Call,
    LinkDownError,
    NotAMemberError,
    refused_operation,
)
from forebay.coordinator.server.wire import is_sendable
from forebay.coordinator.shard.joining import MEMBER_SCRIPTS, Server, join
from forebay.coordinator.shard.membership import Membership
from forebay.coordinator.shard.operation import Args, Operation, Question, Result
from forebay.coordinator.supervision import Background, Guard, name_of, pause_seconds

OPERATIONS_PER_CALL: Final = 64
RESULTS_PER_TURN: Final = 16
"""Half a call or less, so that the server and this process work at the same time."""

CLOCK_SLACK_SECONDS: Final = 0.001
"""Timers may fire a clock tick early."""

CLOSED: Final = "the coordinator was closed; connect anew."

log = Logger("forebay.channel")


class Listener(Protocol):
    """What a channel tells its owner; what a method raises is logged, and the channel goes on."""

    def on_notices(self, generation: str, notices: Sequence[list[Any]]) -> None:
        """Something befell waiters or leases of this member."""

    def on_next_wake(self, seconds: float | None) -> None:
        """Time alone may change something this far from now; None if nobody waits."""

    def on_joined(self, membership: Membership) -> list[Operation]:
        """A membership begins: what must come before everything else, such as registering.

        Where it raises, the process is no member and joins again after a pause.
        """

    def on_lost(self, membership: Membership) -> None:
        """A membership is over, as may be said twice: what it held is, or will be, others'."""

    def on_resumed(self) -> None:
        """Wake-ups may have been lost: ask for what is waited for."""


class ShardChannel:
    """The one way of this process to change a shard.

    Args:
        server: the process's connection to the server.
        keys: the shard.
        batch: the shard's batch script.
        listener: told of notices, wake-ups and membership.
    """

    def __init__(self, server: Server, keys: ShardKeys, batch: Script, listener: Listener) -> None:
        self.keys = keys
        self.membership: Membership | None = None
        self._server = server
        self._batch = batch
        self._key_list = keys.all
        self._listener = listener
        self._link = server.new_link(*MEMBER_SCRIPTS, batch)
        self._queue: deque[Operation] = deque()
        self._under_way: list[Operation] = []
        self._number = 0
        self._loop = asyncio.get_running_loop()
        self._guard = Guard(log, shard=keys.tag)
        self._state = server.availability.connection("calls", shard=keys.tag)
        self._is_flush_due = False
        self._repairing = Background(
            f"forebay-{keys.tag}", self._make_whole, self._guard, done=self._repaired
        )
        self._overdue: asyncio.TimerHandle | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._closed = False
        self._is_leaving = False
        self._is_joining = False
        self._is_expired = False
        self._has_lost_membership = False
        self._failures = 0
        self._last_error = ""
        self._clock_ahead_us: float | None = None

    def submit(self, operation: Operation) -> None:
        """Send an operation with the next call; it is told its result."""
        if self._closed:
            self._guard.call(operation.done, CoordinatorUnavailable(CLOSED))
            return
        operation.since = self._loop.time()
        self._queue.append(operation)
        if self._overdue is None:
            self._overdue = self._loop.call_later(
                self._server.settings.call_timeout_seconds, self._guard.call, self._check_overdue
            )
        if not self._under_way:
            self._flush_soon()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed: nothing can be asked any more."""
        return self._closed

    @property
    def server_now_us(self) -> int | None:
        """About the shard's time, as of its last reply; None before the first."""
        if self._clock_ahead_us is None:
            return None
        return round(self._loop.time() * 1e6 + self._clock_ahead_us)

    def ask(self, *args: str | int | bytes, frees: bool = False) -> asyncio.Future[Result]:
        """Submit an operation and return its result as a future."""
        question = Question(args, self._loop, frees=frees)
        self.submit(question)
        return question.future

    async def close(self, leave: Args = ("leave",)) -> None:
        """Leave the shard at once, as far as the server can be reached, and close.

        Args:
            leave: the operation that leaves, as it stands in the ARGV of this shard's script.
        """
        self._is_leaving = True
        try:
            with contextlib.suppress(ForebayError):
                # A join that is under way may have made a membership on the server already.
                while self.membership is not None or self._is_joining:
                    if await self.ask(*leave, frees=True) == ["left"]:
                        break
        finally:
            self._closed = True
            try:
                await self._repairing.stop()
            finally:
                self._end()

    def _end(self) -> None:
        for timer in (self._overdue, self._watching):
            if timer is not None:
                timer.cancel()
        if self.membership is not None:
            self._part(self.membership)
        closed = CoordinatorUnavailable(CLOSED)
        self._give_up(closed, [*self._under_way, *self._queue])
        self._under_way.clear()
        self._link.drop()
        self._state.forget()

    # -- calls

    def _flush_soon(self) -> None:
        """Send at the end of this turn of the loop: what it brings up travels together."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._guard.call, self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if self._under_way or self._repairing.is_running or self._closed:
            return
        if self._is_expired or (self._queue and not self._is_whole):
            self._repair()
        elif self._queue:
            self._send_next()

    @property
    def _is_whole(self) -> bool:
        return self.membership is not None and self._link.is_up and not self._is_expired

    def _send_next(self) -> None:
        count = min(len(self._queue), OPERATIONS_PER_CALL)
        self._send_new([self._queue.popleft() for _ in range(count)])

    def _send_new(self, operations: list[Operation]) -> None:
        ready = []
        for operation in operations:
            operation.sent_as = self.membership
            try:
                operation.prepare()
            except Exception as error:  # noqa: BLE001 - the others are to go
                self._fail(operation, operation.prepare, error)
            else:
                ready.append(operation)
        if not ready:
            self._flush_soon()
            return
        self._under_way = ready
        self._number += 1
        self._send()

    def _send(self) -> None:
        assert self.membership is not None  # noqa: S101 - for mypy; whoever calls looked
        arguments: list[str | int | bytes] = [self.membership.member_id, self._number]
        for operation in self._under_way:
            arguments += operation.args
        call = Call(
            script=self._batch,
            keys=self._key_list,
            arguments=arguments,
            is_freeing=not any(operation.takes for operation in self._under_way),
        )
        try:
            self._link.send(call, self._answered)
        except (TypeError, ValueError) as error:
            self._fail_unsendable(error)

    def _fail_unsendable(self, error: Exception) -> None:
        """Fail what has no form in bytes, and send the rest of the batch; nothing was sent yet."""
        operations, self._under_way = self._under_way, []
        self._number -= 1
        rest = [operation for operation in operations if is_sendable(operation.args)]
        if len(rest) == len(operations):
            rest = []
        for operation in operations:
            if operation not in rest:
                self._fail(operation, self._link.send, error)
        if rest:
            self._send_new(rest)
        else:
            self._flush_soon()

    def _answered(self, answer: Answer) -> None:
        if isinstance(answer, LinkDownError):
            if not self._closed:  # else it was dropped on purpose
                self._note_unavailable(answer)
                self._failures += 1
                self._repair()
            return
        failures, self._failures = self._failures, 0
        self._note_available()
        operations, self._under_way = self._under_way, []
        try:
            if isinstance(answer, Exception):
                self._take_refusal(answer, operations)
            else:
                if self._queue and self._is_whole:
                    self._send_next()  # the server works while this reply is told
                text, *payloads = answer if isinstance(answer, list) else [answer]
                self._deliver(text, payloads, operations)
        except Exception as error:  # noqa: BLE001 - their callers must not wait for ever
            self._failures = failures + 1
            self._lose_reply(operations, error)
        self._flush_soon()

    def _take_refusal(self, refused: Exception, operations: list[Operation]) -> None:
        match refused:
            case NotAMemberError():
                self._requeue_lost(operations)
                if not self._is_leaving:
                    self._is_expired = True
                elif self.membership is not None:
                    self._part(self.membership)
                    self.membership = None  # it has left, though the reply was lost
            case CoordinatorFull():
                # Nothing was carried out. What frees goes on alone, as it is taken in any case.
                self._give_up(refused, [op for op in operations if op.takes])
                if others := [op for op in operations if not op.takes]:
                    self._send_new(others)
            case ForebayError():
                self._give_up(refused, operations)
            case _:
                raise refused

    def _deliver(
        self, reply: bytes, payloads: list[bytes], operations: Sequence[Operation]
    ) -> None:
        now_us, wake_us, generation, results, notices = json.loads(reply)
        told = list(zip(operations, results, strict=True))
        if payloads:
            for operation in operations:
                operation.payloads = payloads
        self._clock_ahead_us = now_us - self._loop.time() * 1e6
        seconds = (wake_us - now_us) / 1e6 if wake_us else None
        if notices:
            self._guard.call(self._listener.on_notices, generation, notices)
        self._guard.call(self._listener.on_next_wake, seconds)
        self._tell(told)

    def _tell(self, told: list[tuple[Operation, Result]]) -> None:
        """Tell results, a part of them in a turn of the loop: what it brings up can go already."""
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
        if len(told) > RESULTS_PER_TURN:
            self._flush_soon()
            self._loop.call_soon(self._guard.call, self._tell, told[RESULTS_PER_TURN:])

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
            f"an operation on {self.keys.tag} failed within Forebay ({type(error).__qualname__},"
            " see the log); please report this."
        )
        self._give_up(failed, [operation])
        if result is not None:
            self._guard.call(operation.late, result)

    def _lose_reply(self, operations: Sequence[Operation], error: Exception) -> None:
        """End the membership, as nobody knows what a reply gave that cannot be read."""
        self._guard.note("reading a reply", error)
        self._is_expired = True
        unread = CoordinatorError(
            f"the reply of {self._server.address} for {self.keys.tag} cannot be read"
            f" ({type(error).__qualname__}, see the log), expected what this version's scripts"
            " answer; please report this."
        )
        self._give_up(unread, operations)

    def _requeue_lost(self, operations: Sequence[Operation]) -> None:
        """Sort what met the end of the membership: what frees has nothing left to free."""
        again = []
        for operation in operations:
            if operation.frees and not operation.given_up:
                self._guard.call(operation.done, ["stale_lease"])
            elif not operation.frees and operation.is_wanted:
                again.append(operation)
        self._queue.extendleft(reversed(again))

    # -- getting the connection and the membership back

    def _repair(self) -> None:
        if not self._closed:
            self._repairing.start()

    async def _make_whole(self) -> None:
        while True:
            try:
                if self._failures:
                    await asyncio.sleep(pause_seconds(self._failures))
                # A server that accepts and says nothing must not hold up the next try for ever.
                async with asyncio.timeout(self._server.settings.call_timeout_seconds):
                    await self._connect_and_join()
            except ForebayError as error:
                self._refused(error)
                return
            except (LinkDownError, RedisError, OSError) as error:
                self._note_unavailable(error)
                self._link.drop()
                self._failures += 1
            except (Exception, asyncio.CancelledError) as error:
                # It is logged and tried again; a reply may be on its way that nobody awaits.
                self._last_error = f" ({type(error).__qualname__})"
                self._link.drop()
                raise
            else:
                if not self._under_way:
                    self._note_available()
                return

    def _repaired(self) -> None:
        if not self._under_way:
            self._flush_soon()
        elif self._link.is_up:
            # The same number: if the server has acted already, it answers from its memory.
            self._send()
        else:
            self._repair()

    def _refused(self, error: ForebayError) -> None:
        """Tell callers what the server refuses them; it would refuse that again."""
        self._give_up(error, [*self._under_way, *self._queue])
        if self.membership is None:
            self._queue.clear()  # without a membership nothing is left to free
        if self._queue or self._under_way:
            self._failures += 1  # what frees is tried again, after a pause
        else:
            self._note_available()  # it answers, after all

    async def _connect_and_join(self) -> None:
        if self._is_expired and not self._under_way:
            self._leave_lost()
        await self._link.connect()
        if self.membership is None and not self._under_way:
            if self._is_leaving:
                raise CoordinatorUnavailable(CLOSED)
            await self._join()

    def _leave_lost(self) -> None:
        """Tell what the last membership lost."""
        self._is_expired = False
        lost, self.membership = self.membership, None
        if lost is not None:
            self._has_lost_membership = True
            self._part(lost)
            log.warning("membership_lost", shard=self.keys.tag, member_id=lost.member_id)
            self._guard.call(self._listener.on_lost, lost)

    async def _join(self) -> None:
        """Join under a name that was never used."""
        self._is_joining = True
        try:
            membership = await join(
                self._server,
                self._link,
                self.keys,
                on_message=self._on_message,
                on_resumed=self._listener.on_resumed,
                on_expired=self._on_expired,
            )
            self._begin_membership(membership)
        finally:
            self._is_joining = False

    def _begin_membership(self, membership: Membership) -> None:
        self.membership = membership
        self._number = 0
        try:
            self._server.heartbeat.add(membership)
            first = self._listener.on_joined(membership)
        except BaseException:
            self.membership = None
            self._part(membership)
            raise
        self._watch(membership)
        for operation in first:
            operation.since = self._loop.time()
        self._queue.extendleft(reversed(first))
        if self._has_lost_membership:
            self._has_lost_membership = False
            log.warning(
                "membership_joined_anew", shard=self.keys.tag, member_id=membership.member_id
            )

    def _part(self, membership: Membership) -> None:
        self._server.heartbeat.remove(membership)
        self._server.subscriber.unsubscribe(self.keys.wake_channel(membership.member_id))

    def _watch(self, membership: Membership) -> None:
        """Notice on time that no heartbeat was acknowledged for a TTL, however silent the server.

        The shard may not have ended the membership yet, but will: nobody renews it any more.
        """
        if self._watching is not None:
            self._watching.cancel()
        if membership.is_held:
            pause = membership.remaining_seconds + CLOCK_SLACK_SECONDS
            self._watching = self._loop.call_later(pause, self._guard.call, self._watch, membership)
        else:
            self._watching = None
            self._server.heartbeat.remove(membership)
            self._on_expired(membership)

    def _on_expired(self, membership: Membership) -> None:
        if self.membership is membership and not self._is_leaving:
            self._is_expired = True
            self._guard.call(self._listener.on_lost, membership)
            self._flush_soon()

    def _on_message(self, payload: bytes) -> None:
        generation, notices = json.loads(payload)
        self._listener.on_notices(generation, notices)

    # -- bounded time: callers get a typed error, what frees goes on

    def _check_overdue(self) -> None:
        self._overdue = None
        timeout = self._server.settings.call_timeout_seconds
        now = self._loop.time()
        waiting = [op for op in (*self._under_way, *self._queue) if not op.given_up]
        overdue = [op for op in waiting if now - op.since >= timeout]
        if overdue:
            error = CoordinatorUnavailable(
                f"{self._server.address} did not answer within {timeout:g} s{self._last_error};"
                " is it running and reachable? Forebay goes on trying to reach it."
            )
            self._give_up(error, overdue)
        ages = [now - op.since for op in waiting if not op.given_up]
        if ages and self._overdue is None:
            self._overdue = self._loop.call_later(
                timeout - max(ages), self._guard.call, self._check_overdue
            )
        if overdue:
            # A reply that is this late may never come: the repeat goes over a new connection.
            self._link.drop()

    def _give_up(self, error: ForebayError, operations: Sequence[Operation]) -> None:
        for operation in list(operations):
            if not operation.given_up:
                operation.given_up = True
                self._guard.call(operation.done, error)
        self._queue = deque(op for op in self._queue if op.frees or not op.given_up)

    def _note_unavailable(self, error: Exception) -> None:
        self._last_error = f" ({error!s:.200})" if str(error) else ""
        self._state.lost(error)

    def _note_available(self) -> None:
        self._state.back()
