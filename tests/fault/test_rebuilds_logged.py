"""A rebuild is told once by each member's log, and once by the shard's events."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest
import redis
from structlog.testing import capture_logs

import forebay
from forebay.coordinator.keys import ShardKeys, pool_shard, request_shard
from forebay.coordinator.requests.administration import rebuild
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.administration import rebuild_pool
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.snapshots import audit_pool
from tests.contract.chat_domain import MODEL, item
from tests.support import wait_until
from tests.support_scene import Controller
from tests.support_scripts import AIMD
from tests.support_tasks import POOL, task

MEMBERS: Final = 2
SETTINGS: Final = forebay.MemberSettings(ttl_seconds=3.0)
TOLD: Final = ("generation_changed", "lease_adopted", "shard_damaged")


@pytest.fixture
async def fleet(redis_url: str) -> AsyncIterator[list[ServerConnection]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(await ServerConnection.open(redis_url, SETTINGS))
            for _ in range(MEMBERS)
        ]


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return open_sync(parse_url(redis_url))


async def check_told_once(
    client: redis.Redis,
    keys: ShardKeys,
    agrees: Callable[[], Awaitable[bool]],
    rebuild_by_hand: Callable[[], Awaitable[object]],
) -> None:
    """Lose the leases, then rebuild by hand; compare logs and events of both."""

    async def lose_leases() -> None:
        client.delete(keys["leases"], keys["held"])

    adopted = {"generation_changed": 1, "shard_damaged": 1, "lease_adopted": MEMBERS}
    for begin, reason, events in (
        (lose_leases, "damaged: leases", adopted),
        (rebuild_by_hand, "asked for", {"generation_changed": 1}),
    ):
        before = client.hget(keys["meta"], "generation")
        ((last, _),) = client.xrevrange(keys["events"], count=1)

        async def is_rebuilt(old: bytes | None = before) -> bool:
            now = client.hget(keys["meta"], "generation")
            is_over = now not in {None, old} and not client.exists(keys["awaited"])
            return is_over and await agrees()

        with capture_logs() as logs:
            await begin()
            await wait_until(is_rebuilt)
        assert [line["reason"] for line in lines_of(logs)] == [reason] * MEMBERS
        since = client.xrange(keys["events"], min=f"({last.decode()}")
        found = [fields[b"kind"].decode() for _, fields in since]
        assert Counter(kind for kind in found if kind in TOLD) == events


def lines_of(logs: list[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    return [line for line in logs if line["event"] == "generation_changed"]


async def test_rebuild_of_a_request_shard_is_told_once_by_each_member(
    fleet: list[ServerConnection], client: redis.Redis
) -> None:
    controllers = [Controller(member) for member in fleet]
    for controller in controllers:
        await controller.register(MODEL, "main", MEMBERS, AIMD)
        await controller.acquire(item())
    looking = RequestPressureSnapshotProvider(fleet[0])

    async def agrees() -> bool:
        return (await looking.audit(MODEL)).ok

    await check_told_once(client, request_shard(MODEL), agrees, lambda: rebuild(fleet[0], MODEL))
    for controller in controllers:
        await controller.close()


async def test_rebuild_of_a_pool_is_told_once_by_each_member(
    fleet: list[ServerConnection], client: redis.Redis
) -> None:
    controllers = [TaskAdmissionController(member, POOL) for member in fleet]
    for number, controller in enumerate(controllers):
        await controller.queue.submit(task(f"t{number}"))
        assert (await controller.admit(1)).leases

    async def agrees() -> bool:
        return (await audit_pool(fleet[0], POOL)).ok

    await check_told_once(client, pool_shard(POOL), agrees, lambda: rebuild_pool(fleet[0], POOL))
    for controller in controllers:
        await controller.close()
