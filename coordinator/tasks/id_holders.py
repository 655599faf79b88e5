"""Finds the pool or program that holds a job's id (design 10, *Keys over a job's life*).

arq's keys are named by the id alone, so an id counts for the whole server: one that is held
elsewhere is refused, with the holder's name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from typing import Final, cast
from urllib.parse import unquote

from redis.exceptions import RedisError

from forebay.contracts.checks import shown
from forebay.coordinator.keys import POOL_KEYS, ShardKeys
from forebay.coordinator.server.refusals import connection_error
from forebay.coordinator.server_connection import ServerConnection

ARQ_QUEUE: Final = "arq:queue"
_POOL: Final = "pool:"
_QUEUE_OF_A_POOL: Final = re.compile(rb"fb:\{pool:([^{}]+)\}:queue")
_UNREADABLE: Final = "a program that left a result which names no pool"
_UNKNOWN: Final = "another program"


async def holder_of(server: ServerConnection, task_id: str) -> str:
    """Return the holder of a job id that is in use outside the pool.

    Returns:
        Words for a sentence: ``pool 'billing'``, or arq's own queue, or another program.

    Raises:
        CoordinatorError: the server could not be used.
    """
    try:
        async with asyncio.timeout(server.settings.call_timeout_seconds):
            return await _marked(server, task_id) or await _queued(server, task_id) or _UNKNOWN
    except (RedisError, OSError) as error:
        raise connection_error(error, server.address, f"looking for {task_id!r}") from error


async def _marked(server: ServerConnection, task_id: str) -> str | None:
    """Return the pool that runs a job or left its result, from arq's keys."""
    for kind in ("in-progress", "result"):
        key = f"arq:{kind}:{task_id}"
        if await server.client.type(key) != b"string":
            continue
        found = await cast("Awaitable[bytes | None]", server.client.get(key)) or b""
        if name := _QUEUE_OF_A_POOL.search(found):
            return _pool(name[1].decode())
        if ARQ_QUEUE.encode() in found:
            return "arq's own queue"
        if kind == "result":
            return _UNREADABLE
    return None


async def _queued(server: ServerConnection, task_id: str) -> str | None:
    """Return the queue in which a job waits."""
    pools = await server.live_shards(_POOL)
    pipe = server.client.pipeline(transaction=False)
    pipe.zscore(ARQ_QUEUE, task_id)
    for name in pools:
        pipe.zscore(ShardKeys(f"{_POOL}{name}", POOL_KEYS)["queue"], task_id)
    in_arqs, *scores = await pipe.execute(raise_on_error=False)
    if isinstance(in_arqs, float):
        return "arq's own queue"
    held_by = (name for name, score in zip(pools, scores, strict=True) if isinstance(score, float))
    return next(map(_pool, held_by), None)


def _pool(name: str) -> str:
    return f"pool {shown(unquote(name))}"
