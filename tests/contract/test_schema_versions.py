"""A shard that another version wrote is refused in words, by whoever meets it.

Rules: design 06, *Where it runs*.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from importlib.resources import files

import pytest

from forebay.contracts.errors import SchemaMismatch
from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.keys import SCHEMA_VERSION, ShardKeys, pool_shard, request_shard
from forebay.coordinator.requests.administration import reset_window
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.administration import set_pool_state
from forebay.coordinator.tasks.snapshots import audit_pool, pool_lines
from tests.contract.chat_domain import CHAT, MODEL
from tests.support_tasks import joined, task

POOL = "tasks"
OTHERS = ("3", "5")


async def register(connection: ServerConnection, model: ProviderModelKey = MODEL) -> None:
    controller = AdaptiveRequestAdmissionController(connection)
    try:
        await controller.register(model, "alias", max_parallel_requests=1)
    finally:
        await controller.close()


async def submit(connection: ServerConnection) -> None:
    async with joined(connection, POOL) as tasks:
        await tasks.queue.submit(task("t"))


def pressure(connection: ServerConnection) -> RequestPressureSnapshotProvider:
    return RequestPressureSnapshotProvider(connection)


OF_REQUESTS: dict[str, Callable[[ServerConnection], Awaitable[object]]] = {
    "joining": register,
    "snapshot": lambda connection: pressure(connection).snapshot(CHAT),
    "all snapshots": lambda connection: pressure(connection).global_snapshots(),
    "audit": lambda connection: pressure(connection).audit(MODEL),
    "reset": lambda connection: reset_window(connection, CHAT),
}
OF_POOLS: dict[str, Callable[[ServerConnection], Awaitable[object]]] = {
    "joining": submit,
    "pause": lambda connection: set_pool_state(connection, POOL, "paused"),
    "audit": lambda connection: audit_pool(connection, POOL),
    "show": lambda connection: pool_lines(connection, POOL),
}


def test_scripts_that_look_speak_the_version_that_members_speak() -> None:
    fragment = (files("forebay.lua") / "lib/shard/schema.lua").read_text()
    assert f"spoken = '{SCHEMA_VERSION}'" in fragment


async def refused(
    connection: ServerConnection,
    keys: ShardKeys,
    version: str,
    use: Callable[[ServerConnection], Awaitable[object]],
) -> None:
    await connection.client.hset(keys["meta"], "schema", version)
    before = await connection.client.hgetall(keys["meta"])
    shard = keys["meta"].removesuffix(":meta")
    with pytest.raises(SchemaMismatch, match=f"has schema version {version},") as error:
        await use(connection)
    assert f"the shard {shard} has" in str(error.value)
    assert f"({shard}:*)" in str(error.value)
    assert await connection.client.hgetall(keys["meta"]) == before


@pytest.mark.parametrize("version", OTHERS)
@pytest.mark.parametrize("use", OF_REQUESTS.values(), ids=OF_REQUESTS)
async def test_request_shard_of_another_version_is_refused_and_left_as_it_is(
    connection: ServerConnection, version: str, use: Callable[[ServerConnection], Awaitable[object]]
) -> None:
    await register(connection)
    await refused(connection, request_shard(MODEL), version, use)


@pytest.mark.parametrize("version", OTHERS)
@pytest.mark.parametrize("use", OF_POOLS.values(), ids=OF_POOLS)
async def test_pool_of_another_version_is_refused_and_left_as_it_is(
    connection: ServerConnection, version: str, use: Callable[[ServerConnection], Awaitable[object]]
) -> None:
    await submit(connection)
    await refused(connection, pool_shard(POOL), version, use)


async def test_snapshots_of_other_shards_are_shown_beside_one_that_is_refused(
    connection: ServerConnection, redis_url: str
) -> None:
    await register(connection)
    other = ProviderModelKey(provider_name="local", model_id="older")
    await register(connection, other)
    await connection.client.hset(request_shard(other)["meta"], "schema", "1")
    command = [sys.executable, "-m", "forebay", "snapshot", "--url", redis_url]
    ran = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert ran.stdout.startswith(f"{MODEL}  cap ")
    assert f"the shard fb:{{rq:{other}}} has schema version 1," in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
