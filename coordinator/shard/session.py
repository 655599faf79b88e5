"""A process's session with one shard: its membership, its connection, its batches (spec 06).

Operations of one turn of the event loop travel in one call; while a call is under way the next ones
gather. Cancelling a caller never cancels a command.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from redis.exceptions import ResponseError

from forebay.contracts.errors import (
    CoordinatorError,
    CoordinatorFull,
    CoordinatorUnavailable,
    ForebayError,
)
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.keys import ShardKeys
from forebay.coordinator.logs import Logger
from forebay.coordinator.scripts.composing import Script
from forebay.coordinator.server.link import Link
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.server.refusals import (
    NotAMemberError,
    is_passing,
    may_be_of_other_code,
    refusal,
)
from forebay.coordinator.shard.batches import Batches, Pending, ignored
from forebay.coordinator.shard.joining import CLOSED, MEMBER_SCRIPTS, Memberships
from forebay.coordinator.shard.operation import Leaves, Listener, Operation, Told, resolve
from forebay.coordinator.shard.state import Closed, Expired, Leaving, Member
from forebay.coordinator.supervision import Guard

T = TypeVar("T")

log = Logger("forebay.channel")


class Session:
    """The one way of this process to change a shard.

    Args:
        server: the process's connection to the server.
        keys: the shard.
        batch: the shard's batch script.
        listener: told of notices, wake-ups and membership.

    Attributes:
        keys: the shard's.
    """

    def __init__(
        self, server: Coordinator, keys: ShardKeys, batch: Script, listener: Listener
    ) -> None:
        self.keys = keys
        self._server = server
        self._batch = batch
        self._function = batch.function  # once: it is put together each time
        self._key_list = keys.all
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._guard = Guard(log, shard=keys.tag)
        self._batches = Batches(
            keys.tag,
            listener,
            self._guard,
            timeout_seconds=server.settings.call_timeout_seconds,
            on_overdue=self._on_overdue,
        )
        self._link = Link(
            server.patient,
            server.libraries,
            (*MEMBER_SCRIPTS, batch),
            name=f"forebay-{keys.tag}",
            guard=self._guard,
            state=server.availability.connection("calls", shard=keys.tag),
            timeout_seconds=server.settings.call_timeout_seconds,
            on_reply=self._on_reply,
            on_open=self._on_open,
            on_refused=self._on_refused,
            on_repaired=self._on_repaired,
            on_lost=self._on_lost,
        )
        self._flush_due: asyncio.Handle | None = None
        self._doubted: tuple[ResponseError, str] | None = None  # an error, and of which function
        self._memberships = Memberships(
            server,
            keys,
            self._guard,
            listener,
            on_begun=self._batches.begin,
            on_expired=self._flush_soon,
        )

    @property
    def membership(self) -> Membership | None:
        """The membership under which batches are sent, or were until it ended."""
        return self._memberships.state.membership

    @property
    def is_closed(self) -> bool:
        """Whether it was closed: nothing can be asked any more."""
        return isinstance(self._memberships.state, Closed)

    @property
    def server_now_us(self) -> int | None:
        """About the shard's time, as of its last reply; None before the first."""
        ahead_us = self._batches.clock_ahead_us
        return None if ahead_us is None else round(self._loop.time() * 1e6 + ahead_us)

    def submit(
        self,
        operation: Operation[T] | Callable[[], Operation[T]],
        told: Told[T] = ignored,
    ) -> None:
        """Send an operation with the next call.

        Args:
            operation: what is sent, or what makes it whenever its call is about to leave.
            told: told once what becomes of it, without a turn of the loop between.
        """
        pending = Pending(operation, told)
        if self.is_closed:
            self._guard.call(told, CoordinatorUnavailable(CLOSED))
            return
        self._batches.add(pending)
        if not self._batches.under_way:
            self._flush_soon()

    def ask(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Submit an operation and return what its reply says, as a future.

        Raises:
            CoordinatorError: the shared state could not be used; of the future.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self.submit(operation, partial(resolve, future, operation))
        return future

    async def close(self, leave: Leaves) -> None:
        """Leave the shard at once, as far as the server can be reached, and close."""
        self._memberships.leave()
        try:
            with contextlib.suppress(ForebayError):
                while isinstance(self._memberships.state, Leaving):
                    if await self.ask(leave):
                        break
        finally:
            left = self._memberships.close()
            try:
                await self._link.stop()
            finally:
                self._end(left)

    def _end(self, membership: Membership | None) -> None:
        if membership is not None:
            self._memberships.part(membership)
        self._batches.give_up_all(CoordinatorUnavailable(CLOSED))
        self._batches.clear()
        self._link.drop("it was closed")
        self._link.state.forget()

    # -- calls

    def _flush_soon(self) -> None:
        """Send at the end of this turn of the loop: what it brings up travels together."""
        if self._flush_due is None:
            self._flush_due = self._loop.call_soon(self._guard.call, self._flush)

    @property
    def _sending_as(self) -> Membership | None:
        """The membership under which a call can be sent now."""
        is_down = self._link.wire is None or isinstance(self._memberships.state, Expired)
        return None if is_down else self.membership

    def _flush(self) -> None:
        self._flush_due = None
        if self._batches.under_way:
            return
        if self.is_closed:  # by the server too, where it no longer knows a member that is leaving
            self._batches.give_up_all(CoordinatorUnavailable(CLOSED))
        elif isinstance(self._memberships.state, Expired):
            if not self._link.is_repairing:
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
        function = self._server.libraries.names.get(self._function, self._function)
        if self._batches.is_freeing:
            function = f"{function}_freeing"
        try:
            wire.write(
                "FCALL", function, len(self._key_list), *self._key_list, *self._batches.arguments
            )
        except (TypeError, ValueError) as error:
            self._send_new(is_any=self._batches.retake_sendable(error, membership))

    def _on_reply(self, reply: Any) -> None:
        if not self._batches.under_way or not self._is_answer(reply):
            # Another connection may do better, as it may find another primary, or load the scripts.
            self._link.drop(f"{reply!r:.200}")
            return
        self._take_answer(reply)

    def _is_answer(self, reply: Any) -> bool:
        """Whether a reply is the script's; where other code may have made it, note the doubt."""
        if isinstance(reply, bytes | list):
            return True
        is_error = isinstance(reply, ResponseError)
        if is_error and not may_be_of_other_code(reply):
            return not is_passing(reply)
        self._server.libraries.doubt()
        if is_error and not is_passing(reply):
            self._doubted = reply, self._server.libraries.function(self._batch)
        return False

    def _take_answer(self, reply: Any) -> None:
        """Settle the call that is under way by what the batch script answered."""
        if failures := self._link.failures:
            self._link.answered()
        operations = self._batches.end_call()
        try:
            if isinstance(reply, ResponseError):
                self._take_refusal(refusal(self._batch, self._key_list, reply), operations)
            else:
                if (membership := self._sending_as) and self._batches.has_waiting:
                    # The server works while this reply is told.
                    self._send_new(is_any=self._batches.take_next(membership))
                self._batches.take_reply(reply, operations, between=self._flush_soon)
        except Exception as error:  # noqa: BLE001 - their callers must not wait for ever
            self._link.failures = failures + 1
            self._lose_reply(operations, error)
        self._flush_soon()

    def _take_refusal(self, refused: Exception, operations: list[Pending[Any]]) -> None:
        match refused:
            case NotAMemberError():
                self._batches.requeue(operations)
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

    def _lose_reply(self, operations: list[Pending[Any]], error: Exception) -> None:
        """End the membership, as nobody knows what a reply gave that cannot be read."""
        self._guard.note("reading a reply", error)
        self._server.libraries.doubt()
        self._link.drop("a reply could not be read")
        self._memberships.disown()
        unread = CoordinatorError(
            f"the reply of {self._server.address} for {self.keys.tag} cannot be read"
            f" ({type(error).__qualname__}, see the log), expected what this version's scripts"
            " answer; please report this."
        )
        self._batches.give_up(unread, operations)

    # -- the connection and the membership

    async def _on_open(self) -> None:
        if not self._batches.under_way:
            self._memberships.lose()
        await self._memberships.make_member()
        if not self._batches.under_way:
            self._link.state.back()

    def _on_lost(self, error: Exception) -> None:
        # While a repair goes on, what is under way was not sent over this connection.
        if self._batches.under_way and not self._link.is_repairing and not self.is_closed:
            self._link.fail(error)

    def _on_repaired(self) -> None:
        doubted, self._doubted = self._doubted, None
        if not self._batches.under_way:
            self._flush_soon()
        elif doubted and doubted[1] == self._server.libraries.function(self._batch):
            self._take_answer(doubted[0])  # the code is this version's, and so is the error
        else:
            # The same number: if the server has acted already, it answers from its memory.
            self._send()

    def _on_refused(self, error: ForebayError) -> None:
        """Tell callers what the server refuses them; it would refuse that again."""
        self._batches.give_up_all(error)
        if not isinstance(self._memberships.state, Member | Leaving):
            self._batches.clear()  # without a membership nothing is left to free
        if self._batches.has_waiting or self._batches.under_way:
            self._link.failures += 1  # what frees is tried again, after a pause
        else:
            self._link.state.back()  # it answers, after all

    def _on_overdue(self) -> CoordinatorUnavailable:
        """Repeat over a new connection what was not answered in time."""
        error = CoordinatorUnavailable(
            f"{self._server.address} did not answer within"
            f" {self._server.settings.call_timeout_seconds:g} s{self._link.last_error}; is it"
            " running and reachable? Forebay goes on trying to reach it."
        )
        self._link.drop("no reply came in time")
        return error
