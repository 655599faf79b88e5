"""Quotas as a program meets them, on a real server (design 03, *Quotas*)."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

import forebay
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.chat_domain import MODEL, counts, is_idle, item, joined, when
from tests.support import wait_until

RPM, TPM = forebay.QuotaBudget.REQUESTS_PER_MINUTE, forebay.QuotaBudget.TOKENS_PER_MINUTE
PATIENT = forebay.MemberSettings(ttl_seconds=3600.0, recheck_seconds=60.0)


UNSENT = forebay.RequestReleaseOutcome(
    kind=forebay.RequestOutcomeKind.LOCAL_CANCELLED, usage=forebay.TokenUsage()
)


def config(**quotas: Any) -> forebay.RequestAdmissionConfig:
    return forebay.RequestAdmissionConfig(
        initial_limits={forebay.RequestDomain.CHAT: 8}, quotas=forebay.RequestQuotas(**quotas)
    )


async def left(requests: forebay.AdaptiveRequestAdmissionController) -> dict[str, float]:
    shard = await requests.pressure.global_snapshot(MODEL)
    return {budget.budget: budget.level for budget in shard.budgets}


async def test_waiters_for_quota_are_woken_without_a_recheck(redis_url: str) -> None:
    async with forebay.connect(redis_url, PATIENT) as requests, asyncio.timeout(20.0):
        await requests.register(MODEL, "mine", 8, config(requests_per_minute=3000, bursts={RPM: 1}))
        for lease in await asyncio.gather(*(requests.acquire(item()) for _ in range(5))):
            await requests.release(lease, forebay.SUCCESS)
    async with await ServerConnection.open(redis_url) as connection:
        assert counts(await when(connection, is_idle)) == {"success": 5}


async def test_a_cost_that_never_fits_is_told_with_its_budget(redis_url: str) -> None:
    async with forebay.connect(redis_url) as requests:
        await requests.register(MODEL, "mine", 8, config(tokens_per_minute=100))
        with pytest.raises(forebay.RequestAdmissionError, match="tokens_per_minute") as caught:
            await requests.acquire(item(cost=101))
        denied = caught.value.denied
        assert denied.reason is forebay.RequestDenialReason.HARD_POLICY_DENIAL
        assert denied.diagnostics == {"code": "never_fits", "budget": "tokens_per_minute"}


async def test_a_timeout_that_waited_for_a_quota_says_so(redis_url: str) -> None:
    async with forebay.connect(redis_url) as requests:
        await requests.register(MODEL, "mine", 8, config(tokens_per_day=86_400))
        await requests.acquire(item(cost=86_400))
        expected = "quota tokens_per_day has no room for 60 tokens yet"
        with pytest.raises(forebay.RequestAdmissionError, match=expected) as caught:
            await requests.acquire(item(cost=60, queue_wait_timeout_seconds=0))
        denied = caught.value.denied
        assert denied.reason is forebay.RequestDenialReason.QUEUE_TIMEOUT
        assert denied.diagnostics == {"code": "lacks_quota", "budget": "tokens_per_day"}
        assert 0 < (denied.retry_after_seconds or 0) <= 60


async def test_the_remedy_for_what_nobody_registered_names_both_ways(redis_url: str) -> None:
    async with forebay.connect(redis_url) as requests:
        with pytest.raises(forebay.RequestAdmissionError, match="max_parallel_requests=") as caught:
            await requests.acquire(item())
        assert "call register(" in str(caught.value)


async def test_try_acquire_says_when_the_quota_is_back(redis_url: str) -> None:
    async with forebay.connect(redis_url) as requests:
        await requests.register(MODEL, "mine", 8, config(tokens_per_day=86_400))
        await requests.acquire(item(cost=86_400))
        denied = await requests.try_acquire(item(cost=60))
        assert isinstance(denied, forebay.RequestAdmissionDenied)
        assert denied.reason is forebay.RequestDenialReason.QUOTA
        assert denied.retry_after_seconds is not None
        assert 0 < denied.retry_after_seconds <= 60


async def test_usage_settles_and_an_unsent_attempt_costs_nothing(redis_url: str) -> None:
    async with forebay.connect(redis_url) as requests:
        await requests.register(MODEL, "mine", 8, config(tokens_per_day=1000, requests_per_day=10))
        used = await requests.acquire(item(cost=500))
        unsent = await requests.acquire(item(cost=300))
        usage = forebay.TokenUsage(input_tokens=100, output_tokens=50)
        await requests.release(
            used,
            forebay.RequestReleaseOutcome(kind=forebay.RequestOutcomeKind.SUCCESS, usage=usage),
        )
        await requests.release(unsent, UNSENT)
        levels = await left(requests)
        assert levels["tokens_per_day"] == pytest.approx(850, abs=1)
        assert levels["requests_per_day"] == pytest.approx(9, abs=0.1)


async def test_a_lease_that_nobody_took_costs_nothing(redis_url: str) -> None:
    async with forebay.connect(redis_url) as requests:
        await requests.register(MODEL, "mine", 8, config(tokens_per_day=1000, requests_per_day=10))
        requests.return_unused(await requests.acquire(item(cost=500)))
        # Decided after the release, as every next acquire of this process.
        await requests.release(await requests.acquire(item()), UNSENT)
        assert await left(requests) == {"tokens_per_day": 1000, "requests_per_day": 10}


async def test_an_attempt_that_the_provider_answered_was_sent(redis_url: str) -> None:
    async with forebay.connect(redis_url) as requests:
        await requests.register(MODEL, "mine", 8, config(requests_per_day=10))
        answered = dataclasses.replace(UNSENT, provider_status=200)
        await requests.release(await requests.acquire(item(cost=500)), answered)
        assert (await left(requests))["requests_per_day"] == pytest.approx(9, abs=0.1)


@pytest.mark.parametrize("blocking", [False, True])
def test_what_headers_say_reaches_the_shard(redis_url: str, blocking: bool) -> None:
    readings = [forebay.QuotaReading(budget=RPM, limit=500, remaining=20)]

    async def taught(requests: forebay.AdaptiveRequestAdmissionController) -> None:
        await wait_until(lambda: _is_lowered(requests))

    async def _is_lowered(requests: forebay.AdaptiveRequestAdmissionController) -> bool:
        return 20 <= (await left(requests)).get("requests_per_minute", 500) < 400

    async def main() -> None:
        async with forebay.connect(redis_url) as requests:
            await requests.register(MODEL, "mine", 8)
            requests.learn(await requests.acquire(item()), readings)
            await taught(requests)

    if blocking:
        with joined(redis_url, 8) as requests:
            requests.learn(requests.acquire(item()), readings)
            requests._controller.caller.call(lambda: taught(requests._controller), instead="")
    else:
        asyncio.run(main())


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests_per_minute": 0},
        {"requests_per_minute": 1.5},
        {"tokens_per_day": 10**13},
        {"bursts": {"tokens_per_day": 5}},
        {"bursts": {"tokens_per_hour": 5}},
        {"bursts": "requests_per_minute"},
        {"requests_per_hour": 5},
    ],
    ids=str,
)
def test_wrong_quotas_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(forebay.ConfigurationError, match="RequestQuotas"):
        forebay.RequestQuotas(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"budget": "x"}, {"budget": TPM, "limit": 0}, {"budget": TPM, "remaining": -1}],
    ids=str,
)
def test_wrong_readings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(forebay.ConfigurationError):
        forebay.QuotaReading(**wrong)
