"""How much of a provider's answer is read, over a real connection."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Awaitable, Callable

import pytest

from forebay.contracts.outcomes import RequestOutcomeKind
from forebay.workers.generators.base import RecordRejected
from forebay.workers.providers.answer_decoding import decoder_of
from forebay.workers.providers.answer_reading import MOST_PARTS
from forebay.workers.providers.classification import DefaultClassifier
from forebay.workers.providers.openai_answers import ProviderHTTPError
from forebay.workers.providers.openai_client import OpenAICompatibleClient
from tests.support_answers import completion
from tests.support_raw_provider import Asked, RawProvider, Reply, begun_stream, chunk, whole
from tests.unit.test_workflow_models import House

MESSAGES = [{"role": "user", "content": "hello"}]
MOST = 100_000
Behaviour = Callable[[Asked, Reply], Awaitable[None]]


def sends(body: bytes, **headers: str) -> Behaviour:
    async def behave(_asked: Asked, reply: Reply) -> None:
        await reply.send(whole(body, headers={n.replace("_", "-"): v for n, v in headers.items()}))

    return behave


def says(text: str) -> bytes:
    asked = Asked(method="POST", path="/v1/chat/completions", headers={}, body=b"")
    return json.dumps(completion(asked, text)).encode()


async def flows_for_ever(_asked: Asked, reply: Reply) -> None:
    await reply.send(begun_stream({"content-type": "application/json"}))
    while True:
        await reply.send(chunk(b" " * 10_000))


async def trickles(_asked: Asked, reply: Reply) -> None:
    await reply.send(begun_stream({"content-type": "application/json"}))
    await reply.send(chunk(b" ") * (MOST_PARTS + 1))
    await reply.goes_on.wait()


async def fault(provider: RawProvider, behaviour: Behaviour) -> ProviderHTTPError:
    provider.behaviour = behaviour
    async with OpenAICompatibleClient(provider.base_url) as client:
        with pytest.raises(ProviderHTTPError) as caught:
            await client.chat("m", MESSAGES, max_answer_bytes=MOST)
    return caught.value


@pytest.mark.parametrize(
    "behaviour",
    [
        sends(says("x" * MOST)),
        sends(gzip.compress(b" " * 50_000_000), content_encoding="gzip"),
        sends(zlib.compress(b" " * 50_000_000), content_encoding="deflate"),
        sends(gzip.compress(says("x")) + b"x" * MOST, content_encoding="gzip"),
        flows_for_ever,
        trickles,
    ],
    ids=["long", "gzip", "deflate", "trailing", "endless", "tiny chunks"],
)
async def test_an_answer_beyond_its_bound_is_given_up_and_not_asked_for_again(
    provider, behaviour
) -> None:
    error = await fault(provider, behaviour)
    assert error.error_code == "answer_too_long"
    classifier = DefaultClassifier()
    outcome = classifier.classify_exception(error, now=0.0)
    assert outcome.kind is RequestOutcomeKind.PROVIDER_FAILURE
    assert not classifier.is_retryable(outcome)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "gzip"])
async def test_an_answer_in_an_encoding_that_was_not_asked_for_is_unreadable(
    provider, encoding
) -> None:
    error = await fault(provider, sends(b"\x1f\x8bnot gzip", content_encoding=encoding))
    assert error.error_code == "unreadable_answer"
    assert provider.asked[0].headers["accept-encoding"] == "gzip, deflate"


async def test_an_error_whose_body_is_too_long_is_still_the_error_that_its_status_says(
    provider,
) -> None:
    async def refuse(_asked: Asked, reply: Reply) -> None:
        await reply.send(whole(b"x" * (MOST + 1), 429, {"retry-after": "3"}))

    error = await fault(provider, refuse)
    assert (error.status, error.error_code) == (429, None)
    assert error.headers == {"retry-after": "3"}


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_answer_within_its_bound_is_read(provider, encoding) -> None:
    compress = gzip.compress if encoding == "gzip" else zlib.compress
    provider.behaviour = sends(compress(says("hello")), content_encoding=encoding)
    async with OpenAICompatibleClient(provider.base_url) as client:
        assert (await client.chat("m", MESSAGES)).text == "hello"


async def test_a_record_whose_answer_is_too_long_is_dropped_after_one_call(provider) -> None:
    from httpx2 import MockTransport, Response

    calls = 0

    def answer(_request: object) -> Response:
        nonlocal calls
        calls += 1
        return Response(200, content=says("x" * 2**20))

    house = House(MockTransport(answer))
    with pytest.raises(RecordRejected) as caught:
        await house.models.chat("writer", MESSAGES)
    await house.close()
    assert caught.value.reason == (
        "answer_too_long: Local/mock answered with more than 1,048,576 bytes, the max_answer_bytes"
        " of model 'writer'"
    )
    assert calls == 1


def test_what_follows_the_end_of_a_compressed_body_is_neither_kept_nor_copied() -> None:
    decoder = decoder_of("gzip")
    assert b"".join(decoder.decode(gzip.compress(b"body"))) == b"body"
    for _ in range(3):
        assert b"".join(decoder.decode(b"more" * 1000)) == b""
    assert len(decoder._inflate.unused_data) == 0


def test_a_body_of_countless_empty_frames_is_given_up() -> None:
    import backports.zstd

    decoder = decoder_of("zstd")
    frames = backports.zstd.compress(b"") * 1000
    assert b"".join(decoder.decode(frames)) == b""
    with pytest.raises(ValueError, match="frames"):
        list(decoder.decode(frames))
