"""An agent of pydantic-ai through a transport: its provider's ``http_client``.

Run by ``make e2e-sdks`` where pydantic-ai is installed, apart from what this project installs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.support import wait_until
from tests.support_answers import PROMPT, SENTENCE, refuses, stalls
from tests.support_drivers import API_KEY
from tests.support_exchange import Exchanges, exchanging
from tests.support_raw_provider import RawProvider


@pytest.fixture
async def exchanges(redis_url: str, provider: RawProvider) -> AsyncIterator[Exchanges]:
    async with exchanging("httpx2-async", redis_url, provider) as exchanges:
        yield exchanges


def agent(exchanges: Exchanges) -> Agent:
    served_by = OpenAIProvider(
        base_url=exchanges.provider.base_url,
        api_key=API_KEY,
        http_client=exchanges.driver.client,
    )
    return Agent(OpenAIChatModel("m", provider=served_by))


async def test_a_whole_answer(exchanges: Exchanges) -> None:
    assert (await agent(exchanges).run(PROMPT)).output.strip() == SENTENCE.strip()
    assert await exchanges.ended() == {"success": 1}


async def test_a_stream_read_to_its_end(exchanges: Exchanges) -> None:
    async with agent(exchanges).run_stream(PROMPT) as streamed:
        assert (await streamed.get_output()).strip() == SENTENCE.strip()
    assert await exchanges.ended() == {"success": 1}


async def test_each_retry_is_an_attempt(exchanges: Exchanges) -> None:
    exchanges.provider.behaviour = refuses(retry_after_ms="10")
    with pytest.raises(ModelHTTPError):
        await agent(exchanges).run(PROMPT)
    # two retries are the SDK's default
    assert await exchanges.ended() == {"rate_limited": 3}


async def test_a_cancellation(exchanges: Exchanges) -> None:
    exchanges.provider.behaviour = stalls
    call = asyncio.create_task(agent(exchanges).run(PROMPT))
    await wait_until(lambda: exchanges.provider.asked)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await exchanges.ended() == {"local_cancelled": 1}


async def test_a_refused_connection(exchanges: Exchanges) -> None:
    exchanges.provider.stop_listening()
    with pytest.raises(ModelAPIError):
        await agent(exchanges).run(PROMPT)
    assert await exchanges.ended() == {"provider_failure": 3}
