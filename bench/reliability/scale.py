"""Measures large request shards: 10,000 leases of a dead member, heartbeats of 500 members."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

import redis

from bench.harness import Fleet, Orders, new_runner, told
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.requests import RequestAdmissionItem
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.keys import KEEP_UNUSED_SHARD_MS, SCHEMA_VERSION, request_shard
from forebay.coordinator.process_identity import process_identity
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.scripts.composing import script
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.heartbeat import MEMBERS_PER_SECOND
from forebay.coordinator.server.libraries import Libraries
from forebay.coordinator.server.membership import member_keys
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection

PROVIDER_MODEL: Final = ProviderModelKey(provider_name="bench", model_id="scale")
RESOURCE: Final = RequestResourceKey(provider_model=PROVIDER_MODEL)
CAP: Final = 100_000
LOOK_SECONDS: Final = 0.1
"""Seldom, so that looking costs the server next to nothing."""
SHORT_TTL: Final = MemberSettings(ttl_seconds=3.0)
USUAL: Final = MemberSettings()
"""A TTL of 15 s, so that the interval is 5 s with up to 5,000 members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reclaimed:
    """The server's time for ending the leases of a killed process.

    Attributes:
        seconds: from the kill until all were free.
        calls_ms: the script calls that ended 200 each, in their order, by the clock on the wall.
    """

    seconds: float
    calls_ms: tuple[float, ...]


def longest_calls_ms(rounds: Sequence[Reclaimed]) -> list[float]:
    """Return the least time of each script call over some rounds, by its place in its round.

    Every round does the same work, so what a call takes more at its place is of the machine.
    """
    return [min(calls) for calls in zip(*(one.calls_ms for one in rounds), strict=True)]


async def _hold(orders: Orders, url: str, leases: int) -> None:
    """Hold leases until the process is killed."""
    async with await ServerConnection.open(url, SHORT_TTL) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
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
    async with await ServerConnection.open(url, SHORT_TTL) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        await controller.register(PROVIDER_MODEL, "looks", CAP, told(CAP))
        client.config_set("slowlog-max-len", 100_000)
        client.config_set("slowlog-log-slower-than", 0)
        killed_at = fleet.kill(0)
        client.slowlog_reset()
        leases_key = request_shard(PROVIDER_MODEL)["leases"]
        while client.hlen(leases_key):  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(LOOK_SECONDS)
        seconds = time.monotonic() - killed_at
        entries: Any = client.slowlog_get(100_000)
        await controller.close()
    calls = [entry for entry in entries if entry["command"].startswith(b"FCALL")]
    ends = -(-leases // 200)  # the longest ones are those that ended 200 each
    calls = sorted(sorted(calls, key=itemgetter("duration"))[-ends:], key=itemgetter("id"))
    return Reclaimed(seconds=seconds, calls_ms=tuple(call["duration"] / 1e3 for call in calls))


async def _load_libraries(url: str) -> Libraries:
    """Give birth to the shard, and return the libraries that a member has loaded."""
    async with await ServerConnection.open(url) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        await controller.register(PROVIDER_MODEL, "beats", CAP, told(CAP))
        await controller.close()
        return connection.node.libraries


def _cpu_seconds(client: redis.Redis) -> float:
    found: Any = client.info("cpu")
    return float(found["used_cpu_user"] + found["used_cpu_sys"])


def heartbeats(members: int, seconds: float) -> float:
    """Return the share of a core that a server spends on so many members' heartbeats.

    They join and beat by the scripts of production, each once an interval of the usual TTL, over
    one connection: what a heartbeat costs does not depend on who sends it.
    """
    keys = request_shard(PROVIDER_MODEL)
    key_list = member_keys(keys)
    ttl_us = round(USUAL.ttl_seconds * 1e6)
    names = [f"light-{number}" for number in range(members)]
    with EmbeddedServer() as server, open_sync(parse_url(server.url)) as client:
        with new_runner() as runner:
            libraries = runner.run(_load_libraries(server.url))

        def call(name: str, *arguments: Any) -> None:
            function = libraries.function(script(name))
            client.fcall(function, len(key_list), *key_list, *arguments)

        for name in names:
            born = (SCHEMA_VERSION, "light", "", "", KEEP_UNUSED_SHARD_MS, process_identity())
            call("member/join", name, ttl_us, *born)
        before, began, beats = _cpu_seconds(client), time.monotonic(), 0
        interval = max(USUAL.ttl_seconds / 3, members / MEMBERS_PER_SECOND)
        while (elapsed := time.monotonic() - began) < seconds:
            if beats < elapsed * members / interval:
                call("member/heartbeat", names[beats % members], ttl_us, KEEP_UNUSED_SHARD_MS)
                beats += 1
            else:
                time.sleep(interval / members / 2)
        assert client.zcard(keys["members"]) >= members  # none was lost meanwhile
        spent = _cpu_seconds(client) - before
    return spent / beats * members / interval
