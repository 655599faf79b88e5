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
from collections.abc import Sequence
from typing import Any, Final, Protocol

from redis.backoff import EqualJitterBackoff
from redis.exceptions import RedisError

from forebay.contracts.errors import (
    CoordinatorError,
    CoordinatorFull,
    CoordinatorUnavailable,
    ForebayError,
)
from forebay.coordinator.joining import MEMBER_SCRIPTS, Server, join
from forebay.coordinator.keys import ShardKeys
from forebay.coordinator.link import Answer, Call, LinkDownError, NotAMemberError, refused_operation
from forebay.coordinator.logs import Logger
from forebay.coordinator.membership import Membership
from forebay.coordinator.operations import Args, Operation, Question, Result
from forebay.coordinator.scripts import Script

OPERATIONS_PER_CALL: Final = 64
RESULTS_PER_TURN: Final = 16
"""Half a call or less, so that the server and this process work at the same time."""

CLOCK_SLACK_SECONDS: Final = 0.001
"""Timers may fire a clock tick early."""

CLOSED: Final = "the coordinator was closed; connect anew."

log = Logger("forebay.channel")


class Listener(Protocol):
    """What a channel tells its owner."""

    def on_notices(self, generation: str, notices: Sequence[list[Any]]) -> None:
        """Something befell waiters or leases of this member."""

    def on_next_wake(self, seconds: float | None) -> None:
        """Time alone may change something this far from now; None if nobody waits."""

    def on_joined(self, membership: Membership) -> list[Operation]:
        """A membership begins: what must come before everything else, such as registering."""

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
        self._is_flush_due = False
        self._repairing: asyncio.Task[None] | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._closed = False
        self._is_leaving = False
        self._is_unavailable = False
        self._is_expired = False
        self._failures = 0
        self._last_error = ""
        self._clock_ahead_us: float | None = None

    def submit(self, operation: Operation) -> None:
        """Send an operation with the next call; it is told its result."""
        if self._closed:
            operation.done(CoordinatorUnavailable(CLOSED))
            return
        operation.since = self._loop.time()
        self._queue.append(operation)
        if self._overdue is None:
            self._overdue = self._loop.call_later(
                self._server.settings.call_timeout_seconds, self._check_overdue
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
        membership = self.membership
        self._is_leaving = True
        with contextlib.suppress(CoordinatorError):
            while self.membership is not None and self.membership is membership:
                if await self.ask(*leave, frees=True) == ["left"]:
                    break
        self._closed = True
        if self._repairing is not None:
            self._repairing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._repairing
        for timer in (self._overdue, self._watching):
            if timer is not None:
                timer.cancel()
        if membership is not None:
            self._part(membership)
        closed = CoordinatorUnavailable(CLOSED)
        self._give_up(closed, [*self._under_way, *self._queue])
        self._under_way.clear()
        self._link.drop()

    # -- calls

    def _flush_soon(self) -> None:
        """Send at the end of this turn of the loop: what it brings up travels together."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if self._under_way or self._repairing is not None or self._closed:
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
        for operation in operations:
            operation.sent_as = self.membership
            operation.prepare()
        self._under_way = operations
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
        self._link.send(call, self._answered)

    def _answered(self, answer: Answer) -> None:
        if isinstance(answer, LinkDownError):
            self._note_unavailable(answer)
            self._failures += 1
            self._repair()
            return
        self._failures = 0
        self._note_available()
        operations, self._under_way = self._under_way, []
        match answer:
            case bytes() | list():
                if self._queue and self._is_whole:
                    self._send_next()  # the server works while this reply is told
                text, *payloads = answer if isinstance(answer, list) else [answer]
                self._deliver(text, payloads, operations)
            case NotAMemberError():
                self._requeue_lost(operations)
                if self._is_leaving:
                    self.membership = None  # it has left, though the reply was lost
                else:
                    self._is_expired = True
            case CoordinatorFull():
                # Nothing was carried out. What frees goes on alone, as it is taken in any case.
                self._give_up(answer, [op for op in operations if op.takes])
                if others := [op for op in operations if not op.takes]:
                    self._send_new(others)
            case ForebayError():
                self._give_up(answer, operations)
            case _:
                raise answer
        self._flush_soon()

    def _deliver(
        self, reply: bytes, payloads: list[bytes], operations: Sequence[Operation]
    ) -> None:
        now_us, wake_us, generation, results, notices = json.loads(reply)
        if payloads:
            for operation in operations:
                operation.payloads = payloads
        self._clock_ahead_us = now_us - self._loop.time() * 1e6
        if notices:
            self._listener.on_notices(generation, notices)
        self._listener.on_next_wake((wake_us - now_us) / 1e6 if wake_us else None)
        self._tell(list(zip(operations, results, strict=True)))

    def _tell(self, told: list[tuple[Operation, Result]]) -> None:
        """Tell results, a part of them in a turn of the loop: what it brings up can go already."""
        for operation, result in told[:RESULTS_PER_TURN]:
            if operation.given_up:
                operation.late(result)
            elif result[0] == "error":
                operation.done(refused_operation(result[1], result[2]))
            else:
                operation.done(result)
        if len(told) > RESULTS_PER_TURN:
            self._flush_soon()
            self._loop.call_soon(self._tell, told[RESULTS_PER_TURN:])

    def _requeue_lost(self, operations: Sequence[Operation]) -> None:
        """Sort what met the end of the membership: what frees has nothing left to free."""
        again = []
        for operation in operations:
            if operation.frees and not operation.given_up:
                operation.done(["stale_lease"])
            elif not operation.frees and operation.is_wanted:
                again.append(operation)
        self._queue.extendleft(reversed(again))

    # -- getting the connection and the membership back

    def _repair(self) -> None:
        if self._repairing is None and not self._closed:
            self._repairing = self._loop.create_task(
                self._make_whole(), name=f"forebay-{self.keys.tag}"
            )

    async def _make_whole(self) -> None:
        backoff = EqualJitterBackoff(cap=1.0, base=0.02)
        while True:
            try:
                if self._failures:
                    await asyncio.sleep(backoff.compute(self._failures))
                # A server that accepts and says nothing must not hold up the next try for ever.
                async with asyncio.timeout(self._server.settings.call_timeout_seconds):
                    await self._link.connect()
                    if not self._under_way and (self._is_expired or self.membership is None):
                        if self._is_leaving:
                            raise CoordinatorUnavailable(CLOSED)
                        await self._rejoin()
            except ForebayError as error:
                self._give_up(error, self._queue)
                self._queue.clear()  # without a membership nothing is left to free
                break
            except (LinkDownError, RedisError, OSError) as error:
                self._note_unavailable(error)
                self._link.drop()
                self._failures += 1
            else:
                if not self._under_way:
                    self._note_available()
                break
        self._repairing = None
        if self._under_way:
            # The same number: if the server has acted already, it answers from its memory.
            self._send()
        else:
            self._flush_soon()

    async def _rejoin(self) -> None:
        """Join under a name that was never used, after telling what the last one lost."""
        self._is_expired = False
        lost, self.membership = self.membership, None
        if lost is not None:
            self._part(lost)
            log.warning("membership_lost", shard=self.keys.tag, member_id=lost.member_id)
            self._listener.on_lost(lost)
        self.membership = await join(
            self._server,
            self._link,
            self.keys,
            on_message=self._on_message,
            on_resumed=self._listener.on_resumed,
            on_expired=self._on_expired,
        )
        self._number = 0
        self._server.heartbeat.add(self.membership)
        self._watch(self.membership)
        first = self._listener.on_joined(self.membership)
        for operation in first:
            operation.since = self._loop.time()
        self._queue.extendleft(reversed(first))

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
            self._watching = self._loop.call_later(
                membership.remaining_seconds + CLOCK_SLACK_SECONDS, self._watch, membership
            )
        else:
            self._watching = None
            self._server.heartbeat.remove(membership)
            self._on_expired(membership)

    def _on_expired(self, membership: Membership) -> None:
        if self.membership is membership and not self._is_leaving:
            self._is_expired = True
            self._listener.on_lost(membership)
            self._flush_soon()

    def _on_message(self, payload: bytes) -> None:
        generation, notices = json.loads(payload)
        self._listener.on_notices(generation, notices)

    # -- bounded time: callers get a typed error, what frees goes on

    def _check_overdue(self) -> None:
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
        self._overdue = None
        if ages:
            self._overdue = self._loop.call_later(timeout - max(ages), self._check_overdue)
        if overdue:
            # A reply that is this late may never come: the repeat goes over a new connection.
            self._link.drop()

    def _give_up(self, error: ForebayError, operations: Sequence[Operation]) -> None:
        for operation in list(operations):
            if not operation.given_up:
                operation.given_up = True
                operation.done(error)
        self._queue = deque(op for op in self._queue if op.frees or not op.given_up)

    def _note_unavailable(self, error: Exception) -> None:
        self._last_error = f" ({error!s:.200})" if str(error) else ""
        if not self._is_unavailable:
            self._is_unavailable = True
            log.warning(
                "coordinator_unavailable",
                server=str(self._server.address),
                shard=self.keys.tag,
                error=str(error)[:200],
            )

    def _note_available(self) -> None:
        if self._is_unavailable:
            self._is_unavailable = False
            log.info("coordinator_available", server=str(self._server.address), shard=self.keys.tag)
