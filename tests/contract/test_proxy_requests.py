"""Requests that ``forebay proxy`` refuses at its door, each in a sentence, and old HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from tests.support_answers import SENTENCE, stalls_midway
from tests.support_proxying import ASKS, PATH, STREAMS, Answer, Proxying, proxying
from tests.support_raw_provider import Asked, RawProvider, Reply, whole

BOUND = 65_536


@pytest.fixture
async def proxy(redis_url: str, provider: RawProvider) -> AsyncIterator[Proxying]:
    async with proxying(redis_url, provider) as running:
        yield running


async def told(proxy: Proxying, sent: bytes) -> Answer:
    """Return the answer to bytes that are no request of an SDK."""
    client = await proxy.client()
    client.writer.write(sent)
    return await client.answer()


def head(first: str, *fields: str) -> bytes:
    return "\r\n".join([first, "host: h", *fields, "", ""]).encode()


@pytest.mark.parametrize("path", [PATH, "/v1/messages"])
@pytest.mark.parametrize("size", [70_000, 200_000, 2_000_000])
async def test_a_head_above_the_bound_is_refused_and_its_client_gets_the_answer(
    proxy: Proxying, provider: RawProvider, size: int, path: str
) -> None:
    answer = await proxy.call(path=path, headers={"x-noise": "a" * size})
    assert answer.status == 431
    assert f"larger than {BOUND} bytes; send less" in answer.error["message"]
    assert provider.asked == []


async def test_a_head_below_the_bound_passes(proxy: Proxying) -> None:
    assert (await proxy.call(headers={"x-noise": "a" * 60_000})).status == 200


async def test_many_small_headers_count_as_one_large_one(proxy: Proxying) -> None:
    noise = {f"x-{number}": "noise" for number in range(10_000)}
    assert (await proxy.call(headers=noise)).status == 431


async def test_a_head_without_an_end_is_refused_before_all_of_it_is_kept(proxy: Proxying) -> None:
    client = await proxy.client()
    client.writer.write(b"POST /v1/x HTTP/1.1\r\nx-noise: ")
    for _ in range(8):
        client.writer.write(b"a" * 30_000)
    assert (await client.answer()).status == 431


async def test_a_large_body_in_the_packet_of_its_head_is_no_large_head(proxy: Proxying) -> None:
    content = json.dumps({"model": "m", "messages": [{"role": "user", "content": "a" * 200_000}]})
    for _ in range(2):
        assert (await proxy.call(content.encode())).status == 200


@pytest.mark.parametrize(
    "first",
    [
        "CONNECT api.openai.com:443 HTTP/1.1",
        "GET http://api.openai.com/v1/models HTTP/1.1",
    ],
)
async def test_a_client_that_takes_it_for_a_forward_proxy_is_told_of_base_url(
    proxy: Proxying, provider: RawProvider, first: str
) -> None:
    answer = await told(proxy, head(first))
    assert (answer.status, answer.error["code"]) == (405, "no_forward_proxy")
    assert "base_url" in answer.error["message"]
    assert provider.asked == []


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        head("BREW /v1/models HTTP/1.1"),
        head(f"POST {PATH} HTTP/1.1", "content-length: x"),
        head(f"POST {PATH} HTTP/1.1", "content-length: 1", "content-length: 2"),
        head(f"POST {PATH} HTTP/1.1", "content-length: 3", "transfer-encoding: chunked"),
    ],
)
async def test_what_is_no_request_is_refused_in_a_sentence(proxy: Proxying, sent: bytes) -> None:
    answer = await told(proxy, sent)
    assert (answer.status, answer.error["code"]) == (400, "invalid_http")
    assert "http://, not https://" in answer.error["message"]
    assert answer.headers["connection"] == "close"


async def test_noise_within_a_stream_cuts_it_and_gives_its_lease_back(
    proxy: Proxying, provider: RawProvider
) -> None:
    provider.behaviour = stalls_midway
    client = await proxy.ask(STREAMS)
    assert (await client.head())[0] == 200
    await client.part()
    client.writer.write(b"\x16\x03\x01 is no request\r\n\r\n")
    assert b"HTTP/1.1" not in await client.reader.read()
    assert await proxy.ended() == {"local_cancelled": 1}


async def test_a_websocket_is_refused_in_a_sentence(proxy: Proxying, provider: RawProvider) -> None:
    asks = ("connection: Upgrade", "upgrade: websocket", "sec-websocket-version: 13")
    answer = await told(proxy, head("GET /v1/realtime?model=m HTTP/1.1", *asks))
    assert (answer.status, answer.error["code"]) == (501, "no_websockets")
    assert provider.asked == []


async def test_http_1_0_gets_a_stream_whole_and_with_its_length(proxy: Proxying) -> None:
    fields = ("content-type: application/json", f"content-length: {len(STREAMS)}")
    answer = await told(proxy, head(f"POST {PATH} HTTP/1.0", *fields) + STREAMS)
    assert answer.status == 200
    assert "transfer-encoding" not in answer.headers
    assert answer.is_whole
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert await proxy.ended() == {"success": 1}


async def test_http_1_0_is_told_of_an_answer_that_is_too_large_to_be_kept(
    redis_url: str, provider: RawProvider
) -> None:
    fields = ("content-type: application/json", f"content-length: {len(STREAMS)}")
    async with proxying(redis_url, provider, most_bytes=len(STREAMS)) as proxy:
        answer = await told(proxy, head(f"POST {PATH} HTTP/1.0", *fields) + STREAMS)
        assert (answer.status, answer.error["code"]) == (502, "answer_too_large")
        await proxy.ended()


async def test_a_redirect_of_the_provider_leads_back_through_the_proxy(
    proxy: Proxying, provider: RawProvider
) -> None:
    async def redirects(asked: Asked, reply: Reply) -> None:
        if asked.path.endswith("/"):
            target = f"{provider.base_url.removesuffix('/v1')}{asked.path[:-1]}"
            await reply.send(whole({}, 307, {"location": target}))
        else:
            await reply.send(whole({"said": SENTENCE}))

    provider.behaviour = redirects
    moved = await proxy.call(path=f"/t/atlas/p{PATH}/")
    assert (moved.status, moved.headers["location"]) == (307, f"/t/atlas/p{PATH}")
    assert (await proxy.call(path=moved.headers["location"])).status == 200
    assert [asked.path for asked in provider.asked] == [f"{PATH}/", PATH]


async def test_a_provider_whose_headers_are_too_large_is_named(
    proxy: Proxying, provider: RawProvider
) -> None:
    async def boasts(_asked: Asked, reply: Reply) -> None:
        await reply.send(whole({}, 200, {"x-noise": "a" * 200_000}))

    provider.behaviour = boasts
    answer = await proxy.call(ASKS)
    assert (answer.status, answer.error["code"]) == (502, "upstream_invalid")
    assert "p broke the connection off, or its answer is no HTTP/1.1" in answer.error["message"]
