"""Looking at task pools without changing them (spec 04, 07: *redis-cli*)."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, cast

from redis.exceptions import RedisError

from contracts.snapshots import AuditReport
from coordinator.connections import connection_error
from coordinator.coordinator import Coordinator
from coordinator.keys import pool_shard
from coordinator.requests.snapshots import decode_audit
from coordinator.scripts import script

MAX_ROWS: Final = 100
"""Rows of each list that is shown (``lua/tasks/show.lua``)."""


async def audit_pool(coordinator: Coordinator, name: str) -> AuditReport:
    """Work out a pool's books from its tasks and leases, and compare; writes nothing.

    Raises:
        ConfigurationError: a wrong name.
        CoordinatorError: the server could not be used.
    """
    return decode_audit(await coordinator.read("tasks/audit", pool_shard(name).all, ["json"]))


async def pool_lines(coordinator: Coordinator, name: str) -> list[str]:
    """Return one instant of a pool as aligned lines for people; writes nothing.

    Raises:
        ConfigurationError: a wrong name.
        CoordinatorError: the server could not be used.
    """
    keys = pool_shard(name).all
    text = script("tasks/show").text
    try:
        reply = coordinator.client.eval_ro(text, len(keys), *keys, str(MAX_ROWS))
        lines = await cast("Awaitable[list[bytes]]", reply)
    except (RedisError, OSError) as error:
        raise connection_error(error, coordinator.address, "running tasks/show") from error
    return [line.decode() for line in lines]
