"""Leases below real SDKs and bare clients: each attempt is one, and it ends as the attempt did.

Design 03, *Executor and transport*. Every test ends without a lease and without a waiter.
"""

from __future__ import annotations

import asyncio
import json

import pytest

import forebay
from forebay.contracts.snapshots import DomainSnapshot
from tests.contract.chat_domain import when
from tests.support import wait_until
from tests.support_answers import SENTENCE, WORDS, answers, completion, events, stalls_midway
from tests.support_drivers import BARE, CALLERS, every_driver, library_of
from tests.support_exchange import exchanging
from tests.support_raw_provider import Asked, RawProvider, Reply, begun_stream, chunk, whole

TPD = forebay.QuotaBudget.TOKENS_PER_DAY


def a_day_of_tokens(tokens: int = 100_000) -> forebay.RequestAdmissionConfig:
    """A budget that hardly refills while a test looks at it."""
    return forebay.RequestAdmissionConfig(quotas=forebay.RequestQuotas(tokens_per_day=tokens))


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


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize(
    ("usage", "drawn"),
    [
        ({"prompt_tokens": 5_000, "total_tokens": 5_000}, 5_000),
        ({"prompt_tokens": 7, "completion_tokens": 10**12}, 4),  # the estimate stands
    ],
    ids=["real", "absurd"],
)
async def test_a_large_answer_is_settled_by_its_usage_if_that_can_be_true(
    redis_url: str, provider: RawProvider, name: str, usage: dict[str, int], drawn: int
) -> None:
    async def answer(_asked: Asked, reply: Reply) -> None:
        await reply.send(whole({"data": [{"embedding": [0.1] * 500_000}], "usage": usage}))

    provider.behaviour = answer
    async with exchanging(name, redis_url, provider, config=a_day_of_tokens()) as exchanges:
        await exchanges.driver.do(lambda: exchanges.driver.call("", stream=False))
        await exchanges.when(in_flight=0)
        assert await exchanges.level(TPD) == pytest.approx(100_000 - drawn, abs=60)
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


@every_driver
@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirected_call_asks_for_the_same_model(
    redis_url: str, provider: RawProvider, name: str, status: int
) -> None:
    async def moved_twice(asked: Asked, reply: Reply) -> None:
        if len(provider.asked) > 2:
            await answers(asked, reply)
        else:
            await reply.send(whole(b"", status, {"location": f"/moved{asked.path}"}))

    provider.behaviour = moved_twice
    async with exchanging(name, redis_url, provider, cap=1) as exchanges:
        assert await exchanges.driver.chat() == SENTENCE
    assert exchanges.outcomes == {"provider_failure": 2, "success": 1}


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
        await when(exchanges.connection, several_came)
        provider.go_on()
        said = await asyncio.gather(*calls)
    assert set(said) == {SENTENCE}
    assert most == 3
    assert exchanges.outcomes == {"success": 24}
