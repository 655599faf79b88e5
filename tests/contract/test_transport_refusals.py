"""A refusal that no waiting cures goes out once, whatever an SDK retries (ADR 0029)."""

from __future__ import annotations

import pytest

import forebay
from forebay.transports.refusals import MOST_BYTES
from tests.support_answers import SENTENCE, answers, refuses
from tests.support_drivers import BARE, SDKS, STATUS_ERRORS
from tests.support_exchange import exchanging
from tests.support_raw_provider import Asked, RawProvider, Reply, whole

TOO_LARGE = {
    "error": {
        "message": "Request too large for m on tokens per min (TPM): Limit 30000, Requested 40000.",
        "type": "tokens",
        "code": "rate_limit_exceeded",
    }
}


async def too_large(_asked: Asked, reply: Reply) -> None:
    await reply.send(whole(TOO_LARGE, 429, {"retry-after-ms": "10"}))


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", SDKS)
async def test_a_request_that_never_fits_is_sent_once(
    redis_url: str, provider: RawProvider, name: str, *, is_stream: bool
) -> None:
    provider.behaviour = too_large
    async with exchanging(name, redis_url, provider, max_retries=4) as exchanges:
        with pytest.raises(STATUS_ERRORS) as raised:
            await (exchanges.driver.stream() if is_stream else exchanges.driver.chat())
        assert "Requested 40000" in str(raised.value)
        seen = await exchanges.when(in_flight=0)
        assert (seen.current_limit, seen.cooldown_remaining_seconds) == (4, 0.0)
    assert len(provider.asked) == 1
    assert exchanges.outcomes == {"provider_failure": 1}


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_not_active"])
async def test_an_exhausted_account_is_asked_once(
    redis_url: str, provider: RawProvider, code: str
) -> None:
    provider.behaviour = refuses(code=code)
    async with exchanging(SDKS[0], redis_url, provider, max_retries=4) as exchanges:
        with pytest.raises(STATUS_ERRORS):
            await exchanges.driver.chat()
    assert len(provider.asked) == 1


@pytest.mark.parametrize("name", SDKS)
async def test_a_stream_that_is_refused_for_load_is_tried_again(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    async def second_time_lucky(asked: Asked, reply: Reply) -> None:
        behaviour = refuses(retry_after_ms="10") if len(provider.asked) == 1 else answers
        await behaviour(asked, reply)

    provider.behaviour = second_time_lucky
    tuning = forebay.RequestAdmissionTuningConfig(cooldown_seconds=0.05)
    config = forebay.RequestAdmissionConfig(tuning=tuning)
    async with exchanging(name, redis_url, provider, config=config, max_retries=2) as exchanges:
        streamed = await exchanges.driver.stream()
        assert await streamed.rest() == SENTENCE
    assert exchanges.outcomes == {"rate_limited": 1, "success": 1}


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("length", [10, 3 * MOST_BYTES])
async def test_a_refusals_bytes_pass_untouched(
    redis_url: str, provider: RawProvider, name: str, length: int
) -> None:
    body = {"error": {"code": "x", "message": "m" * length}}

    async def refuse(_asked: Asked, reply: Reply) -> None:
        await reply.send(whole(body, 429, {}))

    provider.behaviour = refuse
    async with exchanging(name, redis_url, provider) as exchanges:
        with pytest.raises(STATUS_ERRORS) as raised:
            await exchanges.driver.chat()
        assert raised.value.response.json() == body


@pytest.mark.parametrize("name", BARE)
async def test_a_refusal_whose_body_breaks_off_raises_as_without_a_lease(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    async def breaks_off(_asked: Asked, reply: Reply) -> None:
        await reply.send(whole(TOO_LARGE, 429, {})[:-10])
        reply.writer.close()

    provider.behaviour = breaks_off
    async with exchanging(name, redis_url, provider) as exchanges:
        with pytest.raises(Exception, match=r"[Cc]onnection|closed|peer"):
            await exchanges.driver.chat()
    assert exchanges.outcomes == {"provider_failure": 1}  # what came of the body said so
