"""``forebay proxy``: each call is a lease, and passes byte for byte in both directions."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
from typing import Any

import pytest

import forebay
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.proxy import waits
from tests.contract.chat_domain import MODEL
from tests.support import wait_until
from tests.support_answers import SENTENCE, WORDS, answers, completion, events, refuses, stalls
from tests.support_answers import stalls_midway as stalls_in_stream
from tests.support_drivers import API_KEY, CALLERS
from tests.support_proxy import FaultyProxy
from tests.support_proxying import ASKS, PATH, STREAMS, proxying
from tests.support_raw_provider import Asked, RawProvider, Reply, begun_stream, chunk, whole

NOISE = os.urandom(300_000)
ASKED = Asked(method="POST", path=PATH, headers={}, body=b"{}")


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# -- byte for byte


async def test_the_request_arrives_as_it_was_sent_with_its_key_and_without_the_proxys_headers(
    redis_url: str, provider: RawProvider
) -> None:
    sent = {
        "authorization": f"Bearer {API_KEY}",
        "accept-encoding": "br",
        "x-request-id": "of-the-client",
        "x-forebay-tenant": "atlas",
        "connection": "keep-alive, x-hop",
        "x-hop": "for this connection alone",
        "te": "trailers",
    }
    async with proxying(redis_url, provider) as proxy:
        answer = await proxy.call(headers=sent, path=f"{PATH}?api-version=1&x=%2Fa|<{{b}}^`>")
    assert answer.status == 200
    (asked,) = provider.asked
    assert (asked.method, asked.path, asked.body) == (
        "POST",
        f"{PATH}?api-version=1&x=%2Fa|<{{b}}^`>",
        ASKS,
    )
    assert asked.headers == {
        "host": provider.host,
        "content-type": "application/json",
        "content-length": str(len(ASKS)),
        "authorization": f"Bearer {API_KEY}",
        "accept-encoding": "br",
        "x-request-id": "of-the-client",
    }


async def test_a_chunked_upload_arrives_whole(redis_url: str, provider: RawProvider) -> None:
    async with proxying(redis_url, provider) as proxy:
        client = await proxy.client()
        client.begin(PATH, {"transfer-encoding": "chunked"})
        for start in range(0, len(ASKS), 7):
            client.writer.write(chunk(ASKS[start : start + 7]))
        client.writer.write(chunk(b""))
        assert (await client.answer()).status == 200
        assert await proxy.ended() == {"success": 1}
    assert provider.asked[0].body == ASKS


@pytest.mark.parametrize("encoding", ["identity", "gzip", "no such encoding"])
async def test_an_answer_passes_undecoded(
    redis_url: str, provider: RawProvider, encoding: str
) -> None:
    body = gzip.compress(json.dumps(completion(ASKED)).encode()) if encoding == "gzip" else NOISE
    told = {
        "content-encoding": encoding,
        "set-cookie": "a=1",
        "Date": "Mon, 30 Nov 2026 15:00:00 GMT",
        "connection": "x-hop",
        "x-hop": "1",
        "keep-alive": "timeout=5",
    }

    async def answers_it(_asked: Asked, reply: Reply) -> None:
        await reply.send(whole(body, headers=told))

    provider.behaviour = answers_it
    async with proxying(redis_url, provider) as proxy:
        answer = await proxy.call()
        assert await proxy.ended() == {"success": 1}
    assert answer.body == body
    assert answer.headers == {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "content-encoding": encoding,
        "set-cookie": "a=1",
        "date": "Mon, 30 Nov 2026 15:00:00 GMT",
        "x-forebay-queue-ms": answer.headers["x-forebay-queue-ms"],
    }


async def test_an_event_arrives_before_the_next_one_is_sent(
    redis_url: str, provider: RawProvider
) -> None:
    async with proxying(redis_url, provider) as proxy:
        provider.behaviour = stalls_in_stream
        client = await proxy.ask(STREAMS)
        status, headers = await client.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        read = b""
        while read.count(b"\n\n") < 4:  # the provider sends the others when it is told
            read += await client.part()
        provider.go_on()
        while part := await client.part():
            read += part
        assert read == b"".join(events(ASKED))
        assert await proxy.ended() == {"success": 1}


async def test_a_stream_that_breaks_off_breaks_off_for_the_client(
    redis_url: str, provider: RawProvider
) -> None:
    async def breaks_off(_asked: Asked, reply: Reply) -> None:
        await reply.send(begun_stream() + chunk(events(ASKED)[0]))
        reply.writer.transport.abort()

    provider.behaviour = breaks_off
    async with proxying(redis_url, provider) as proxy:
        answer = await proxy.call(STREAMS)
        assert (answer.status, answer.is_whole) == (200, False)
        assert await proxy.ended() == {"provider_failure": 1}


async def test_a_refusal_of_the_provider_passes_as_it_is(
    redis_url: str, provider: RawProvider
) -> None:
    provider.behaviour = refuses(429, "rate_limit_exceeded", retry_after="1", x_odd="1")
    async with proxying(redis_url, provider) as proxy:
        answer = await proxy.call()
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert answer.error["code"] == "rate_limit_exceeded"
        assert answer.headers["x-odd"] == "1"
        assert "x-forebay-refusal" not in answer.headers
        assert await proxy.ended() == {"rate_limited": 1}


async def test_100_megabytes_pass_below_the_bound(redis_url: str, provider: RawProvider) -> None:
    async def takes_all(_asked: Asked, reply: Reply) -> None:
        await reply.send(whole({}))

    provider.behaviour = takes_all
    body = os.urandom(1_000_000) * 100
    async with proxying(redis_url, provider, most_bytes=len(body)) as proxy:
        assert (await proxy.call(body, headers={"content-type": "audio/wav"})).status == 200
    assert provider.asked[0].body == body


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_above_the_bound_is_refused_and_its_client_gets_the_answer(
    redis_url: str, provider: RawProvider, is_chunked: bool
) -> None:
    async with proxying(redis_url, provider) as proxy:
        client = await proxy.client()
        length = {"transfer-encoding": "chunked"} if is_chunked else {"content-length": "3000000"}
        client.begin(PATH, length)
        for _ in range(3):
            client.writer.write(chunk(b"x" * 1_000_000) if is_chunked else b"x" * 1_000_000)
        client.writer.write(chunk(b"") if is_chunked else b"")
        await client.writer.drain()  # reads nothing before all is sent
        answer = await client.answer()
    assert (answer.status, answer.is_whole) == (413, True)
    assert answer.error["code"] == "body_too_large"
    assert "--max-body-mb" in answer.error["message"]
    assert provider.asked == []


async def test_a_client_that_reads_slowly_holds_up_nobody_and_gets_all(
    redis_url: str, provider: RawProvider
) -> None:
    body = NOISE * 100

    async def answers_it(asked: Asked, reply: Reply) -> None:
        await reply.send(whole(body if asked.headers.get("x-large") else completion(asked)))

    provider.behaviour = answers_it
    async with proxying(redis_url, provider) as proxy:
        slow = await proxy.ask(headers={"x-large": "1"})
        slow.writer.transport.pause_reading()
        await wait_until(lambda: provider.asked)
        assert (await proxy.call()).status == 200
        slow.writer.transport.resume_reading()
        assert (await slow.answer()).body == body
        assert await proxy.ended() == {"success": 2}


# -- clients that go away


async def test_a_client_that_leaves_in_a_stream_gives_its_lease_back(
    redis_url: str, provider: RawProvider
) -> None:
    provider.behaviour = stalls_in_stream
    async with proxying(redis_url, provider) as proxy:
        client = await proxy.ask(STREAMS)
        await client.head()
        client.vanish()
        assert await proxy.ended() == {"local_cancelled": 1}
        await wait_until(lambda: provider.hung_up == 1)


@pytest.mark.parametrize("how", ["vanishes", "half-closes"])
async def test_a_client_that_leaves_before_its_answer_gives_its_lease_back(
    redis_url: str, provider: RawProvider, how: str
) -> None:
    provider.behaviour = stalls
    async with proxying(redis_url, provider) as proxy:
        client = await proxy.ask()
        await wait_until(lambda: provider.asked)
        client.vanish() if how == "vanishes" else client.writer.write_eof()
        assert await proxy.ended() == {"local_cancelled": 1}
        await wait_until(lambda: provider.hung_up == 1)


async def test_a_client_that_leaves_in_line_leaves_the_line(
    redis_url: str, provider: RawProvider
) -> None:
    provider.behaviour = stalls
    async with proxying(redis_url, provider, max_parallel_requests=1) as proxy:
        first = await proxy.ask()
        await wait_until(lambda: provider.asked)
        second = await proxy.ask()
        await proxy.when(lambda seen: seen.waiters == 1)
        second.vanish()
        await proxy.when(lambda seen: seen.waiters == 0)
        provider.go_on()
        first.vanish()
        assert await proxy.ended() == {"local_cancelled": 1}
    assert len(provider.asked) == 1


async def test_a_client_that_leaves_within_its_body_asks_for_nothing(
    redis_url: str, provider: RawProvider
) -> None:
    async with proxying(redis_url, provider) as proxy:
        client = await proxy.client()
        client.begin(PATH, {"content-length": "1000"})
        client.writer.write(b"x" * 10)
        await client.writer.drain()
        client.vanish()
        assert (await proxy.call()).status == 200  # which came after it
        assert await proxy.ended() == {"success": 1}
    assert len(provider.asked) == 1


# -- who asks, and what held it up


async def test_tenant_and_weight_come_from_headers_or_the_path(
    redis_url: str, provider: RawProvider
) -> None:
    provider.behaviour = stalls
    async with proxying(redis_url, provider, max_parallel_requests=1) as proxy:
        await proxy.ask()
        await wait_until(lambda: provider.asked)
        told = {"x-forebay-tenant": "atlas", "x-forebay-weight": "3"}
        waiting = [await proxy.ask(headers=told), await proxy.ask(path=f"/t/bore%2Falis{PATH}")]
        await proxy.when(lambda seen: seen.waiters == 2)
        seen = await RequestPressureSnapshotProvider(proxy.connection).global_snapshot(MODEL)
        groups = {one.group: one.weight for one in seen.domains["chat"].waiting_groups}
        assert groups == {"atlas": 3.0, "bore/alis": 1.0}
        provider.go_on()
        for client in waiting:
            client.vanish()


async def test_an_answer_says_how_long_its_call_waited_and_what_held_it_up(
    redis_url: str, provider: RawProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = asyncio.Event()

    def reason_of(*seen: Any) -> str:
        looked.set()
        return waits_reason_of(*seen)

    waits_reason_of = waits.reason_of
    monkeypatch.setattr(waits, "reason_of", reason_of)
    provider.behaviour = stalls
    async with proxying(redis_url, provider, max_parallel_requests=1) as proxy:
        first = await proxy.ask()
        await wait_until(lambda: provider.asked)
        provider.behaviour = answers
        second = await proxy.ask()
        await looked.wait()
        first.vanish()
        answer = await second.answer()
        assert answer.status == 200
        assert answer.headers["x-forebay-queue-ms"].isdecimal()
        assert answer.headers["x-forebay-held-by"] == "cap"


@pytest.mark.parametrize("weight", ["heavy", "0", "nan", "1e9"])
async def test_a_wrong_weight_is_refused_by_name(
    redis_url: str, provider: RawProvider, weight: str
) -> None:
    async with proxying(redis_url, provider) as proxy:
        answer = await proxy.call(headers={"x-forebay-weight": weight})
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert provider.asked == []


async def test_a_proxy_and_a_program_with_a_transport_share_one_window(
    redis_url: str, provider: RawProvider
) -> None:
    provider.behaviour = stalls
    resolve = forebay.HttpResolver({provider.host: "p"})
    async with (
        proxying(redis_url, provider, max_parallel_requests=1) as proxy,
        forebay.http_client(redis_url, max_parallel_requests=1, resolve=resolve) as client,
    ):
        await proxy.ask()
        await proxy.when(lambda seen: seen.in_flight_count == 1)
        calling = asyncio.create_task(
            client.post(f"{provider.base_url}/chat/completions", json={"model": "m"})
        )
        await proxy.when(lambda seen: (seen.in_flight_count, seen.waiters) == (1, 1))
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)


# -- SDKs


@pytest.mark.skipif("openai" not in CALLERS, reason="installed apart")
async def test_the_openai_sdk_calls_streams_and_is_told_of_a_full_queue(
    redis_url: str, provider: RawProvider
) -> None:
    import openai

    messages = [{"role": "user", "content": "hi"}]
    async with (
        proxying(redis_url, provider, max_parallel_requests=1, queue_seconds=0.05) as proxy,
        openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key=API_KEY, max_retries=0) as sdk,
    ):
        answer = await sdk.chat.completions.create(model="m", messages=messages)
        assert answer.choices[0].message.content == SENTENCE
        stream = await sdk.chat.completions.create(model="m", messages=messages, stream=True)
        words = [part.choices[0].delta.content async for part in stream if part.choices]
        assert words[: len(WORDS)] == WORDS
        await proxy.ended()
        provider.behaviour = stalls
        await proxy.ask()
        await proxy.when(lambda seen: seen.in_flight_count == 1)
        with pytest.raises(
            openai.RateLimitError, match=r"p/m/chat within 0.05 s; raise --queue-timeout"
        ) as told:
            await sdk.chat.completions.create(model="m", messages=messages)
        assert told.value.code == "queue_timeout"
        assert told.value.response.headers["retry-after"] == "1"


@pytest.mark.skipif("anthropic" not in CALLERS, reason="installed apart")
async def test_the_anthropic_sdk_calls_streams_and_is_told_of_a_full_queue(
    redis_url: str, provider: RawProvider
) -> None:
    import anthropic

    asks = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    async with (
        proxying(redis_url, provider, max_parallel_requests=1, queue_seconds=0.05) as proxy,
        anthropic.AsyncAnthropic(base_url=proxy.url, api_key=API_KEY, max_retries=0) as sdk,
    ):
        assert (await sdk.messages.create(**asks)).content[0].text == SENTENCE
        async with sdk.messages.stream(**asks) as stream:
            assert [text async for text in stream.text_stream] == WORDS
        await proxy.ended()
        provider.behaviour = stalls
        await proxy.ask()
        await proxy.when(lambda seen: seen.in_flight_count == 1)
        with pytest.raises(anthropic.RateLimitError) as told:
            await sdk.messages.create(**asks)
        assert told.value.body["error"]["type"] == "rate_limit_error"


# -- troubles


async def test_while_the_server_is_away_calls_and_healthz_are_answered_by_name(
    redis_url: str, provider: RawProvider
) -> None:
    member = forebay.MemberSettings(call_timeout_seconds=0.3)
    async with FaultyProxy(redis_url) as way, proxying(way.url, provider, member=member) as proxy:
        assert (await proxy.call()).status == 200
        assert (await proxy.call(method="GET", path="/healthz")).status == 200
        way.refuse()
        answer = await proxy.call()
        assert (answer.status, answer.error["code"]) == (503, "coordinator_unavailable")
        assert way.url.removeprefix("unix://") in answer.error["message"]
        assert answer.headers["retry-after"] == "5"
        health = await proxy.call(method="GET", path="/healthz")
        assert health.status == 503
        assert way.url.removeprefix("unix://") in json.loads(health.body)["error"]
        await way.accept()

        async def is_back() -> bool:
            return (await proxy.call()).status == 200

        await wait_until(is_back)
    assert len(provider.asked) == 2


async def test_a_provider_that_is_away_is_named(redis_url: str, provider: RawProvider) -> None:
    provider.stop_listening()
    async with proxying(redis_url, provider) as proxy:
        answer = await proxy.call()
        assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
        assert "p could not be reached" in answer.error["message"]
        assert await proxy.ended() == {"provider_failure": 1}


async def test_a_signal_to_stop_lets_calls_end(redis_url: str, provider: RawProvider) -> None:
    provider.behaviour = stalls_in_stream
    async with proxying(redis_url, provider) as proxy:
        client = await proxy.ask(STREAMS)
        await client.head()
        stopping = asyncio.create_task(proxy.stop())
        await wait_until(lambda: not accepts(proxy.port))
        provider.go_on()
        read = b""
        while part := await client.part():
            read += part
        assert read == b"".join(events(ASKED))
        await stopping
        assert await proxy.ended() == {"success": 1}


async def test_a_call_in_line_after_the_grace_time_is_answered_with_shutdown(
    redis_url: str, provider: RawProvider
) -> None:
    provider.behaviour = stalls
    async with proxying(redis_url, provider, max_parallel_requests=1, grace_seconds=0) as proxy:
        await proxy.ask()
        await wait_until(lambda: provider.asked)
        second = await proxy.ask()
        await proxy.when(lambda seen: seen.waiters == 1)
        await proxy.stop()
        answer = await second.answer()
        assert (answer.status, answer.error["code"]) == (503, "shutdown")
        assert answer.headers["retry-after"] == "1"
        assert await proxy.ended() == {"local_cancelled": 1}


async def test_a_token_is_asked_for_and_stays_with_the_proxy(
    redis_url: str, provider: RawProvider
) -> None:
    async with proxying(redis_url, provider, token="open sesame") as proxy:
        for wrong in ({}, {"x-forebay-token": "open"}, {"x-forebay-token": "ä"}):
            answer = await proxy.call(headers=wrong)
            assert (answer.status, answer.error["code"]) == (401, "invalid_token")
        assert (await proxy.call(headers={"x-forebay-token": "open sesame"})).status == 200
    (asked,) = provider.asked
    assert "x-forebay-token" not in asked.headers
