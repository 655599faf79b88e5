from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Callable

import httpx2
import pytest
from pydantic import SecretStr

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.outcomes import RequestOutcomeKind, TokenUsage
from forebay.workers.providers.classification import DefaultClassifier
from forebay.workers.providers.openai_answers import ProviderHTTPError
from forebay.workers.providers.openai_client import OpenAICompatibleClient

KEY = "sk-secret"
PROMPT = "a prompt of a customer"
URL = "https://api.example.com/v1"
CHAT = {
    "choices": [{"message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    "object": "chat.completion",
}
MESSAGES = [{"role": "user", "content": PROMPT}]


def client(handler: Callable[[httpx2.Request], httpx2.Response]) -> OpenAICompatibleClient:
    return OpenAICompatibleClient(
        URL, SecretStr(KEY), 30.0, transport=httpx2.MockTransport(handler)
    )


def answering(status: int, document: object, **headers: str) -> OpenAICompatibleClient:
    return client(lambda _: httpx2.Response(status, json=document, headers=headers))


async def test_a_chat_sends_what_was_given_and_nothing_else() -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        headers = {"X-RateLimit-Remaining-Tokens": "7", "set-cookie": "a=b"}
        return httpx2.Response(200, json=CHAT, headers=headers)

    async with client(handler) as provider:
        answer = await provider.chat("m", MESSAGES, temperature=0.0, max_tokens=5)
    assert (answer.text, answer.status) == ("hello", 200)
    assert answer.usage == TokenUsage(input_tokens=3, output_tokens=2)
    assert answer.headers == {"x-ratelimit-remaining-tokens": "7"}
    (request,) = seen
    assert str(request.url) == f"{URL}/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    body = {"model": "m", "messages": MESSAGES, "temperature": 0.0, "max_tokens": 5}
    assert json.loads(request.content) == body


async def test_response_format_and_user_are_sent() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        assert (body["response_format"], body["user"]) == ({"type": "json_object"}, "u")
        return httpx2.Response(200, json=CHAT)

    async with client(handler) as provider:
        await provider.chat("m", MESSAGES, response_format={"type": "json_object"}, user="u")


async def test_without_a_key_no_authorization_is_sent() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        assert "authorization" not in request.headers
        return httpx2.Response(200, json=CHAT)

    transport = httpx2.MockTransport(handler)
    async with OpenAICompatibleClient(URL + "/", transport=transport) as provider:
        assert (await provider.chat("m", MESSAGES)).text == "hello"


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({}, None),
        ({"prompt_tokens": "three"}, None),
        ({"prompt_tokens": 2, "completion_tokens": None}, TokenUsage(input_tokens=2)),
        ({"prompt_tokens": -2, "completion_tokens": 1}, TokenUsage(output_tokens=1)),
        (None, None),
    ],
)
async def test_a_usage_that_the_provider_did_not_give_is_not_invented(
    usage: object, read: TokenUsage | None
) -> None:
    async with answering(200, {**CHAT, "usage": usage}) as provider:
        assert (await provider.chat("m", MESSAGES)).usage == read


async def test_an_answer_without_content_is_an_empty_text() -> None:
    document = {"choices": [{"message": {"content": None, "refusal": "no"}}]}
    async with answering(200, document) as provider:
        answer = await provider.chat("m", MESSAGES)
    assert (answer.text, answer.usage) == ("", None)


async def test_embeddings_come_in_the_order_of_the_inputs() -> None:
    data = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    async with answering(200, {"data": data, "usage": usage}) as provider:
        answer = await provider.embed("m", ["a", "b"])
        assert answer.vectors == [[1.0], [2.0]]
        assert answer.usage == TokenUsage(input_tokens=4)
        with pytest.raises(ProviderHTTPError, match="unreadable_answer"):
            await provider.embed("m", ["a", "b", "c"])


@pytest.mark.parametrize("name", ["url", "b64_json"])
async def test_images_come_as_they_were_asked_for(name: str) -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        usage = {"input_tokens": 4, "output_tokens": 9}
        return httpx2.Response(200, json={"data": [{name: "one"}, {name: "two"}], "usage": usage})

    async with client(handler) as provider:
        answer = await provider.generate_images("m", PROMPT, n=2, size="64x64")
    assert (answer.images, answer.status) == (["one", "two"], 200)
    assert answer.usage == TokenUsage(input_tokens=4, output_tokens=9)
    assert "one" not in repr(answer)
    (request,) = seen
    assert str(request.url) == f"{URL}/images/generations"
    assert json.loads(request.content) == {"model": "m", "prompt": PROMPT, "n": 2, "size": "64x64"}


@pytest.mark.parametrize("data", [[], [{}], [{"url": "one"}, {"url": None}]])
async def test_an_answer_without_its_images_is_unreadable(data: object) -> None:
    async with answering(200, {"data": data}) as provider:
        with pytest.raises(ProviderHTTPError, match="unreadable_answer"):
            await provider.generate_images("m", PROMPT)


async def test_a_healthcheck_asks_for_the_models_with_the_key() -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"data": []}, headers={"x-request-id": "r"})

    async with client(handler) as provider:
        health = await provider.check_health()
    assert (health.status, health.headers) == (200, {"x-request-id": "r"})
    (request,) = seen
    assert (request.method, str(request.url), request.content) == ("GET", f"{URL}/models", b"")
    assert request.headers["authorization"] == f"Bearer {KEY}"


async def test_a_healthcheck_that_is_refused_says_so() -> None:
    async with answering(401, {}) as provider:
        with pytest.raises(ProviderHTTPError, match="answered 401"):
            await provider.check_health()


async def test_an_error_under_a_good_status_keeps_its_code() -> None:
    document = {"error": {"type": "overloaded_error", "message": PROMPT}}
    async with answering(200, document) as provider:
        with pytest.raises(ProviderHTTPError, match=r"200 \(overloaded_error\)") as caught:
            await provider.chat("m", MESSAGES)
    outcome = DefaultClassifier().classify_exception(caught.value, now=0.0)
    assert outcome.kind is RequestOutcomeKind.RATE_LIMITED


async def test_an_error_shows_status_code_and_remedy_but_neither_body_nor_key() -> None:
    document = {"error": {"message": PROMPT, "code": "invalid_api_key"}}
    headers = {"x-request-id": "r1", "openai-organization": "our-name"}
    async with answering(401, document, **headers) as provider:
        with pytest.raises(ProviderHTTPError) as caught:
            await provider.chat("m", MESSAGES)
    error = caught.value
    assert (error.status, error.error_code) == (401, "invalid_api_key")
    assert error.headers == {"x-request-id": "r1"}
    assert str(error) == (
        f"{URL}/chat/completions answered 401 (invalid_api_key) instead of a result; check the key"
        " in the environment variable that the provider's api_key_env names."
    )


@pytest.mark.parametrize(
    "body", [PROMPT.encode(), b"", json.dumps({"choices": [], "x": PROMPT}).encode(), b"\xff"]
)
async def test_an_unreadable_answer_is_an_error_that_shows_none_of_it(body: bytes) -> None:
    async with client(lambda _: httpx2.Response(200, content=body)) as provider:
        with pytest.raises(ProviderHTTPError, match=r"200 \(unreadable_answer\)") as caught:
            await provider.chat("m", MESSAGES)
    shown = "".join(traceback.format_exception(caught.value))
    assert PROMPT not in shown
    assert caught.value.__cause__ is caught.value.__context__ is None


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    async with answering(307, {}, location="https://elsewhere.example.com/") as provider:
        with pytest.raises(ProviderHTTPError, match="answered 307"):
            await provider.chat("m", MESSAGES)


async def test_an_answer_that_does_not_come_is_a_timeout_of_the_provider() -> None:
    async def never(_: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with client(never) as provider:
        with pytest.raises(TimeoutError, match="timeout_seconds") as caught:
            await provider.chat("m", MESSAGES, timeout_seconds=0.0)
    outcome = DefaultClassifier().classify_exception(caught.value, now=0.0)
    assert outcome.kind is RequestOutcomeKind.PROVIDER_TIMEOUT


async def test_a_refused_connection_reaches_the_caller_as_it_is() -> None:
    refused = httpx2.ConnectError("refused")

    def handler(_: httpx2.Request) -> httpx2.Response:
        raise refused

    async with client(handler) as provider:
        with pytest.raises(httpx2.ConnectError) as caught:
            await provider.chat("m", MESSAGES)
    assert caught.value is refused


def test_the_key_is_in_no_repr() -> None:
    provider = answering(200, CHAT)
    assert repr(provider) == f"OpenAICompatibleClient('{URL}')"
    assert KEY not in repr(vars(provider))


async def test_an_answers_text_is_in_no_repr() -> None:
    async with answering(200, CHAT) as provider:
        assert "hello" not in repr(await provider.chat("m", MESSAGES))


def test_the_connection_pool_limits_nothing() -> None:
    provider = OpenAICompatibleClient(URL)
    assert provider._http._transport._pool._max_connections > 1_000_000


@pytest.mark.parametrize("key", ["", "  ", "two words", "line\nbreak", "schlüssel"])
def test_a_key_that_cannot_be_a_header_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigurationError, match="api_key_env") as caught:
        OpenAICompatibleClient(URL, SecretStr(key))
    assert not key.strip() or key not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com/v1",
        "ftp://api.example.com",
        "http://",
        f"https://user:{KEY}@api.example.com/v1",
        f"https://api.example.com/v1?key={KEY}",
        f"https://api.example.com/v1#{KEY}",
        f"https://api.example.com:port/{KEY}",
    ],
)
def test_a_url_that_cannot_be_called_is_refused_without_showing_a_secret(url: str) -> None:
    with pytest.raises(ConfigurationError, match="expected http") as caught:
        OpenAICompatibleClient(url)
    assert KEY not in "".join(traceback.format_exception_only(caught.value))
