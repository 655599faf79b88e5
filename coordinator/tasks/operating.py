"""What an operator may do to a task pool (spec 04; 07, *Command line*)."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from typing import Final
from urllib.parse import unquote

from forebay.contracts.checks import listed
from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.pool_settings import PoolState
from forebay.coordinator.tasks.snapshots import PoolReader, PoolSnapshot

LONGEST_LEAVE_SECONDS: Final = 0.3
"""After a change that failed: its caller has waited for a whole deadline already."""


async def set_pool_state(coordinator: Coordinator, pool: str, state: PoolState) -> PoolSnapshot:
    """Pause, drain or open a pool that exists, for all its members; never makes one.

    Returns:
        The pool after the change.

    Raises:
        ConfigurationError: no such state, a wrong name, or nobody made a pool of this name; the
            message lists the pools that there are.
        CoordinatorError: the server could not be used.
    """
    reader = PoolReader(coordinator, pool_shard(pool))
    await require_pool(coordinator, pool)
    controller = TaskAdmissionController(coordinator, pool)
    try:
        await controller.set_state(state)
    except BaseException:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_LEAVE_SECONDS):
                await controller.close()
        raise
    await controller.close()
    return await reader.snapshot()


async def require_pool(coordinator: Coordinator, pool: str) -> None:
    """Return if somebody has made a pool of this name; makes none.

    Raises:
        ConfigurationError: a wrong name, or nobody made it; the message lists the pools that there
            are.
        CoordinatorError: the server could not be used.
    """
    if not (await PoolReader(coordinator, pool_shard(pool)).snapshot()).exists:
        raise await _no_such_pool(coordinator, pool)


async def _no_such_pool(coordinator: Coordinator, pool: str) -> ConfigurationError:
    pools = [unquote(name) for name in await coordinator.live_shards("pool:")]
    there_is = f"expected one of {listed(pools)}" if pools else "and it has no pool at all yet"
    return ConfigurationError(
        f"no pool {pool!r} exists on the server at {coordinator.address}, {there_is}; correct the"
        f" name or the URL, or make the pool by starting a worker for it: forebay worker --pool"
        f" {shlex.quote(pool)}."
    )
