"""Explains every subject of a name, in all shards of a server (design 07, *Command line*)."""

from __future__ import annotations

from urllib.parse import unquote

from forebay.contracts.explanations import Explanation
from forebay.coordinator.requests import explaining as requests
from forebay.coordinator.requests.snapshots import provider_model_of
from forebay.coordinator.runs.explaining import explain_run
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks import explaining as tasks
from forebay.coordinator.tasks.blocking import PoolFacts

POOL_TAG = "pool:"


async def explain(connection: ServerConnection, name: str) -> list[Explanation]:
    """Return why a task, waiter, lease, group, run, pool or provider/model does not move.

    Each shard is read in one instant by one read-only script; writes nothing.

    Args:
        connection: connection to the server; left open.
        name: as it was given, or as ``forebay snapshot`` and redis-cli show it. Each subject
            that has the name is explained.

    Raises:
        CoordinatorError: the server could not be used.
    """
    found: list[Explanation] = []
    for tag in await connection.shards():
        if tag.startswith(POOL_TAG):
            pool = unquote(tag.removeprefix(POOL_TAG))
            found += in_pool(await tasks.read_facts(connection, pool, name), name)
        elif key := provider_model_of(tag):
            facts = await requests.read_facts(connection, key, name)
            found += requests.explain_in_shard(facts, name)
    return found


def in_pool(facts: PoolFacts, name: str) -> list[Explanation]:
    """Explain each task, run or group of a pool that has a name, or the pool itself; pure."""
    return [*tasks.explain_in_pool(facts, name), *explain_run(facts, name)]
