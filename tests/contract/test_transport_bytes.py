"""A response's bytes pass through untouched, whatever they are (design 03, *Transport*)."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import zlib
from typing import Any

import brotli
import pytest
import zstandard

import forebay
from tests.support_answers import completion, events
from tests.support_drivers import BARE
from tests.support_exchange import exchanging
from tests.support_raw_provider import Asked, RawProvider, Reply, begun_stream, chunk, whole

SQUEEZED = {
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "deflate without its header": lambda data: zlib.compress(data, wbits=-zlib.MAX_WBITS),
}
TOKENS = forebay.RequestAdmissionConfig(quotas=forebay.RequestQuotas(tokens_per_day=100_000))
NOISE = os.urandom(300_000)
ASKED = Asked(method="POST", path="/v1/chat/completions", headers={}, body=b"{}")
LAST = b"data: [DONE]\n\n"
QUOTED = b'data: {"choices":[{"delta":{"content":"[DONE] message_stop"}}]}\n\n'


async def raw_bytes(name: str, client: Any, url: str, most: int | None = None) -> tuple[bytes, int]:
    """Return a body as it came over the wire, all or ``most`` bytes of it, and the status."""
    request = client.build_request("POST", f"{url}/chat/completions", json={"model": "m"})
    body = bytearray()

    def read() -> tuple[bytes, int]:
        with contextlib.closing(client.send(request, stream=True)) as response:
            for part in response.iter_raw():
                body.extend(part)
                if len(body) == most:
                    break
            return bytes(body), response.status_code

    if name.endswith("-sync"):
        return await asyncio.to_thread(read)
    response = await client.send(request, stream=True)
    async for part in response.aiter_raw():
        body.extend(part)
        if len(body) == most:
            break
    await response.aclose()
    return bytes(body), response.status_code


async def passed(name: str, redis_url: str, sent: bytes, body: bytes) -> float:
    """Send an answer through a transport; it must arrive to the last byte, as a success.

    Returns:
        What is left of 100,000 tokens a day after it was settled.
    """

    async def answer(_asked: Asked, reply: Reply) -> None:
        await reply.send(sent)

    with RawProvider(answer) as provider:
        async with exchanging(name, redis_url, provider, config=TOKENS) as exchanges:
            found = await raw_bytes(name, exchanges.driver.client, provider.base_url)
            await exchanges.when(in_flight=0)
            level = await exchanges.level(forebay.QuotaBudget.TOKENS_PER_DAY)
        assert found == (body, 200)
        assert exchanges.outcomes == {"success": 1}
        return level


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("encoding", SQUEEZED)
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
async def test_a_compressed_answer_is_read_as_it_passes(
    redis_url: str, name: str, encoding: str, chunked: bool
) -> None:
    body = SQUEEZED[encoding](
        b"".join(events(ASKED)) if chunked else json.dumps(completion(ASKED)).encode()
    )
    header = {} if encoding == "identity" else {"content-encoding": encoding.split(maxsplit=1)[0]}
    if chunked:
        pieces = [body[at : at + 11] for at in range(0, len(body), 11)]
        sent = begun_stream(header) + b"".join(map(chunk, [*pieces, b""]))
    else:
        sent = whole(body, headers=header)
    assert await passed(name, redis_url, sent, body) == pytest.approx(100_000 - 11, abs=1)


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("encoding", ["br", "zstd"])
async def test_an_exhausted_account_is_seen_in_a_compressed_body(
    redis_url: str, provider: RawProvider, name: str, encoding: str
) -> None:
    async def refuses(asked: Asked, reply: Reply) -> None:
        assert encoding in asked.headers["accept-encoding"]  # the client asks for it by itself
        body = SQUEEZED[encoding](json.dumps({"error": {"code": "insufficient_quota"}}).encode())
        await reply.send(whole(body, 429, {"content-encoding": encoding}))

    provider.behaviour = refuses
    async with exchanging(name, redis_url, provider) as exchanges:
        await raw_bytes(name, exchanges.driver.client, provider.base_url)
        seen = await exchanges.when(in_flight=0)
        assert seen.cooldown_remaining_seconds == 0.0
    assert exchanges.outcomes == {"provider_failure": 1}


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/octet-stream"},
        {"content-type": "application/json"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "text/event-stream", "content-encoding": "br"},
    ],
    ids=["binary", "no JSON", "no gzip", "no brotli"],
)
async def test_what_cannot_be_read_passes_all_the_same(
    redis_url: str, name: str, headers: dict[str, str]
) -> None:
    sent = whole(NOISE, headers=headers)
    assert await passed(name, redis_url, sent, NOISE) == pytest.approx(100_000, abs=1)


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize(
    ("pieces", "encoding", "outcome"),
    [
        ([*events(ASKED)[:-1], LAST[:9], LAST[9:]], "identity", "success"),
        ([gzip.compress(b"".join(events(ASKED)))], "gzip", "success"),
        ([brotli.compress(b"".join(events(ASKED)))], "br", "success"),
        ([*events(ASKED)[:2], QUOTED], "identity", "local_cancelled"),
    ],
    ids=["cut", "gzip", "brotli", "quoted"],
)
async def test_a_stream_that_is_closed_after_its_last_event_alone_is_a_success(
    redis_url: str, name: str, pieces: list[bytes], encoding: str, outcome: str
) -> None:
    async def answer(_asked: Asked, reply: Reply) -> None:
        await reply.send(begun_stream({"content-encoding": encoding}))
        for piece in pieces:
            await reply.send(chunk(piece))
        await reply.goes_on.wait()

    with RawProvider(answer) as provider:
        async with exchanging(name, redis_url, provider) as exchanges:
            sent = b"".join(pieces)
            found = await raw_bytes(name, exchanges.driver.client, provider.base_url, len(sent))
            assert found == (sent, 200)
            await exchanges.when(in_flight=0)
    assert exchanges.outcomes == {outcome: 1}
