"""A process's session with one shard: its membership, its connection, its batches.

Operations of one turn of the event loop travel in one call; while a call is under way the next ones
gather. Cancelling a caller never cancels a command (design 06).
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any, Final, TypeVar

from redis.exceptions import OutOfMemoryError, ResponseError

from forebay.contracts.errors import CoordinatorFull, CoordinatorUnavailable, ForebayError
from forebay.coordinator.keys import ShardKeys
from forebay.coordinator.logs import Logger
from forebay.coordinator.scripts.composing import Script
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.server.refusals import NotAMemberError, refusal
from forebay.coordinator.server.wire import FunctionCalls
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard.backlog import Pending
from forebay.coordinator.shard.batches import Batches
from forebay.coordinator.shard.doubt import Doubt
from forebay.coordinator.shard.ended_operations import left_by_membership
from forebay.coordinator.shard.joining import CLOSED
from forebay.coordinator.shard.member_link import MemberLink
from forebay.coordinator.shard.operation import (
    Leaves,
    Listener,
    OnOutcome,
    Operation,
    Source,
    ignore_outcome,
    resolve,
)
from forebay.coordinator.shard.state import (
    Closed,
    Doubted,
    Expired,
    Leaving,
    has_ended,
    is_lasting,
    may_be_confirmed,
)
from forebay.coordinator.supervision import Guard

T = TypeVar("T")

WITHDRAWN: Final = "the server is away; it is told once it is back."

log = Logger("forebay.channel")


class Session:
    """Sends a process's operations to one shard as a member.

    Args:
        server: the process's connection to the server.
        keys: the shard.
        batch: the shard's batch script.
        leave: the operation that leaves the shard.
        listener: gets notices, wake-ups and changes of the membership.

    Attributes:
        keys: the shard's.
        time: the shard's time, and the number of its last event.
    """

    def __init__(
        self,
        server: ServerConnection,
        keys: ShardKeys,
        batch: Script,
        leave: Leaves,
        listener: Listener,
    ) -> None:
        self.keys = keys
        self._server = server
        self._batch = batch
        self._leave = leave
        self._calls = FunctionCalls(batch.function, keys.all)
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._guard = Guard(log, shard=keys.tag)
        self._batches = Batches(
            keys.tag,
            listener,
            self._guard,
            timeout_seconds=server.settings.call_timeout_seconds,
            on_overdue=lambda: self._member_link.overdue(),  # noqa: PLW0108 - it is made below
            may_wait=server.settings.on_unavailable == "wait",
        )
        self.time = self._batches.time
        self._member_link = MemberLink(
            server,
            keys,
            batch,
            leave,
            self._batches,
            listener,
            self._guard,
            on_reply=self._on_reply,
            on_repaired=self._on_repaired,
            on_expired=self._flush_soon,
        )
        self._link = self._member_link.link
        self._memberships = self._member_link.memberships
        self._doubt = Doubt(self._link, batch)
        self._flush_due: asyncio.Handle | None = None

    @property
    def membership(self) -> Membership | None:
        """The membership under which batches are sent, or were until it ended."""
        return self._memberships.state.membership

    def is_lasting(self, membership: Membership) -> bool:
        """Whether a membership is the present one and has not ended, as far as known here."""
        return is_lasting(self._memberships.state, membership)

    @property
    def is_closed(self) -> bool:
        """Whether the session was closed; every operation fails then."""
        return isinstance(self._memberships.state, Closed)

    @property
    def away_since(self) -> float | None:
        """Since when the server does not answer, on the monotonic clock; None while it does."""
        return self._link.state.lost_at

    def submit(self, operation: Source[T], on_outcome: OnOutcome[T] = ignore_outcome) -> None:
        """Send an operation with the next call.

        Args:
            operation: what is sent, or what makes it whenever its call is about to leave.
            on_outcome: called once with the outcome, without a turn of the loop between.
        """
        if self.is_closed:
            self._guard.call(on_outcome, CoordinatorUnavailable(CLOSED))
            return
        self._batches.add(operation, on_outcome)
        if not self._batches.under_way:
            self._flush_soon()

    def ask(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Submit an operation and return a future of its reply's value.

        Raises:
            CoordinatorError: the shared state could not be used; of the future.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self.submit(operation, partial(resolve, future, operation))
        return future

    def withdraw(self, kind: type[T]) -> list[T]:
        """Remove and return the operations of a kind that were never sent.

        Their callers get `CoordinatorUnavailable`.
        """
        return self._batches.withdraw(kind, CoordinatorUnavailable(WITHDRAWN))

    def unanswered(self, kind: type[T]) -> list[T]:
        """Return the operations of a class that no reply has answered, given up or not."""
        return self._batches.unanswered(kind)

    async def close(self) -> None:
        """Leave the shard at once, as far as the server can be reached, and close."""
        self._memberships.leave()
        try:
            with contextlib.suppress(ForebayError):
                while isinstance(self._memberships.state, Leaving):
                    if await self.ask(self._leave):
                        break
        finally:
            await self._member_link.close()

    # -- calls

    def _flush_soon(self) -> None:
        """Send at the end of this turn of the loop, so that its operations share a call."""
        if self._flush_due is None:
            self._flush_due = self._loop.call_soon(self._guard.call, self._flush)

    @property
    def _sending_as(self) -> Membership | None:
        """The membership under which a call can be sent now; a repair sends when it ends."""
        is_down = self._link.wire is None or self._link.repairing.is_running
        is_ending = isinstance(self._memberships.state, Expired | Doubted)
        return None if is_down or is_ending else self.membership

    def _flush(self) -> None:
        self._flush_due = None
        if self._batches.under_way:
            return
        if self.is_closed:  # by the server too, where it no longer knows a member that is leaving
            self._batches.give_up(CoordinatorUnavailable(CLOSED))
        elif isinstance(self._memberships.state, Expired):
            if not self._link.repairing.is_running:
                self._memberships.lose()
                self._link.repair()
        elif self._batches.has_waiting:
            if membership := self._sending_as:
                self._send_new(is_any=self._batches.take_next(membership))
            else:
                self._link.repair()

    def _send_new(self, *, is_any: bool) -> None:
        if is_any:
            self._send()
        else:
            self._flush_soon()

    def _send(self) -> None:
        """Send the call that is under way, for the first time or again."""
        wire, membership = self._link.wire, self.membership
        if wire is None or membership is None:
            self._link.repair()
            return
        try:
            names, batches = self._link.names, self._batches
            wire.send(self._calls.pack(names, batches.arguments, is_release=batches.is_release))
        except (TypeError, ValueError) as error:
            self._send_new(is_any=self._batches.retake_sendable(error, membership))
            return
        if self._member_link.may_move:
            self._member_link.watch_silence()

    def _on_reply(self, reply: Any) -> None:
        is_result = isinstance(reply, bytes | list)
        # Releases need no memory: a server that refuses them for want of it is asked again later.
        is_full = isinstance(reply, OutOfMemoryError) and self._batches.is_release
        is_answer = is_result or (not is_full and self._doubt.is_refusal(reply))
        if self._batches.under_way and is_answer:
            self._take_answer(reply)
        else:
            # Another connection may do better, as it may find another primary, or load the scripts.
            self._link.drop_after(reply)

    def _take_answer(self, reply: Any) -> None:
        """Finish the call that is under way with the batch script's reply."""
        if failures := self._link.failures:
            self._link.answered()
        operations = self._batches.end_call()
        try:
            if isinstance(reply, ResponseError):
                self._take_refusal(refusal(self._batch, self.keys.all, reply), operations)
            else:
                if (membership := self._sending_as) and self._batches.has_waiting:
                    # The server works while the results are delivered.
                    self._send_new(is_any=self._batches.take_next(membership))
                self._batches.take_reply(reply, operations, between=self._flush_soon)
                if (known := self.membership) and self._batches.generation != known.generation:
                    self._member_link.note_generation()
        except Exception as error:  # noqa: BLE001 - their callers must not wait for ever
            self._link.failures = failures + 1
            self._member_link.lose_reply(operations, error)
        self._flush_soon()

    def _take_refusal(self, refused: Exception, operations: list[Pending]) -> None:
        match refused:
            case NotAMemberError() if may_be_confirmed(self._memberships.state):
                self._batches.refuse(operations)  # a join tells why; a leave is repeated after it
                self._memberships.doubt(self.membership)
                self._link.repair()
            case NotAMemberError():
                self._batches.waiting.put_first(left_by_membership(operations, self._guard))
                self._memberships.disown()
            case CoordinatorFull():
                # Nothing was carried out. What frees goes on alone, as it is taken in any case.
                self._batches.give_up(refused, [one for one in operations if one.needs_memory])
                others = [one for one in operations if not one.needs_memory]
                if others and self.membership is not None:
                    self._send_new(is_any=self._batches.take(others, self.membership))
            case ForebayError():
                self._batches.give_up(refused, operations)
            case _:
                raise refused

    def _on_repaired(self) -> None:
        refused = self._doubt.resolve()
        if has_ended(self._memberships.state):
            refused_ones = self._batches.end_refused()
            self._batches.waiting.put_first(left_by_membership(refused_ones, self._guard))
            if refused_ones:
                self._memberships.disown()  # of one that is left; an expired one is lost later
        else:
            self._batches.waiting.put_first(self._batches.end_refused())
        if not self._batches.under_way:
            self._flush_soon()
        elif refused is not None:
            self._take_answer(refused)  # the code is this version's, and so is the error
        else:
            # The same number: if the server has acted already, it answers from its memory.
            self._send()
