"""Leases below real SDKs and bare clients: each attempt is one, and it ends as the attempt did.

Spec 03, *Executor and transport*. Every test ends without a lease and without a waiter.
"""

from __future__ import annotations

import asyncio
import json

import pytest

import forebay
from contracts.snapshots import DomainSnapshot
from tests.contract.chat_domain import when
from tests.support import wait_until
from tests.support_answers import (
    SENTENCE,
    WORDS,
    answers,
    completion,
    events,
    refuses,
    stalls,
    stalls_midway,
    tells_overload_within,
)
from tests.support_drivers import (
    CALLERS,
    CONNECTION_ERRORS,
    DRIVERS,
    STATUS_ERRORS,
    TIMEOUTS,
    library_of,
)
from tests.support_exchange import exchanging
from tests.support_raw_provider import Asked, RawProvider, Reply, begun_stream, chunk, whole

TPD = forebay.QuotaBudget.TOKENS_PER_DAY
ASYNC_DRIVERS = [name for name in DRIVERS if name.endswith("-async")]
BARE = [name for name in DRIVERS if name.startswith("httpx")]
SDKS = [name for name in DRIVERS if name not in BARE]

every_driver = pytest.mark.parametrize("name", DRIVERS)


def a_day_of_tokens(tokens: int = 100_000) -> forebay.RequestAdmissionConfig:
    """A budget that hardly refills while a test looks at it."""
    return forebay.RequestAdmissionConfig(quotas=forebay.RequestQuotas(tokens_per_day=tokens))


def quick() -> forebay.RequestAdmissionConfig:
    """A cooldown that a test can wait for."""
    tuning = forebay.RequestAdmissionTuningConfig(cooldown_seconds=0.05)
    return forebay.RequestAdmissionConfig(tuning=tuning)


def test_all_that_may_call_is_here() -> None:
    assert set(CALLERS) == {"openai", "anthropic", "httpx2", "httpx"}
    assert library_of("openai-sync") == library_of("anthropic-sync") == "httpx2"


# -- answers


@every_driver
async def test_a_whole_answer_is_a_success_and_its_usage_settles_the_quota(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    async with exchanging(name, redis_url, provider, config=a_day_of_tokens()) as exchanges:
        assert await exchanges.driver.chat() == SENTENCE
        await exchanges.when(in_flight=0)
        # 7 tokens in and 4 out, whatever was estimated
        assert await exchanges.level(TPD) == pytest.approx(100_000 - 11, abs=1)
    assert exchanges.outcomes == {"success": 1}


@every_driver
async def test_a_stream_holds_its_lease_until_it_is_read_to_its_end(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    provider.behaviour = stalls_midway
    async with exchanging(name, redis_url, provider, config=a_day_of_tokens()) as exchanges:
        streamed = await exchanges.driver.stream()
        await streamed.one()
        await exchanges.when(in_flight=1)
        provider.go_on()
        assert WORDS[-1] in await streamed.rest()
        await exchanges.when(in_flight=0)
        assert await exchanges.level(TPD) == pytest.approx(100_000 - 11, abs=1)
    assert exchanges.outcomes == {"success": 1}


@every_driver
@pytest.mark.parametrize("begun", [True, False], ids=["half way", "never iterated"])
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "dropped"])
async def test_a_stream_that_is_given_up_gives_its_lease_and_its_connection_back(
    redis_url: str, provider: RawProvider, name: str, begun: bool, closed: bool
) -> None:
    provider.behaviour = stalls_midway
    async with exchanging(name, redis_url, provider, cap=1) as exchanges:
        streamed = await exchanges.driver.stream()
        if begun:
            await streamed.one()
        await exchanges.when(in_flight=1)
        if closed:
            await streamed.close()
        streamed.drop()
        await exchanges.when_collected()
        provider.behaviour = answers
        assert await exchanges.driver.chat() == SENTENCE
        await wait_until(lambda: provider.hung_up == 1)
    assert exchanges.outcomes == {"local_cancelled": 1, "success": 1}


@every_driver
async def test_a_lease_may_end_at_the_headers(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    provider.behaviour = stalls_midway
    async with exchanging(name, redis_url, provider, release_at="headers") as exchanges:
        streamed = await exchanges.driver.stream()
        await exchanges.when(in_flight=0)
        provider.go_on()
        assert WORDS[-1] in await streamed.rest()
    assert exchanges.outcomes == {"success": 1}


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("head", ["204 X", "200 X\r\ncontent-length: 0"], ids=["204", "empty"])
async def test_an_answer_without_a_body_holds_nothing_though_nobody_reads_it(
    redis_url: str, provider: RawProvider, name: str, head: str
) -> None:
    async def empty(_asked: Asked, reply: Reply) -> None:
        await reply.send(f"HTTP/1.1 {head}\r\n\r\n".encode())

    provider.behaviour = empty
    async with exchanging(name, redis_url, provider) as exchanges:
        streamed = await exchanges.driver.stream()
        await exchanges.when(in_flight=0)
        await streamed.close()
    assert exchanges.outcomes == {"success": 1}


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
        assert seen.current_limit == 6
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
        assert (seen.current_limit, seen.cooldown_remaining_seconds) == (8, 0.0)
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
        assert seen.current_limit == 6
    assert exchanges.outcomes == {"rate_limited": 1}


@every_driver
async def test_what_headers_say_is_learned_before_the_stream_ends(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    async def tells(asked: Asked, reply: Reply) -> None:
        told = {"x-ratelimit-limit-requests": "50", "x-ratelimit-remaining-requests": "7"}
        await reply.send(begun_stream(told) + b"".join(map(chunk, events(asked)[:4])))
        await reply.goes_on.wait()
        await reply.send(b"".join(map(chunk, [*events(asked)[4:], b""])))

    provider.behaviour = tells
    async with exchanging(name, redis_url, provider) as exchanges:
        streamed = await exchanges.driver.stream()
        await exchanges.when(in_flight=1)

        async def is_learned() -> bool:
            return await exchanges.level(forebay.QuotaBudget.REQUESTS_PER_MINUTE) < 10

        await wait_until(is_learned)
        provider.go_on()
        await streamed.rest()
    assert exchanges.outcomes == {"success": 1}


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


@every_driver
async def test_ten_megabytes_go_both_ways_unchanged(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    text = "w\u00e4t\u20acr " * 1_250_000

    async def echoes(asked: Asked, reply: Reply) -> None:
        said = json.loads(asked.body)["messages"][0]["content"]
        await reply.send(whole(completion(asked, said)))

    provider.behaviour = echoes
    async with exchanging(name, redis_url, provider) as exchanges:
        assert await exchanges.driver.chat(text) == text
    assert len(provider.asked[0].body) > 10_000_000
    assert exchanges.outcomes == {"success": 1}


# -- what is shared


@every_driver
async def test_the_cap_holds_below_any_number_of_calls(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    at_once = most = 0

    async def counting(asked: Asked, reply: Reply) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await reply.goes_on.wait()
        await answers(asked, reply)
        at_once -= 1

    def several_came(seen: DomainSnapshot) -> bool:
        came = seen.in_flight_count + seen.waiters
        return came >= 5 and len(provider.asked) == seen.in_flight_count

    provider.behaviour = counting
    async with exchanging(name, redis_url, provider, cap=3) as exchanges:
        calls = [asyncio.create_task(exchanges.driver.chat()) for _ in range(24)]
        await when(exchanges.coordinator, several_came)
        provider.go_on()
        said = await asyncio.gather(*calls)
    assert set(said) == {SENTENCE}
    assert most == 3
    assert exchanges.outcomes == {"success": 24}
