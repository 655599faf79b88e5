"""How a request shard bears numbers: 10,000 leases of a dead member, 500 members' heartbeats."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import redis

from bench.harness import Fleet, Orders, new_runner, told, wait_for_state
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.requests import RequestAdmissionItem
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.urls import parse_url

PROVIDER_MODEL: Final = ProviderModelKey(provider_name="bench", model_id="scale")
RESOURCE: Final = RequestResourceKey(provider_model=PROVIDER_MODEL)
CAP: Final = 100_000
SHORT_TTL: Final = MemberSettings(ttl_seconds=3.0)
PATIENT: Final = MemberSettings(call_timeout_seconds=60.0)
"""The usual TTL of 15 s, so that the interval is 5 s with up to 5,000 members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reclaimed:
    """What it cost the server to end what a killed process held.

    Attributes:
        leases: that it held.
        seconds: from the kill until all were free.
        calls: script calls that ended some of them, by milliseconds, the shortest first.
    """

    leases: int
    seconds: float
    calls: tuple[float, ...]


async def _hold(orders: Orders, url: str, leases: int) -> None:
    """Hold leases until the process is killed."""
    async with await Coordinator.open(url, SHORT_TTL) as coordinator:
        controller = AdaptiveRequestAdmissionController(coordinator)
        await controller.register(PROVIDER_MODEL, "holds", CAP, told(CAP))
        items = [RequestAdmissionItem(resource=RESOURCE) for _ in range(leases)]
        await asyncio.gather(*(controller.acquire(item) for item in items))
        async for _order in orders:
            orders.answer(None)


def reclaim(leases: int) -> Reclaimed:
    """Kill a process that holds leases, and measure what their end costs the server."""
    with (
        EmbeddedServer() as server,
        open_sync(parse_url(server.url)) as client,
        Fleet(1, _hold, server.url, leases) as fleet,
        new_runner() as runner,
    ):
        return runner.run(_watch_reclaim(fleet, server.url, client, leases))


async def _watch_reclaim(fleet: Fleet, url: str, client: redis.Redis, leases: int) -> Reclaimed:
    async with await Coordinator.open(url, SHORT_TTL) as coordinator:
        observer = RequestPressureSnapshotProvider(coordinator)
        controller = AdaptiveRequestAdmissionController(coordinator)
        await controller.register(PROVIDER_MODEL, "looks", CAP, told(CAP))
        client.config_set("slowlog-max-len", 100_000)
        client.config_set("slowlog-log-slower-than", 0)
        killed_at = fleet.kill(0)
        client.slowlog_reset()

        async def is_free() -> bool:
            return (await observer.global_snapshot(PROVIDER_MODEL)).aggregate_in_flight == 0

        await wait_for_state(is_free, "all leases are free")
        seconds = time.monotonic() - killed_at
        entries: Any = client.slowlog_get(100_000)
        await controller.close()
    durations = sorted(
        entry["duration"] / 1e3 for entry in entries if entry["command"].startswith(b"FCALL")
    )
    ends = -(-leases // 200)  # the longest ones are those that ended 200 each
    return Reclaimed(leases=leases, seconds=seconds, calls=tuple(durations[-ends:]))


async def _beat(members: int, seconds: float, url: str, client: redis.Redis) -> float:
    async with AsyncExitStack() as stack:
        for _ in range(members):
            coordinator = await stack.enter_async_context(await Coordinator.open(url, PATIENT))
            controller = AdaptiveRequestAdmissionController(coordinator)
            await controller.register(PROVIDER_MODEL, "beats", CAP, told(CAP))
            stack.push_async_callback(controller.close)
        await asyncio.sleep(PATIENT.ttl_seconds / 3)  # joining is over, and all beat in turn
        before, began = _cpu_seconds(client), time.monotonic()
        await asyncio.sleep(seconds)
        return (_cpu_seconds(client) - before) / (time.monotonic() - began)


def _cpu_seconds(client: redis.Redis) -> float:
    found: Any = client.info("cpu")
    return float(found["used_cpu_user"] + found["used_cpu_sys"])


def heartbeats(members: int, seconds: float) -> float:
    """Return the share of a core that a server spends on idle members.

    Their heartbeats, their looks for dead members and their connections are all there is.
    """
    with (
        EmbeddedServer() as server,
        open_sync(parse_url(server.url)) as client,
        new_runner() as runner,
    ):
        return runner.run(_beat(members, seconds, server.url, client))
