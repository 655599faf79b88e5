"""A server that is out of memory: what frees goes on, what takes is refused (design 06)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import forebay
from forebay.coordinator.server.embedded import EmbeddedServer
from tests.contract.chat_domain import CHAT, MODEL, item
from tests.support import wait_until

TTL_SECONDS = 1.0
SETTINGS = forebay.MemberSettings(ttl_seconds=TTL_SECONDS)


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


async def test_without_memory_leases_are_given_back_and_kept_and_none_is_taken(
    own_server: EmbeddedServer,
) -> None:
    async with forebay.connect(own_server.url, SETTINGS) as requests:
        await requests.register(MODEL, "main", 4)
        first, second, kept = [await requests.acquire(item()) for _ in range(3)]
        client = requests._server.client

        async def beat() -> bool:  # the heartbeat's function is loaded with its first beat
            libraries = await client.function_list()
            return len(libraries) >= 3

        await wait_until(beat)
        await client.config_set("maxmemory", 1)
        # One call holds both: it is sent again in two parts.
        asked = asyncio.ensure_future(requests.acquire(item()))
        released = asyncio.ensure_future(requests.release(first, forebay.SUCCESS))
        with pytest.raises(forebay.CoordinatorFull, match="maxmemory"):
            await asked
        assert (await released).released
        assert (await requests.release(second, forebay.SUCCESS)).released

        membership = requests._shards[MODEL].session.membership
        assert membership is not None
        before = membership.acknowledged_at

        async def has_beaten_for_a_ttl() -> bool:
            return membership.acknowledged_at > before + TTL_SECONDS

        await wait_until(has_beaten_for_a_ttl, timeout=TTL_SECONDS * 4)
        requests.assert_held(kept)
        await client.config_set("maxmemory", 0)
        assert (await requests.release(kept, forebay.SUCCESS)).released
        seen = await requests.pressure.snapshot(CHAT)
        assert seen.in_flight_count == seen.waiters == 0
        assert (await requests.pressure.audit(MODEL)).ok
