"""Refusals by live workers of a run that an earlier worker had accepted."""

from __future__ import annotations

import json

from redis.exceptions import RedisError

from forebay.coordinator.keys import encode, pool_shard
from forebay.coordinator.server.refusals import connection_error
from forebay.coordinator.server_connection import ServerConnection


async def refusals_of(connection: ServerConnection, pool: str, run_id: str) -> list[str]:
    """Return each live member's reason for refusing a run; writes nothing.

    Raises:
        CoordinatorError: the server could not be used.
    """
    keys, client = pool_shard(pool), connection.client
    try:
        text = await client.hget(keys["progress"], f"{encode(run_id)}\0refusals")
        reasons: dict[str, str] = json.loads(text) if text else {}
        found = await client.zmscore(keys["members"], list(reasons)) if reasons else []
    except (RedisError, OSError) as error:
        raise connection_error(error, connection.address, "reading refusals") from error
    return [
        reason for reason, score in zip(reasons.values(), found, strict=True) if score is not None
    ]
