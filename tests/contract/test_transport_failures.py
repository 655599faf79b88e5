"""Below SDKs and bare clients, attempts that fail end their leases as they failed.

Rules: design 03, *Transport*.

Every test ends without a lease and without a waiter.
"""

from __future__ import annotations

import asyncio

import pytest

import forebay
from tests.support import wait_until
from tests.support_answers import SENTENCE, answers, events, refuses, stalls, tells_overload_within
from tests.support_drivers import (
    ASYNC_DRIVERS,
    CONNECTION_ERRORS,
    SDKS,
    STATUS_ERRORS,
    TIMEOUTS,
    every_driver,
)
from tests.support_exchange import exchanging
from tests.support_raw_provider import Asked, RawProvider, Reply, begun_stream, chunk


def quick() -> forebay.RequestAdmissionConfig:
    """A cooldown that a test can wait for."""
    tuning = forebay.RequestAdmissionTuningConfig(cooldown_seconds=0.05)
    return forebay.RequestAdmissionConfig(tuning=tuning)


# -- refusals


@every_driver
async def test_a_server_error_is_the_providers_failure(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    provider.behaviour = refuses(status=500, code="server_error")
    async with exchanging(name, redis_url, provider) as exchanges:
        with pytest.raises(STATUS_ERRORS):
            await exchanges.driver.chat()
        await exchanges.when(in_flight=0)
    assert exchanges.outcomes == {"provider_failure": 1}


@every_driver
async def test_a_refusal_cuts_the_window_and_sets_the_hinted_cooldown(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    provider.behaviour = refuses(retry_after="30")
    async with exchanging(name, redis_url, provider) as exchanges:
        with pytest.raises(STATUS_ERRORS) as raised:
            await exchanges.driver.chat()
        assert raised.value.response.status_code == 429
        seen = await exchanges.when(in_flight=0)
        assert seen.current_limit == 1
        assert 25 < seen.cooldown_remaining_seconds <= 30
    assert exchanges.outcomes == {"rate_limited": 1}


@every_driver
async def test_a_refusal_for_a_budget_blocks_until_its_refill_and_cuts_nothing(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    provider.behaviour = refuses(retry_after="30", x_ratelimit_remaining_requests="0")
    async with exchanging(name, redis_url, provider) as exchanges:
        with pytest.raises(STATUS_ERRORS):
            await exchanges.driver.chat()
        seen = await exchanges.when(in_flight=0)
        assert (seen.current_limit, seen.cuts) == (4, 0)
        assert 25 < seen.cooldown_remaining_seconds <= 30
    assert exchanges.outcomes == {"rate_limited": 1}


@every_driver
async def test_an_exhausted_account_is_no_overload(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    provider.behaviour = refuses(code="insufficient_quota")
    async with exchanging(name, redis_url, provider) as exchanges:
        with pytest.raises(STATUS_ERRORS):
            await exchanges.driver.chat()
        seen = await exchanges.when(in_flight=0)
        assert (seen.current_limit, seen.cooldown_remaining_seconds) == (4, 0.0)
    assert exchanges.outcomes == {"provider_failure": 1}


@pytest.mark.parametrize("name", SDKS)
async def test_each_retry_of_an_sdk_is_an_attempt_with_a_lease_of_its_own(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    async def third_time_lucky(asked: Asked, reply: Reply) -> None:
        if len(provider.asked) < 3:
            await refuses(retry_after_ms="10")(asked, reply)
        else:
            await answers(asked, reply)

    provider.behaviour = third_time_lucky
    async with exchanging(
        name, redis_url, provider, cap=1, config=quick(), max_retries=2
    ) as exchanges:
        assert await exchanges.driver.chat() == SENTENCE
    assert exchanges.outcomes == {"rate_limited": 2, "success": 1}


@every_driver
async def test_an_overload_told_within_a_good_stream_cuts_the_window(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    async def tells(asked: Asked, reply: Reply) -> None:
        parts = [*events(asked)[:4], tells_overload_within(asked)]
        await reply.send(begun_stream() + b"".join(map(chunk, [*parts, b""])))

    provider.behaviour = tells
    async with exchanging(name, redis_url, provider) as exchanges:
        streamed = await exchanges.driver.stream()
        if name in SDKS:
            with pytest.raises(Exception, match=r"slow down|Overloaded"):
                await streamed.rest()
        else:
            await streamed.rest()
        await streamed.close()
        seen = await exchanges.when(in_flight=0)
        assert seen.current_limit == 1
    assert exchanges.outcomes == {"rate_limited": 1}


# -- what goes wrong on the way


@every_driver
async def test_a_timeout_after_sending_is_the_providers(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    provider.behaviour = stalls
    async with exchanging(name, redis_url, provider) as exchanges:
        with pytest.raises(TIMEOUTS):
            await exchanges.driver.chat(timeout=0.1)
        await exchanges.when(in_flight=0)
    assert exchanges.outcomes == {"provider_timeout": 1}


@pytest.mark.parametrize("name", ASYNC_DRIVERS)
async def test_a_cancelled_call_gives_its_lease_back(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    provider.behaviour = stalls
    async with exchanging(name, redis_url, provider) as exchanges:
        call = asyncio.create_task(exchanges.driver.chat())
        await wait_until(lambda: provider.asked)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await exchanges.when(in_flight=0)
    assert exchanges.outcomes == {"local_cancelled": 1}


@pytest.mark.parametrize("name", ASYNC_DRIVERS)
async def test_a_call_that_is_cancelled_in_the_queue_sends_nothing(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    provider.behaviour = stalls
    async with exchanging(name, redis_url, provider, cap=1) as exchanges:
        first = asyncio.create_task(exchanges.driver.chat())
        await wait_until(lambda: provider.asked)
        second = asyncio.create_task(exchanges.driver.chat())
        await exchanges.when_waiting(1)
        second.cancel()
        first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
    assert exchanges.outcomes == {"local_cancelled": 1}
    assert len(provider.asked) == 1


@every_driver
async def test_a_refused_connection_is_the_providers_failure(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    async with exchanging(name, redis_url, provider) as exchanges:
        provider.stop_listening()
        with pytest.raises(CONNECTION_ERRORS):
            await exchanges.driver.chat()
        await exchanges.when(in_flight=0)
    assert exchanges.outcomes == {"provider_failure": 1}


@every_driver
async def test_a_connection_that_breaks_half_way_is_the_providers_failure(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    async def breaks(asked: Asked, reply: Reply) -> None:
        await reply.send(begun_stream() + chunk(events(asked)[0]))
        reply.writer.transport.abort()

    provider.behaviour = breaks
    async with exchanging(name, redis_url, provider) as exchanges:
        streamed = await exchanges.driver.stream()
        with pytest.raises(Exception, match=r"peer closed|[Cc]onnection|reset"):
            await streamed.rest()
        await exchanges.when(in_flight=0)
    assert exchanges.outcomes == {"provider_failure": 1}
