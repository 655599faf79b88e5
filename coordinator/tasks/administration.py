"""Changes that an operator makes to a task pool (design 04; design 07, *Command line*)."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import unquote

from forebay.contracts.checks import listed
from forebay.contracts.errors import ConfigurationError, ShardDamaged
from forebay.coordinator.keys import POOL_TAG, pool_shard
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard.administration import NeverUsedError, Rebuilding, begin_rebuild
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.pool_settings import PoolState
from forebay.coordinator.tasks.snapshots import PoolReader, PoolSnapshot

LONGEST_LEAVE_SECONDS: Final = 0.3
"""Longest wait for leaving the pool after a failed change."""


async def set_pool_state(connection: ServerConnection, pool: str, state: PoolState) -> PoolSnapshot:
    """Pause, drain or open a pool that exists, for all its members; never makes one.

    Returns:
        The pool after the change.

    Raises:
        ConfigurationError: no such state, a wrong name, or nobody made a pool of this name; the
            message lists the pools that there are.
        CoordinatorError: the server could not be used.
    """
    await require_pool(connection, pool)
    async with _member_of(connection, pool) as controller:
        await controller.set_state(state)
    return await PoolReader(connection, pool_shard(pool)).snapshot()


async def rebuild_pool(connection: ServerConnection, pool: str) -> Rebuilding:
    """Begin a rebuild of a pool, from what is left of it and what its members state (ADR 0023).

    The pool takes a new generation and admits nothing meanwhile; tasks that run go on, and members
    that run state their leases. Done where a pool is damaged and no member runs that would find it,
    or where an audit differs.

    Raises:
        ConfigurationError: a wrong name, or nobody made a pool of this name.
        CoordinatorError: the server could not be used, or another version wrote the pool.
    """
    try:
        begun = await begin_rebuild(connection, pool_shard(pool))
    except NeverUsedError as error:
        raise await _no_such_pool(connection, pool) from error
    async with _member_of(connection, pool) as controller:
        await controller.ask("sweep")  # any call does the rest
    return begun


@contextlib.asynccontextmanager
async def _member_of(
    connection: ServerConnection, pool: str
) -> AsyncIterator[TaskAdmissionController]:
    """Join a pool as a member for the length of one change."""
    controller = TaskAdmissionController(connection, pool)
    try:
        yield controller
    except BaseException:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_LEAVE_SECONDS):
                await controller.close()
        raise
    await controller.close()


async def set_pool_limit(
    connection: ServerConnection, pool: str, resource: str, limit: int | None, *, holder: str
) -> int | None:
    """Set a holder's claim of a resource's limit in a pool that exists; None takes it back.

    Returns:
        The limit now in force, the smallest claim of all holders; None where nobody claims one.

    Raises:
        ConfigurationError: a wrong name or limit, or nobody made a pool of this name.
        CoordinatorError: the server could not be used.
    """
    await require_pool(connection, pool)
    controller = TaskAdmissionController(connection, pool)
    try:
        if limit is None:
            in_force = await controller.drop_limit(resource, holder=holder)
            return in_force or (await controller.view()).limits.get(resource)
        return await controller.set_limit(resource, limit, holder=holder)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(connection.settings.call_timeout_seconds):
                await controller.close()


async def evict_task_lease(connection: ServerConnection, pool: str, lease_id: str) -> bool:
    """End a lease by its encoded id; its task goes back to its group, and its holder gets a notice.

    Returns:
        Whether the lease was there.

    Raises:
        ConfigurationError: nobody made the pool, or the pool is being rebuilt.
        CoordinatorError: the server could not be used.
    """
    await require_pool(connection, pool)
    async with _member_of(connection, pool) as controller:
        (word, *_) = await controller.ask("evict", lease_id)
    if word == "recovering":
        raise ConfigurationError(
            f"pool {pool} is being rebuilt from what its members state, so no lease can be ended"
            f" now; ask again once that is over (forebay explain {pool} says when)."
        )
    return bool(word == "evicted")


async def require_pool(connection: ServerConnection, pool: str) -> None:
    """Return if a pool of this name exists, damaged or not; raises otherwise.

    Raises:
        ConfigurationError: a wrong name, or nobody made it; the message lists the pools that there
            are.
        CoordinatorError: the server could not be used.
    """
    with contextlib.suppress(ShardDamaged):  # the pool is rebuilt by the next call of a member
        keys = pool_shard(pool)
        if not (
            (await PoolReader(connection, keys).snapshot()).exists
            or await connection.is_listened_to(keys)
        ):
            raise await _no_such_pool(connection, pool)


async def _no_such_pool(connection: ServerConnection, pool: str) -> ConfigurationError:
    pools = [unquote(name) for name in await connection.live_shards(POOL_TAG)]
    there_is = f"expected one of {listed(pools)}" if pools else "and it has no pool at all yet"
    return ConfigurationError(
        f"no pool {pool!r} exists on the server at {connection.address}, {there_is}; correct the"
        f" name or the URL, or make the pool by starting a worker for it: forebay worker --pool"
        f" {shlex.quote(pool)}."
    )
