"""Becoming a member of a shard (spec 06, *Members*)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Final, Protocol

from forebay.contracts.settings import MemberSettings
from forebay.coordinator.keys import KEEP_UNUSED_SHARD_MS, SCHEMA_VERSION, ShardKeys
from forebay.coordinator.scripts.composing import Script, script
from forebay.coordinator.server.address import ServerAddress
from forebay.coordinator.server.availability import Availability
from forebay.coordinator.server.link import Call, ScriptLink
from forebay.coordinator.server.wakeups import Subscriber
from forebay.coordinator.shard.membership import Heartbeat, Membership, boot_seconds, member_keys

JOIN: Final = script("member/join")
MEMBER_SCRIPTS: Final = (JOIN, script("member/heartbeat"))
"""What a link must bring to a server before anybody can be a member there for long."""


class Server(Protocol):
    """What a channel needs of the process's connection to a server."""

    address: ServerAddress
    settings: MemberSettings
    availability: Availability
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

    def new_link(self, *scripts: Script) -> ScriptLink:
        """Return a connection of its own that runs these scripts."""
        ...


async def join(
    server: Server,
    link: ScriptLink,
    keys: ShardKeys,
    *,
    on_message: Callable[[bytes], None],
    on_resumed: Callable[[], None],
    on_expired: Callable[[Membership], None],
) -> Membership:
    """Make this process a member of a shard under a new name; it listens before it joins.

    Args:
        server: the process's connection.
        link: an open connection, on which the batches of this membership will travel.
        keys: the shard.
        on_message: told what is published to the member.
        on_resumed: told when messages may have been lost.
        on_expired: told once, on this loop, when the membership is over.

    Raises:
        LinkDownError, RedisError, OSError: the server could not be reached; on the server a member
            may have been left that nobody renews.
        CoordinatorError: the shard refused, such as one of another schema version.
    """
    member_id = server.new_member_id()
    channel = keys.wake_channel(member_id)
    try:
        await server.subscriber.subscribe(channel, on_message, on_resumed)
        joined_at = boot_seconds()
        arguments = (
            member_id,
            round(server.settings.ttl_seconds * 1e6),
            SCHEMA_VERSION,
            await server.run_id(),
            secrets.token_hex(6),
            KEEP_UNUSED_SHARD_MS,
        )
        call = Call(script=JOIN, keys=member_keys(keys), arguments=arguments)
        reply = await link.run(call)
        await server.list_shard(keys)
    except BaseException:
        server.subscriber.unsubscribe(channel)
        raise
    _now_us, generation, _members = json.loads(reply)
    return Membership(
        member_id=member_id,
        generation=generation,
        keys=keys,
        ttl_seconds=server.settings.ttl_seconds,
        acknowledged_at=joined_at,
        on_expired=on_expired,
    )
