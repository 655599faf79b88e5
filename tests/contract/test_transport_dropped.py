"""Streams that are dropped give their leases back, whoever waits for them.

Rules: design 03, *Transport*, ADR 0008.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from forebay.transports import waits
from tests.support import wait_until
from tests.support_answers import SENTENCE, answers, stalls_midway
from tests.support_drivers import DRIVERS, every_driver
from tests.support_exchange import exchanging
from tests.support_raw_provider import RawProvider


@pytest.fixture
def _no_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only what is under test collects garbage, and it is in a hurry."""
    for name in ("LONG_WAIT_SECONDS", "PAUSED_SECONDS"):
        monkeypatch.setattr(waits, name, 0.02)
    monkeypatch.setattr(waits.OPEN_BODIES, "_not_before", 0.0)
    monkeypatch.setattr(waits.OPEN_BODIES, "_is_first", True)
    gc.disable()
    yield
    gc.enable()


@every_driver
@pytest.mark.parametrize("begun", [True, False], ids=["half way", "never iterated"])
@pytest.mark.usefixtures("_no_collector")
async def test_a_call_that_waits_for_a_stream_that_its_process_dropped_gets_its_lease(
    redis_url: str, provider: RawProvider, name: str, begun: bool
) -> None:
    provider.behaviour = stalls_midway
    async with exchanging(name, redis_url, provider, cap=1) as exchanges:
        streamed = await exchanges.driver.stream()
        if begun:
            await streamed.one()
        streamed.drop()
        provider.behaviour = answers
        assert await exchanges.driver.chat() == SENTENCE
    assert exchanges.outcomes == {"local_cancelled": 1, "success": 1}


@pytest.mark.parametrize("name", [name for name in DRIVERS if name.endswith("-sync")])
async def test_a_stream_that_a_thread_dropped_is_hung_up_on_without_another_call(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    provider.behaviour = stalls_midway
    async with exchanging(name, redis_url, provider) as exchanges:
        streamed = await exchanges.driver.stream()
        streamed.drop()
        await exchanges.when_collected()
        await wait_until(lambda: provider.hung_up == 1)
    assert exchanges.outcomes == {"local_cancelled": 1}
