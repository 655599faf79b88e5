"""What a transport raises before anything is sent, and what it warns of.

Rules: design 03, *Transport*.
"""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import openai
import pytest
from structlog.testing import capture_logs

import forebay
from forebay.workers.executor import ModelRequestExecutor
from forebay.workers.model_request import ModelRequest
from tests.contract.chat_domain import item
from tests.support_answers import refuses
from tests.support_drivers import Driver
from tests.support_exchange import exchanging
from tests.support_raw_provider import RawProvider

OTHER = forebay.RequestResourceKey(
    provider_model=forebay.ProviderModelKey(provider_name="p", model_id="outer")
)


# -- denials


@pytest.mark.parametrize("name", ["openai-async", "openai-sync", "httpx2-async", "httpx-sync"])
async def test_a_denial_reaches_the_caller_as_it_is_and_sends_nothing(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    async with exchanging(
        name, redis_url, provider, cap=1, queue_wait_timeout_seconds=0.05
    ) as exchanges:
        lease = (
            await asyncio.to_thread(exchanges.requests.acquire, item())
            if name.endswith("-sync")
            else await exchanges.requests.acquire(item())
        )
        with pytest.raises(forebay.RequestAdmissionError) as raised:
            await exchanges.driver.chat()
        assert raised.value.denied.reason is forebay.RequestDenialReason.QUEUE_TIMEOUT
        if name.endswith("-sync"):
            await asyncio.to_thread(exchanges.requests.release, lease, forebay.SUCCESS)
        else:
            await exchanges.requests.release(lease, forebay.SUCCESS)
    assert provider.asked == []


async def test_anthropics_sdk_wraps_a_denial_and_keeps_it_as_the_cause(
    redis_url: str, provider: RawProvider
) -> None:
    async with exchanging(
        "anthropic-async", redis_url, provider, cap=1, queue_wait_timeout_seconds=0.05
    ) as exchanges:
        lease = await exchanges.requests.acquire(item())
        with pytest.raises(anthropic.APIConnectionError) as raised:
            await exchanges.driver.chat()
        assert isinstance(raised.value.__cause__, forebay.RequestAdmissionError)
        await exchanges.requests.release(lease, forebay.SUCCESS)
    assert provider.asked == []


async def test_a_model_that_nobody_registered_is_denied_at_once(
    redis_url: str, provider: RawProvider
) -> None:
    async with exchanging("openai-async", redis_url, provider) as exchanges:
        with pytest.raises(forebay.RequestAdmissionError, match="register"):
            await exchanges.driver.client.chat.completions.create(model="other", messages=[])
    assert provider.asked == []


@pytest.mark.parametrize("name", ["openai-async", "httpx-sync"])
@pytest.mark.parametrize("what_fails", ["the lease", "the transport"])
async def test_what_could_not_be_sent_gives_its_whole_cost_back(
    redis_url: str,
    provider: RawProvider,
    name: str,
    what_fails: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise forebay.MembershipLost("overdue") if what_fails == "the lease" else OSError("no file")

    quotas = forebay.RequestQuotas(requests_per_day=100, tokens_per_day=100_000)
    config = forebay.RequestAdmissionConfig(quotas=quotas)
    async with exchanging(name, redis_url, provider, config=config) as exchanges:
        if what_fails == "the lease":
            told: Any = forebay.MembershipLost
            monkeypatch.setattr(exchanges.requests, "assert_held", fails)
        else:
            told = (OSError, openai.APIConnectionError)
            monkeypatch.setattr(transport_of(exchanges.driver)._lanes, "take", fails)
        with pytest.raises(told):
            await exchanges.driver.chat()
        await exchanges.when(in_flight=0)
        for budget, whole in (("requests_per_day", 100), ("tokens_per_day", 100_000)):
            left = await exchanges.level(forebay.QuotaBudget(budget))
            assert left == pytest.approx(whole, abs=0.9)
    assert provider.asked == []
    assert exchanges.outcomes == {"local_cancelled": 1}


def transport_of(driver: Driver) -> Any:
    http_client = driver.client if driver.name.startswith("httpx") else driver.client._client
    return http_client._transport


# -- with the executor


async def test_retries_that_multiply_are_warned_of_once(
    redis_url: str, provider: RawProvider
) -> None:
    provider.behaviour = refuses(status=500, code="server_error", retry_after_ms="1")
    async with exchanging("openai-async", redis_url, provider, max_retries=2) as exchanges:
        executor = ModelRequestExecutor(exchanges.requests)
        request = ModelRequest(resource=OTHER, call=exchanges.driver.chat, max_attempts=1)
        await exchanges.requests.register(OTHER.provider_model, "outer", 4)
        with capture_logs() as logs, pytest.raises(openai.InternalServerError):
            await executor.execute(request)
        await executor.aclose()
    assert [log["event"] for log in logs].count("retries_multiply") == 1
