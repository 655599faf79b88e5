"""A member's connection to a shard, repaired until it is open and joined (design 06, *Members*)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError

from forebay.contracts.errors import CoordinatorError, CoordinatorUnavailable, ForebayError
from forebay.coordinator.keys import ShardKeys
from forebay.coordinator.scripts.composing import Script
from forebay.coordinator.server.failover import SILENT_SECONDS
from forebay.coordinator.server.link import Link, call_once
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.server.refusals import NotAMemberError
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard.backlog import Pending
from forebay.coordinator.shard.batches import Batches
from forebay.coordinator.shard.join_call import MEMBER_SCRIPTS
from forebay.coordinator.shard.joining import CLOSED, Memberships
from forebay.coordinator.shard.operation import Leaves, Listener, Reply
from forebay.coordinator.shard.state import Closed, Leaving, Member
from forebay.coordinator.supervision import Guard

LAST_CALL: Final = 2**50
"""Batch number of a leave that is sent after a membership ended: above all of its calls."""


class MemberLink:
    """The connection of a shard's member, with its membership.

    A repair opens the connection and joins where this process is no member. It sends no call.

    Args:
        server: the process's connection to the server.
        keys: the shard.
        batch: the shard's batch script.
        leave: the operation that leaves the shard.
        batches: the operations that are sent over this connection.
        listener: called at each membership's beginning and end.
        guard: logs what a repair, a timer or the listener raises.
        on_reply: called with each reply; an error reply comes as redis-py's exception.
        on_repaired: called when a repair has ended, well or not.
        on_expired: called when a membership has ended.

    Attributes:
        link: the connection.
        memberships: the memberships.
        may_move: whether another server may come to have the shard: a new primary, a new master.
    """

    def __init__(
        self,
        server: ServerConnection,
        keys: ShardKeys,
        batch: Script,
        leave: Leaves,
        batches: Batches,
        listener: Listener,
        guard: Guard,
        *,
        on_reply: Callable[[Any], None],
        on_repaired: Callable[[], None],
        on_expired: Callable[[], None],
    ) -> None:
        self._server = server
        self._keys = keys
        self._batch = batch
        self._leave = leave
        self._batches = batches
        self._guard = guard
        self.link = Link(
            server.place(keys),
            (*MEMBER_SCRIPTS, batch),
            name=f"forebay-{keys.tag}",
            guard=guard,
            state=server.availability.state_of("calls", shard=keys.tag),
            timeout_seconds=server.settings.call_timeout_seconds,
            most_doublings=server.most_doublings,
            on_reply=on_reply,
            on_open=self._on_open,
            on_refused=self._on_refused,
            on_repaired=on_repaired,
            on_lost=self._on_lost,
        )
        self.memberships = Memberships(
            server,
            keys,
            guard,
            listener,
            node=lambda: self.link.node,
            on_begun=batches.begin,
            on_forgotten=batches.put_ahead,
            end_earlier=self._end_earlier,
            on_unknown=self._on_unknown,
            on_expired=on_expired,
            on_moved=self._on_channel_moved,
        )
        self._silence: asyncio.TimerHandle | None = None
        self._on_moved = self.link.place.on_moved
        self.may_move = self._on_moved is not None
        if self._on_moved is not None:
            self._on_moved.add(self._follow)

    async def close(self) -> None:
        """End the membership, fail all callers, and close the connection."""
        membership = self.memberships.close()
        if self._on_moved is not None:
            self._on_moved.discard(self._follow)
        if self._silence is not None:
            self._silence.cancel()
        try:
            await self.link.stop()
        finally:
            if membership is not None:
                self.memberships.part(membership)
            self._batches.give_up(CoordinatorUnavailable(CLOSED))
            self._batches.clear()
            self.link.drop("it was closed")
            self.link.state.forget()

    def watch_silence(self) -> None:
        """Called when a call is sent: should it stay unanswered, ask where the shard is."""
        if self.may_move and self._silence is None:
            self._silence = asyncio.get_running_loop().call_later(
                SILENT_SECONDS, self._guard.call, self._note_silence, self._batches.arguments
            )

    def _note_silence(self, arguments: list[Any]) -> None:
        self._silence = None
        wire = self.link.wire
        if not self._batches.under_way or wire is None:
            return
        if self._batches.arguments is arguments:  # the same call as then
            self.link.place.suspect(wire.peer)
        self.watch_silence()

    def _follow(self) -> None:
        """Connect anew where another server has the shard now, and have it confirm the member."""
        if self.link.leave() and isinstance(self.memberships.state, Member):
            self.link.repair()

    def _on_channel_moved(self) -> None:
        """Connect anew, as the server has this member's channel no more; its answer tells why."""
        self.link.place.note(RedisConnectionError("another node has the channel"))
        self.link.drop("another server has the shard now")
        if isinstance(self.memberships.state, Member):
            self.link.repair()

    def note_generation(self) -> None:
        """Join again and state the leases where the shard has another generation."""
        state, generation = self.memberships.state, self._batches.generation
        if isinstance(state, Member) and generation != state.membership.generation:
            self.link.drop("the shard has another generation")
            self.link.repair()

    def overdue(self) -> CoordinatorUnavailable:
        """Drop the connection, as a call was not answered in time; return the callers' error.

        The call is repeated over a new connection.
        """
        error = CoordinatorUnavailable(
            f"{self._server.address} did not answer within"
            f" {self._server.settings.call_timeout_seconds:g} s{self.link.last_error}; is it"
            " running and reachable? Forebay goes on trying to reach it."
        )
        if self.link.wire is not None:
            self.link.drop("no reply came in time")
            self.link.node.subscriber.drop("the server is silent")
        return error

    def lose_reply(self, operations: list[Pending], error: Exception) -> None:
        """End the membership, as the grants of an unreadable reply are unknown."""
        self._guard.note("reading a reply", error)
        self.link.node.libraries.doubt()
        self.link.drop("a reply could not be read")
        self.memberships.disown()
        unread = CoordinatorError(
            f"the reply of {self._server.address} for {self._keys.tag} cannot be read"
            f" ({type(error).__qualname__}, see the log), expected what this version's scripts"
            " answer; please report this."
        )
        self._batches.give_up(unread, operations)

    async def _on_open(self) -> None:
        if not self._batches.under_way:
            self.memberships.lose()
        await self.memberships.make_member()
        if not self._batches.under_way:
            self.link.state.back()

    async def _end_earlier(self) -> None:
        """Send the leave of a membership that ended on this side only.

        Without it the leases and waiters of that membership would count until its TTL is over, and
        no attempt could be repeated under its id. The join comes before: a shard that lost state
        is being rebuilt by then, and grants no freed slot while its former call may still run.
        """
        number = LAST_CALL
        while (earlier := self.memberships.earlier) is not None:
            arguments = (earlier.member_id, number, *self._leave.encode())
            number += 1
            has_left = True
            with contextlib.suppress(NotAMemberError, ForebayError):  # a join meets the same error
                reply = await call_once(
                    self.link.node,
                    self._batch,
                    self._keys.all,
                    arguments,
                    is_release=True,
                )
                text, *payloads = reply if isinstance(reply, list) else [reply]
                results = json.loads(text)[3]
                has_left = self._leave.decode(Reply(results[0], earlier, payloads))
            if has_left:
                self.memberships.earlier = None

    def _on_unknown(self, membership: Membership) -> None:
        """Ask the shard to confirm a membership, unless a call under way will show it."""
        if not self._batches.under_way:
            self.memberships.doubt(membership)
            self.link.repair()

    def _on_lost(self, error: Exception) -> None:
        # While a repair goes on, what is under way was not sent over this connection.
        is_awaited = self._batches.under_way and not self.link.repairing.is_running
        if is_awaited and not isinstance(self.memberships.state, Closed):
            self.link.fail(error)

    def _on_refused(self, error: ForebayError) -> None:
        """Fail all callers with a refusal of the server that a retry would not change."""
        self._batches.give_up(error)
        if not isinstance(self.memberships.state, Member | Leaving):
            self._batches.clear()  # without a membership there is nothing to release
        if self._batches.has_waiting or self._batches.under_way:
            self.link.failures += 1  # releases are sent again after a pause
        else:
            self.link.state.back()  # it answers, after all
