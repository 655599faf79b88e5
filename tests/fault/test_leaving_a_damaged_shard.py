"""A clean leave that meets a damaged shard: nobody waits for the member that has left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import redis

import forebay
from forebay.coordinator.keys import pool_shard, request_shard
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from tests.contract.chat_domain import MODEL, item
from tests.support import wait_until
from tests.support_scene import Controller
from tests.support_scripts import AIMD
from tests.support_tasks import POOL, task

LONG_INTERVAL = forebay.MemberSettings(ttl_seconds=3600.0)
"""So that a test sees nothing that has to wait for an interval."""


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return open_sync(parse_url(redis_url))


async def connected(stack: AsyncExitStack, url: str) -> ServerConnection:
    opened = await ServerConnection.open(url, LONG_INTERVAL)
    return await stack.enter_async_context(opened)


async def test_request_shard_waits_for_no_member_that_left_it_damaged(
    stack: AsyncExitStack, client: redis.Redis, redis_url: str
) -> None:
    keys = request_shard(MODEL)
    leaver = Controller(await connected(stack, redis_url))
    other = Controller(await connected(stack, redis_url))
    stack.push_async_callback(other.close)
    for controller in (leaver, other):
        await controller.register(MODEL, "main", 1, AIMD)
    await leaver.acquire(item())
    client.delete(keys["leases"])
    await leaver.close()
    assert client.zcard(keys["members"]) == 1
    await wait_until(lambda: not client.exists(keys["awaited"]))
    lease = await other.acquire(item())
    await other.release(lease, forebay.SUCCESS)


async def test_pool_waits_for_no_member_that_left_it_damaged(
    stack: AsyncExitStack, client: redis.Redis, redis_url: str
) -> None:
    keys = pool_shard(POOL)
    leaver = TaskAdmissionController(await connected(stack, redis_url), POOL)
    other = TaskAdmissionController(await connected(stack, redis_url), POOL)
    stack.push_async_callback(other.close)
    await other.queue.submit(task("a"))
    assert (await leaver.admit(1)).leases
    client.delete(keys["leases"])
    await leaver.close()
    assert client.zcard(keys["members"]) == 1
    await wait_until(lambda: not client.exists(keys["awaited"]))
    assert [lease.item.task_id for lease in (await other.admit(1)).leases] == ["a"]
