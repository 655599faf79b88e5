"""A member's channel to one shard: numbered batches, joining, and what comes back (spec 06).

Operations of one turn of the event loop travel in one script call; while a call is under way the
next ones gather, at most 64 a call. A call whose reply was lost is sent again under its number, so
it happens once. Cancelling a caller never cancels a command.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import structlog
from redis.exceptions import RedisError

from contracts.errors import CoordinatorError, CoordinatorUnavailable
from contracts.settings import MemberSettings
from coordinator.address import ServerAddress
from coordinator.keys import KEEP_UNUSED_SHARD_MS, SCHEMA_VERSION, ShardKeys
from coordinator.link import LinkDownError, NotAMemberError, ScriptLink
from coordinator.membership import Heartbeat, Membership, boot_seconds, member_keys
from coordinator.scripts import Script, script
from coordinator.wakeups import Subscriber

OPERATIONS_PER_CALL: Final = 64

Result = list[Any]
Done = Callable[[Result | CoordinatorError], None]

log = structlog.get_logger("forebay.channel")


class Listener(Protocol):
    """What a channel tells its owner."""

    def on_notices(self, generation: str, notices: Sequence[list[Any]]) -> None:
        """Something befell waiters or leases of this member."""

    def on_next_wake(self, seconds: float | None) -> None:
        """Time alone may change something this far from now; None if nobody waits."""

    def on_joined(self, membership: Membership) -> list[Operation]:
        """A membership begins: what must come before everything else, such as registering."""

    def on_lost(self, membership: Membership) -> None:
        """A membership is over: what it held has been given to others."""


class Operation:
    """One operation under way.

    Attributes:
        args: its name and arguments, as they stand in the script's ARGV.
        done: told its result, or the error that ended the caller's wait, once.
        frees: whether it gives back; what frees is repeated until acknowledged.
        late: told the result if it came after its caller had given up, to give back what it took.
        since: loop time when it was submitted.
    """

    __slots__ = ("args", "done", "frees", "given_up", "late", "since")

    def __init__(
        self,
        args: tuple[str | int | bytes, ...],
        done: Done,
        *,
        frees: bool = False,
        late: Callable[[Result], None] | None = None,
    ) -> None:
        self.args = args
        self.done = done
        self.frees = frees
        self.late = late
        self.given_up = False
        self.since = 0.0


class Server(Protocol):
    """What a channel needs of the process's connection to a server."""

    address: ServerAddress
    settings: MemberSettings
    heartbeat: Heartbeat
    subscriber: Subscriber

    def new_member_id(self) -> str:
        """Return a name that was never used and will never be used again."""
        ...

    async def run_id(self) -> str:
        """Return the server's run id."""
        ...

    async def list_shard(self, keys: ShardKeys) -> None:
        """Put the shard into the index of shards."""
        ...

    def new_link(self) -> ScriptLink:
        """Return a connection of its own."""
        ...


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
        self._listener = listener
        self._link = server.new_link()
        self._queue: deque[Operation] = deque()
        self._under_way: list[Operation] = []
        self._wanted = asyncio.Event()
        self._number = 0
        self._loop = asyncio.get_running_loop()
        self._key_list = keys.all
        self._overdue: asyncio.TimerHandle | None = None
        self._dropping: asyncio.Task[None] | None = None
        self._closed = False
        self._unavailable = False
        self._expired_by_heartbeat = False
        self._flusher = self._loop.create_task(self._flush(), name=f"forebay-{keys.tag}")

    def submit(self, operation: Operation) -> None:
        """Send an operation with the next call; its ``done`` is told the result."""
        if self._closed:
            operation.done(CoordinatorUnavailable("the coordinator was closed; open another."))
            return
        operation.since = self._loop.time()
        self._queue.append(operation)
        if self._overdue is None:
            self._overdue = self._loop.call_later(
                self._server.settings.call_timeout_seconds, self._check_overdue
            )
        self._wanted.set()

    def ask(
        self,
        *args: str | int | bytes,
        frees: bool = False,
        late: Callable[[Result], None] | None = None,
    ) -> asyncio.Future[Result]:
        """Submit an operation and return its result as a future."""
        future: asyncio.Future[Result] = self._loop.create_future()

        def done(result: Result | CoordinatorError) -> None:
            if future.done():
                return
            if isinstance(result, CoordinatorError):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.submit(Operation(args, done, frees=frees, late=late))
        return future

    async def close(self, leave: tuple[str | int | bytes, ...] = ("leave",)) -> None:
        """Leave the shard at once, as far as the server can be reached, and close.

        Args:
            leave: the operation that leaves, as it stands in the ARGV of this shard's script.
        """
        membership = self.membership
        with contextlib.suppress(CoordinatorError):
            while self.membership is not None and self.membership is membership:
                if await self.ask(*leave, frees=True) == ["left"]:
                    break
        self._flusher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._flusher
        if self._overdue is not None:
            self._overdue.cancel()
        if membership is not None:
            self._server.heartbeat.remove(membership)
            await self._server.subscriber.unsubscribe(self.keys.wake_channel(membership.member_id))
        self._closed = True
        closed = CoordinatorUnavailable("the coordinator was closed; open another.")
        self._give_up(closed, [*self._under_way, *self._queue])
        await self._link.drop()

    # -- the flusher: the only task that talks to the shard

    async def _flush(self) -> None:
        while True:
            if not self._queue and not self._expired_by_heartbeat:
                self._wanted.clear()
                await self._wanted.wait()
            if self.membership is None or self._expired_by_heartbeat:
                await self._rejoin()
            count = min(len(self._queue), OPERATIONS_PER_CALL)
            self._under_way = [self._queue.popleft() for _ in range(count)]
            if self._under_way:
                await self._send()

    async def _send(self) -> None:
        assert self.membership is not None  # noqa: S101 - for mypy; the flusher joined
        self._number += 1
        args: list[Any] = [self.membership.member_id, self._number]
        for operation in self._under_way:
            args += operation.args
        try:
            reply = await self._run_until_answered(self._batch, self._key_list, args)
        except NotAMemberError:
            self._requeue_lost()
            await self._rejoin()
            return
        except CoordinatorError as error:
            self._finish(error)
            return
        now_us, wake_us, generation, results, notices = json.loads(reply)
        under_way, self._under_way = self._under_way, []
        for operation, result in zip(under_way, results, strict=True):
            self._tell(operation, result)
        if notices:
            self._listener.on_notices(generation, notices)
        self._listener.on_next_wake((wake_us - now_us) / 1e6 if wake_us else None)

    def _tell(self, operation: Operation, result: Result) -> None:
        if not operation.given_up:
            if result[0] == "error":
                operation.done(CoordinatorError(f"{result[1]}: {result[2]}"))
            else:
                operation.done(result)
        elif operation.late is not None:
            operation.late(result)

    def _finish(self, error: CoordinatorError) -> None:
        under_way, self._under_way = self._under_way, []
        for operation in under_way:
            if not operation.given_up:
                operation.done(error)

    async def _run_until_answered(
        self, script_: Script, keys: Sequence[str], args: Sequence[Any]
    ) -> bytes:
        pause = 0.0
        while True:
            try:
                reply = await self._link.run(script_, keys, args)
            except LinkDownError as error:
                self._note_unavailable(error)
                pause = min(1.0, max(0.02, pause * 2))
                await asyncio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311
            else:
                self._note_available()
                return reply

    # -- membership

    async def _rejoin(self) -> None:
        """Join under a name that was never used, after telling what the last one lost."""
        self._expired_by_heartbeat = False
        lost, self.membership = self.membership, None
        if lost is not None:
            self._server.heartbeat.remove(lost)
            await self._server.subscriber.unsubscribe(self.keys.wake_channel(lost.member_id))
            log.warning("membership_lost", shard=self.keys.tag, member_id=lost.member_id)
            self._listener.on_lost(lost)
        while self.membership is None:
            try:
                await self._join()
            except CoordinatorError as error:
                self._give_up(error, self._queue)
                self._queue.clear()  # without a membership nothing is left to free
                return
            except (LinkDownError, RedisError, OSError) as error:
                self._note_unavailable(error)
                await asyncio.sleep(0.05 + random.random() / 10)  # noqa: S311
        self._note_available()

    async def _join(self) -> None:
        member_id = self._server.new_member_id()
        ttl = self._server.settings.ttl_seconds
        await self._server.subscriber.subscribe(self.keys.wake_channel(member_id), self._on_message)
        try:
            membership = await self._enter(member_id, ttl)
        except BaseException:
            await self._server.subscriber.unsubscribe(self.keys.wake_channel(member_id))
            raise
        self._number = 0
        self.membership = membership
        self._server.heartbeat.add(membership)
        first = self._listener.on_joined(membership)
        for operation in first:
            operation.since = self._loop.time()
        self._queue.extendleft(reversed(first))

    async def _enter(self, member_id: str, ttl: float) -> Membership:
        run_id = await self._server.run_id()
        joined_at = boot_seconds()
        join_args = (
            member_id,
            round(ttl * 1e6),
            SCHEMA_VERSION,
            run_id,
            secrets.token_hex(6),
            KEEP_UNUSED_SHARD_MS,
        )
        reply = await self._link.run(script("member/join"), member_keys(self.keys), join_args)
        await self._server.list_shard(self.keys)
        _now_us, generation, _members = json.loads(reply)
        return Membership(
            member_id=member_id,
            generation=generation,
            keys=self.keys,
            ttl_seconds=ttl,
            acknowledged_at=joined_at,
            on_expired=self._on_expired,
        )

    def _requeue_lost(self) -> None:
        """Sort a batch that met the end of the membership: what frees has nothing left to free."""
        under_way, self._under_way = self._under_way, []
        again = []
        for operation in under_way:
            if operation.frees:
                if not operation.given_up:
                    operation.done(["stale_lease"])
            elif not operation.given_up:
                again.append(operation)
        self._queue.extendleft(reversed(again))

    def _on_expired(self, membership: Membership) -> None:
        if self.membership is membership:
            self._expired_by_heartbeat = True
            self._wanted.set()

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
                f"{self._server.address} did not answer within {timeout:g} s; is it running and"
                " reachable? Forebay goes on trying to reach it."
            )
            self._give_up(error, overdue)
            # A reply that is this late may never come: the repeat goes over a new connection.
            self._dropping = self._loop.create_task(self._link.drop())
        ages = [now - op.since for op in waiting if not op.given_up]
        self._overdue = None
        if ages:
            self._overdue = self._loop.call_later(timeout - max(ages), self._check_overdue)

    def _give_up(self, error: CoordinatorError, operations: Sequence[Operation]) -> None:
        for operation in list(operations):
            if operation.given_up:
                continue
            operation.given_up = True
            operation.done(error)
            if not operation.frees and operation in self._queue:
                self._queue.remove(operation)

    def _note_unavailable(self, error: Exception) -> None:
        if not self._unavailable:
            self._unavailable = True
            log.warning(
                "coordinator_unavailable",
                server=str(self._server.address),
                shard=self.keys.tag,
                error=str(error)[:200],
            )

    def _note_available(self) -> None:
        if self._unavailable:
            self._unavailable = False
            log.info("coordinator_available", server=str(self._server.address), shard=self.keys.tag)
