"""Becoming a member of a shard (design 06, *Members*)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from forebay.contracts.errors import CoordinatorUnavailable
from forebay.coordinator.keys import ShardKeys
from forebay.coordinator.logs import Logger
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.server.node import Node
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard.join_call import JoinReply, call_join
from forebay.coordinator.shard.operation import Listener, Submitted
from forebay.coordinator.shard.state import (
    Closed,
    Doubted,
    Down,
    Expired,
    Joining,
    Leaving,
    Member,
    MembershipState,
)
from forebay.coordinator.supervision import Guard

CLOCK_SLACK_SECONDS: Final = 0.001
"""Timers may fire a clock tick early."""

CLOSED: Final = "the coordinator was closed; connect anew."

log = Logger("forebay.channel")


class Memberships:
    """The memberships of this process in one shard, one after another.

    A member listens before it joins; its heartbeat is kept up while it is one.

    Args:
        server: the process's connection.
        keys: the shard.
        guard: logs what a timer or the listener raises.
        listener: called at each membership's beginning and end.
        node: returns the server to which the connection is open.
        on_begun: called with the operations that come first in a membership.
        on_forgotten: called with the operations that state what this member holds to a shard that
            lost state, and with the number of its last batch that the shard remembers.
        end_earlier: called after a join, to have the shard end the earlier membership.
        on_unknown: called when a heartbeat finds no such member, or the shard has begun anew.
        on_expired: called when a membership has ended, on this loop.
        on_moved: called when another node of the cluster has this member's channel.

    Attributes:
        state: what this process is to the shard.
        earlier: the last membership that ended here, until the shard was asked to end it.
    """

    def __init__(
        self,
        server: ServerConnection,
        keys: ShardKeys,
        guard: Guard,
        listener: Listener,
        *,
        node: Callable[[], Node],
        on_begun: Callable[[Sequence[Submitted]], None],
        on_forgotten: Callable[[Sequence[Submitted], int], None],
        end_earlier: Callable[[], Awaitable[None]],
        on_unknown: Callable[[Membership], None],
        on_expired: Callable[[], None],
        on_moved: Callable[[], None],
    ) -> None:
        self.state: MembershipState = Down()
        self.earlier: Membership | None = None
        self._server = server
        self._keys = keys
        self._guard = guard
        self._listener = listener
        self._on_begun = on_begun
        self._on_forgotten = on_forgotten
        self._end_earlier = end_earlier
        self._on_unknown = on_unknown
        self._on_expired = on_expired
        self._on_moved = on_moved
        self._node = node
        self._home: Node | None = None  # where the present member listens, and its heart beats
        self._loop = asyncio.get_running_loop()
        self._watching: asyncio.TimerHandle | None = None

    async def make_member(self) -> None:
        """Join, or let the shard confirm the present membership.

        Every new connection begins with it: the server may have lost state meanwhile, and a call on
        a shard that is not rebuilt yet might grant what another member holds (docs/adr/0023).

        Raises:
            RedisError, OSError: the server could not be reached; on the server a member may have
                been left that nobody renews.
            CoordinatorError: the shard refused, such as one of another schema version, or it is
                being left.
        """
        match self.state:
            case Down(was_member):
                self.state = Joining(was_member)
                try:
                    self._begin(await self.join())
                finally:
                    if isinstance(self.state, Joining):
                        self.state = Down(was_member)
            case Member(membership) | Doubted(membership) | Leaving(Membership() as membership):
                if not isinstance(self.state, Leaving):
                    self.state = Doubted(membership)
                asked_in = self.state
                await self._follow(membership)
                reply = await self._call_join(membership.member_id, membership)
                if self.state is asked_in:
                    self._apply_reply(membership, reply)
            case Leaving(None) | Closed():
                raise CoordinatorUnavailable(CLOSED)
            case _:
                pass

    async def join(self) -> Membership:
        """Join under a name that was never used."""
        server, keys, node = self._server, self._keys, self._node()
        member_id = server.new_member_id()
        await self._listen(node, member_id)
        try:
            await node.warn_of_risks()
            reply = await self._call_join(member_id, None)
            await self._end_earlier()  # after the join: a shard that lost state grants nothing
            await server.list_shard(keys)
        except BaseException:
            node.subscriber.unsubscribe(keys.wake_channel(member_id))
            raise
        self._home = node
        return Membership(
            member_id=member_id,
            generation=reply.generation,
            keys=keys,
            run_id=reply.run_id,
            ttl_seconds=server.settings.ttl_seconds,
            acknowledged_at=reply.asked_at,
            on_unknown=self._on_unknown,
        )

    async def _call_join(self, member_id: str, membership: Membership | None) -> JoinReply:
        ttl_seconds = self._server.settings.ttl_seconds
        return await call_join(self._node(), self._keys, member_id, membership, ttl_seconds)

    async def _listen(self, node: Node, member_id: str) -> None:
        channel, listener = self._keys.wake_channel(member_id), self._listener
        try:
            await node.subscriber.subscribe(
                channel, self._on_message, listener.on_resumed, self._on_moved
            )
        except BaseException:
            node.subscriber.unsubscribe(channel)
            raise

    async def _follow(self, membership: Membership) -> None:
        """Listen and beat on the server to which the connection is open, where it is another."""
        node, home = self._node(), self._home
        channel = self._keys.wake_channel(membership.member_id)
        if home is None or (home is node and channel in node.subscriber.channels):
            return
        await self._listen(node, membership.member_id)
        if self.state.membership is not membership:  # it ended meanwhile
            node.subscriber.unsubscribe(channel)
            return
        if home is not node:
            self._home = node
            home.heartbeat.remove(membership)
            home.subscriber.unsubscribe(channel)
            node.heartbeat.add(membership)
            await self._server.list_shard(self._keys)

    def _apply_reply(self, membership: Membership, reply: JoinReply) -> None:
        """Keep or end the membership, as the shard's answer says."""
        is_leaving = isinstance(self.state, Leaving)
        if not is_leaving:
            self.state = Member(membership)
        if reply.status == "expired":
            if is_leaving:
                self.state = Leaving(membership, has_ended=True)
            else:
                self.expire(membership)
            return
        membership.acknowledged_at = reply.asked_at
        if reply.status == "forgotten":
            membership.generation, membership.run_id = reply.generation, reply.run_id
            log.warning("generation_changed", shard=self._keys.tag, reason=reply.reason)
            self._on_forgotten(self._listener.on_forgotten(membership), reply.batch_number)

    def doubt(self, membership: Membership | None) -> None:
        """Hold back calls until the shard has confirmed the membership in the next repair."""
        if isinstance(self.state, Member) and self.state.membership is membership:
            self.state = Doubted(self.state.membership)

    def _begin(self, membership: Membership) -> None:
        before = self.state
        try:
            self._at().heartbeat.add(membership)
            self._on_begun(self._listener.on_joined(membership))
        except BaseException:
            self.part(membership)
            raise
        match before:
            case Joining(was_member):
                self.state = Member(membership)
                if was_member:
                    self._log_membership("membership_joined_anew", membership)
            case Leaving():
                self.state = Leaving(membership)
            case _:
                self.part(membership)  # it was closed meanwhile
                return
        self._watch(membership)

    def expire(self, membership: Membership) -> None:
        """End a membership that has expired, as the shard says or by this process's clock."""
        if isinstance(self.state, Member | Doubted) and self.state.membership is membership:
            self.state = Expired(membership)
            self._guard.call(self._listener.on_lost, membership)
            self._on_expired()

    def disown(self) -> None:
        """End a membership that the shard does not know, or whose reply was lost."""
        match self.state:
            case Member(membership) | Doubted(membership):
                self.state = Expired(membership)
            case Leaving(Membership() as membership):
                self.part(membership)
                self.state = Closed()  # it has left, though the reply was lost
            case _:
                pass

    def lose(self) -> None:
        """Leave an expired membership, and report its lost leases."""
        if isinstance(self.state, Expired):
            membership = self.state.membership
            self.state = Down(was_member=True)
            self.earlier = membership
            self.part(membership)
            self._log_membership("membership_lost", membership)
            self._guard.call(self._listener.on_lost, membership)

    def leave(self) -> None:
        """Begin to leave the shard, if this process is a member or is about to be one."""
        match self.state:
            case Member(membership) | Doubted(membership):
                self.state = Leaving(membership)
            case Joining():
                self.state = Leaving(None)
            case _:
                self.lose()

    def close(self) -> Membership | None:
        """Close for good; return the membership that still has to be ended, if there is one."""
        membership, self.state = self.state.membership, Closed()
        return membership

    def part(self, membership: Membership) -> None:
        """Stop renewing a membership and listening for its wake-ups."""
        if self._watching is not None:
            self._watching.cancel()
        home = self._at()
        home.heartbeat.remove(membership)
        home.subscriber.unsubscribe(self._keys.wake_channel(membership.member_id))

    def _watch(self, membership: Membership) -> None:
        """End the membership by timer once no heartbeat was acknowledged for a TTL.

        The shard may not have ended the membership yet, but will: nobody renews it any more.
        """
        if membership.is_held:
            pause = membership.remaining_seconds + CLOCK_SLACK_SECONDS
            self._watching = self._loop.call_later(pause, self._guard.call, self._watch, membership)
        else:
            self._at().heartbeat.remove(membership)
            self.expire(membership)

    def _on_message(self, payload: bytes) -> None:
        generation, notices = json.loads(payload)
        if notices:
            self._listener.on_notices(generation, notices)
        elif self.state.membership is not None:  # the shard has taken this generation
            self._on_unknown(self.state.membership)

    def _at(self) -> Node:
        return self._node() if self._home is None else self._home

    def _log_membership(self, event: str, membership: Membership) -> None:
        log.warning(event, shard=self._keys.tag, member_id=membership.member_id)
