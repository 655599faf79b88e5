"""Connections below leases: proxies, connections used again, and what flows on them (ADR 0008)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import forebay
from forebay.transports import HttpResolver
from forebay.transports.lanes import UNUSED_SECONDS
from tests.contract.chat_domain import MODEL
from tests.support_answers import SENTENCE, WORDS, answers, stalls_midway
from tests.support_drivers import BARE, Driver, every_driver
from tests.support_exchange import exchanging, outcomes_on
from tests.support_raw_provider import Asked, RawProvider, Reply, begun_stream, chunk


def lanes_of(driver: Driver) -> Any:
    http_client = driver.client if driver.name.startswith("httpx") else driver.client._client
    return http_client._transport._lanes


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
@pytest.mark.parametrize("told_by", ["option", "environment"])
async def test_a_proxy_is_gone_through_under_leases(
    redis_url: str,
    provider: RawProvider,
    library: Any,
    told_by: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = provider.base_url.removesuffix("/v1")
    options = {}
    if told_by == "option":
        options = {"proxy": proxy}
    else:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")
    async with forebay.http_client(
        redis_url,
        max_parallel_requests=2,
        library=library,
        client_options=options,
        resolve=HttpResolver({"model.example": MODEL.provider_name}),
    ) as client:
        url = "http://model.example/v1/chat/completions"
        assert (await client.post(url, json={"model": "m"})).is_success
    assert [asked.path for asked in provider.asked] == [url]
    assert await outcomes_on(redis_url) == {"success": 1}


@pytest.mark.parametrize("name", ["openai-async", "openai-sync", "httpx-async"])
async def test_a_connection_is_used_again_and_none_more_than_calls_at_once(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    async with exchanging(name, redis_url, provider) as exchanges:
        for _ in range(5):
            await exchanges.driver.chat()
        assert provider.connected == 1
        for _ in range(5):
            await asyncio.gather(*(exchanges.driver.chat() for _ in range(4)))
        assert provider.connected <= 4
    assert exchanges.outcomes == {"success": 25}


@every_driver
async def test_a_body_that_flows_without_a_lease_keeps_its_connection(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    provider.behaviour = stalls_midway
    async with exchanging(name, redis_url, provider, release_at="headers") as exchanges:
        streamed = await exchanges.driver.stream()
        await exchanges.when(in_flight=0)
        lanes = lanes_of(exchanges.driver)
        started = lanes._clock()
        lanes._clock = lambda: started + 10 * UNUSED_SECONDS
        provider.behaviour = answers
        assert await exchanges.driver.chat() == SENTENCE
        provider.go_on()
        assert WORDS[-1] in await streamed.rest()
        await streamed.close()
        assert {lane for lane, _ in lanes._free} == lanes._open
    assert exchanges.outcomes == {"success": 2}


@pytest.mark.parametrize("name", BARE)
async def test_what_needs_no_lease_keeps_its_connection_while_it_flows(
    redis_url: str, provider: RawProvider, name: str
) -> None:
    async def midway(asked: Asked, reply: Reply) -> None:
        await reply.send(begun_stream() + chunk(b"first"))
        if asked.path.endswith("/files/1"):
            await reply.goes_on.wait()
        await reply.send(chunk(b"last") + chunk(b""))

    provider.behaviour = midway
    async with exchanging(name, redis_url, provider) as exchanges:
        client, do = exchanges.driver.client, exchanges.driver.do

        def get(number: int, *, stream: bool) -> Any:
            request = client.build_request("GET", f"{provider.base_url}/files/{number}")
            return client.send(request, stream=stream)

        flowing = await do(lambda: get(1, stream=True))
        lanes = lanes_of(exchanges.driver)
        assert (len(lanes._free), len(lanes._open)) == (0, 1)
        other = await do(lambda: get(2, stream=False))
        assert other.content == b"firstlast"
        assert (len(lanes._free), len(lanes._open)) == (1, 2)
        provider.go_on()
        await do(flowing.read if exchanges.driver.is_sync else flowing.aread)
        assert flowing.content == b"firstlast"
        assert (len(lanes._free), len(lanes._open)) == (2, 2)
    assert exchanges.outcomes == {}
