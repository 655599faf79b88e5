"""The call that asks a shard for a membership, or for the state of one (design 06)."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Final

from forebay.coordinator.keys import KEEP_UNUSED_SHARD_MS, SCHEMA_VERSION, ShardKeys
from forebay.coordinator.process_identity import process_identity
from forebay.coordinator.scripts.composing import script
from forebay.coordinator.server.link import call_once
from forebay.coordinator.server.membership import Membership, boot_seconds, member_keys
from forebay.coordinator.server.node import Node

JOIN: Final = script("member/join")
MEMBER_SCRIPTS: Final = (JOIN, script("member/heartbeat"))
"""The scripts that every member needs, loaded as functions of the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinReply:
    """A shard's answer to a join.

    Attributes:
        asked_at: when it was asked, in ``boot_seconds``.
        generation: the shard's.
        status: ``joined`` for a new member; else ``member``, ``forgotten`` by a shard that lost
            state, or ``expired``.
        reason: why the shard was last rebuilt.
        run_id: of the server.
        batch_number: of this member's last batch that the shard remembers; 0 for none.
    """

    asked_at: float
    generation: str
    status: str
    reason: str
    run_id: str
    batch_number: int


async def call_join(
    node: Node, keys: ShardKeys, member_id: str, membership: Membership | None, ttl_seconds: float
) -> JoinReply:
    """Ask a shard to make a member, or whether a membership still exists.

    Args:
        node: the server that has the shard.
        keys: the shard.
        member_id: of the member.
        membership: the membership to be confirmed; None makes a new member.
        ttl_seconds: how long a heartbeat lasts.

    Raises:
        RedisError, OSError: the server could not be reached.
        CoordinatorError: the shard refused, such as one of another schema version.
    """
    asked_at = boot_seconds()
    arguments = (
        member_id,
        round(ttl_seconds * 1e6),
        SCHEMA_VERSION,
        secrets.token_hex(6),
        "" if membership is None else membership.generation,
        "" if membership is None else membership.run_id,
        KEEP_UNUSED_SHARD_MS,
        process_identity(),
    )
    reply = await call_once(node, JOIN, member_keys(keys), arguments)
    _now_us, generation, _members, status, reason, run_id, batch_number = json.loads(reply)
    return JoinReply(
        asked_at=asked_at,
        generation=generation,
        status=status,
        reason=reason,
        run_id=run_id,
        batch_number=batch_number,
    )
