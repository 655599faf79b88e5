"""Becoming a member of a shard (spec 06, *Members*)."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from typing import Any, Final, Protocol

from forebay.contracts.settings import MemberSettings
from forebay.coordinator.keys import KEEP_UNUSED_SHARD_MS, SCHEMA_VERSION, ShardKeys
from forebay.coordinator.scripts.composing import script
from forebay.coordinator.server.address import ServerAddress
from forebay.coordinator.server.availability import Availability
from forebay.coordinator.server.link import call_once
from forebay.coordinator.server.wakeups import Subscriber
from forebay.coordinator.shard.heartbeat import Heartbeat
from forebay.coordinator.shard.membership import Membership, boot_seconds, member_keys
from forebay.coordinator.supervision import Guard

CLOCK_SLACK_SECONDS: Final = 0.001
"""Timers may fire a clock tick early."""

JOIN: Final = script("member/join")
MEMBER_SCRIPTS: Final = (JOIN, script("member/heartbeat"))
"""What a server must have as functions before anybody can be a member there for long."""


class Server(Protocol):
    """The process's connection to a server, as a session uses it.

    Attributes:
        address: the server, named in errors.
        settings: TTL and deadlines.
        availability: which connections are lost.
        patient: a client whose calls the caller bounds.
        heartbeat: keeps memberships alive.
        subscriber: on which members are woken.
    """

    address: ServerAddress
    settings: MemberSettings
    availability: Availability
    patient: Any
    heartbeat: Heartbeat
    subscriber: Subscriber

    def new_member_id(self) -> str:
        """Return a name that was never used and will never be used again."""
        ...

    async def run_id(self) -> str:
        """Return the server's run id."""
        ...

    async def is_registered(self, keys: ShardKeys) -> bool:
        """Return whether any member has registered a request shard's provider/model."""
        ...

    async def list_shard(self, keys: ShardKeys) -> None:
        """Put the shard into the index of shards."""
        ...


class Joiner:
    """Begins and ends the memberships of this process in one shard.

    A member listens before it joins; its heartbeat is kept up while it is one.

    Args:
        server: the process's connection.
        keys: the shard.
        guard: logs what a timer raises.
        on_message: told what is published to the member.
        on_resumed: told when messages may have been lost.
        on_expired: told, on this loop, when a membership has ended.
    """

    def __init__(
        self,
        server: Server,
        keys: ShardKeys,
        guard: Guard,
        *,
        on_message: Callable[[bytes], None],
        on_resumed: Callable[[], None],
        on_expired: Callable[[Membership], None],
    ) -> None:
        self._server = server
        self._keys = keys
        self._guard = guard
        self._on_message = on_message
        self._on_resumed = on_resumed
        self._on_expired = on_expired
        self._loop = asyncio.get_running_loop()
        self._watching: asyncio.TimerHandle | None = None

    async def join(self) -> Membership:
        """Become a member under a name that was never used.

        Raises:
            RedisError, OSError: the server could not be reached; on the server a member may have
                been left that nobody renews.
            CoordinatorError: the shard refused, such as one of another schema version.
        """
        server, keys = self._server, self._keys
        member_id = server.new_member_id()
        channel = keys.wake_channel(member_id)
        try:
            await server.subscriber.subscribe(channel, self._on_message, self._on_resumed)
            joined_at = boot_seconds()
            arguments = (
                member_id,
                round(server.settings.ttl_seconds * 1e6),
                SCHEMA_VERSION,
                await server.run_id(),
                secrets.token_hex(6),
                KEEP_UNUSED_SHARD_MS,
            )
            reply = await call_once(server.patient, JOIN, member_keys(keys), arguments)
            await server.list_shard(keys)
            _now_us, generation, _members = json.loads(reply)
        except BaseException:
            server.subscriber.unsubscribe(channel)
            raise
        membership = Membership(
            member_id=member_id,
            generation=generation,
            keys=keys,
            ttl_seconds=server.settings.ttl_seconds,
            acknowledged_at=joined_at,
            on_expired=self._on_expired,
        )
        server.heartbeat.add(membership)
        self._watch(membership)
        return membership

    def part(self, membership: Membership) -> None:
        """Let a membership be renewed and woken no more."""
        if self._watching is not None:
            self._watching.cancel()
        self._server.heartbeat.remove(membership)
        self._server.subscriber.unsubscribe(self._keys.wake_channel(membership.member_id))

    def _watch(self, membership: Membership) -> None:
        """Notice on time that no heartbeat was acknowledged for a TTL, however silent the server.

        The shard may not have ended the membership yet, but will: nobody renews it any more.
        """
        if membership.is_held:
            pause = membership.remaining_seconds + CLOCK_SLACK_SECONDS
            self._watching = self._loop.call_later(pause, self._guard.call, self._watch, membership)
        else:
            self._server.heartbeat.remove(membership)
            self._on_expired(membership)
