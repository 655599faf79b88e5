"""LiteLLM's own calls through a transport: ``litellm.aclient_session`` is the one changed line.

Run by ``make e2e-sdks`` where LiteLLM is installed, apart from what this project installs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import litellm
import pytest

from tests.support import wait_until
from tests.support_answers import PROMPT, SENTENCE, answers, refuses, stalls, stalls_midway
from tests.support_drivers import API_KEY
from tests.support_exchange import Exchanges, exchanging
from tests.support_raw_provider import Asked, RawProvider, Reply

pytestmark = pytest.mark.filterwarnings("ignore")  # LiteLLM has some of its own


@pytest.fixture
async def exchanges(
    redis_url: str, provider: RawProvider, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Exchanges]:
    async with exchanging("httpx2-async", redis_url, provider) as exchanges:
        monkeypatch.setattr(litellm, "aclient_session", exchanges.driver.client)
        litellm.in_memory_llm_clients_cache.flush_cache()
        yield exchanges


async def ask(exchanges: Exchanges, **fields: Any) -> Any:
    return await litellm.acompletion(
        model="openai/m",
        api_base=exchanges.provider.base_url,
        api_key=API_KEY,
        messages=[{"role": "user", "content": PROMPT}],
        **{"max_retries": 0, **fields},
    )


async def test_a_whole_answer(exchanges: Exchanges) -> None:
    answer = await ask(exchanges)
    assert answer.choices[0].message.content == SENTENCE
    assert await exchanges.ended() == {"success": 1}


async def test_a_stream_read_to_its_end(exchanges: Exchanges) -> None:
    exchanges.provider.behaviour = stalls_midway
    stream = await ask(exchanges, stream=True)
    first = await anext(stream)
    await exchanges.when(in_flight=1)
    exchanges.provider.go_on()
    parts = [first, *[part async for part in stream]]
    assert "".join(part.choices[0].delta.content or "" for part in parts) == SENTENCE
    assert await exchanges.ended() == {"success": 1}


async def test_a_stream_dropped_half_way(exchanges: Exchanges) -> None:
    exchanges.provider.behaviour = stalls_midway
    stream = await ask(exchanges, stream=True)
    await anext(stream)
    await exchanges.when(in_flight=1)
    del stream
    await exchanges.when_collected()
    assert await exchanges.ended() == {"local_cancelled": 1}


async def test_each_retry_is_an_attempt(exchanges: Exchanges) -> None:
    async def second_time_lucky(asked: Asked, reply: Reply) -> None:
        if len(exchanges.provider.asked) == 1:
            await refuses(retry_after_ms="10")(asked, reply)
        else:
            await answers(asked, reply)

    exchanges.provider.behaviour = second_time_lucky
    answer = await ask(exchanges, max_retries=1)
    assert answer.choices[0].message.content == SENTENCE
    assert await exchanges.ended() == {"rate_limited": 1, "success": 1}


async def test_a_timeout_and_a_cancellation(exchanges: Exchanges) -> None:
    exchanges.provider.behaviour = stalls
    with pytest.raises(litellm.Timeout):
        await ask(exchanges, timeout=0.1)
    call = asyncio.create_task(ask(exchanges))
    await wait_until(lambda: len(exchanges.provider.asked) == 2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await exchanges.ended() == {"provider_timeout": 1, "local_cancelled": 1}


async def test_a_refused_connection(exchanges: Exchanges) -> None:
    exchanges.provider.stop_listening()
    with pytest.raises(litellm.InternalServerError):
        await ask(exchanges)
    assert await exchanges.ended() == {"provider_failure": 1}
