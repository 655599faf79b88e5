"""``redis+sentinel://``: members follow a failover under load, and the books agree afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import forebay
from forebay.contracts.errors import ConfigurationError
from tests.contract.chat_domain import CHAT, MODEL, item
from tests.support import wait_until
from tests.support_scene import Controller
from tests.support_sentinel import HOST, SERVICE, Watched, watched_primary

NEVER_SECONDS = 600.0
SETTINGS = forebay.MemberSettings(ttl_seconds=3.0, call_timeout_seconds=NEVER_SECONDS)
"""No call is repeated for its age: who waits for an old primary's answer waits for ever."""


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with watched_primary(tmp_path) as watched:
        yield watched


@pytest.mark.parametrize(
    "end",
    [Watched.kill_primary, Watched.stop_primary, Watched.kill_primary_ahead],
    ids=["kill", "stop", "kill-ahead-of-its-replica"],
)
async def test_members_follow_a_failover_under_load(
    watched: Watched, end: Callable[[Watched], None]
) -> None:
    async with (
        forebay.connect(watched.url, SETTINGS) as one,
        forebay.connect(watched.url, SETTINGS) as other,
    ):
        for requests in (one, other):
            await requests.register(MODEL, "main", 4)
        granted = {"before": 0, "after": 0}
        phase = "before"

        async def call(requests: Controller) -> None:
            while True:
                with contextlib.suppress(forebay.CoordinatorError):
                    lease = await requests.acquire(item())
                    granted[phase] += 1
                    await requests.release(lease, forebay.SUCCESS)
                await asyncio.sleep(0)

        callers = [asyncio.create_task(call(requests)) for requests in (one, other) * 4]
        await wait_until(lambda: granted["before"] > 100)
        await asyncio.to_thread(end, watched)

        await wait_until(watched.is_promoted, timeout=60)
        phase = "after"
        await wait_until(lambda: granted["after"] > 100, timeout=60)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

        async def agrees() -> bool:
            try:
                seen = await one.pressure.snapshot(CHAT)
                return seen.in_flight_count == 0 and (await one.pressure.audit(MODEL)).ok
            except forebay.CoordinatorUnavailable:  # the Sentinel still names the old primary
                return False

        await wait_until(agrees, timeout=30)


async def test_the_url_of_a_sentinel_itself_is_answered_with_the_form_to_write(
    watched: Watched,
) -> None:
    itself = watched.url.replace("redis+sentinel", "redis").replace(f"/{SERVICE}", "")
    with pytest.raises(ConfigurationError, match=r"redis\+sentinel://host:port"):
        async with forebay.connect(itself):
            pass


async def test_the_url_of_a_replica_is_answered_with_its_primary(watched: Watched) -> None:
    primary = watched.primary.connection_pool.connection_kwargs["port"]
    with pytest.raises(ConfigurationError, match=f"a replica, .* of {HOST}:{primary}"):
        async with forebay.connect(f"redis://{HOST}:{watched.replica_port}"):
            pass
