"""An OpenAI-compatible client with a method per domain; of these, runs use ``chat`` (design 05).

It makes one call and no retry: retries are attempts of their own, each under its own lease, and
belong to the executor (design 01, *Invariants* 8). Its connection pool is unbounded, since no
transport pool size is a capacity control (design 01, *What it is not*).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, TypeVar

import httpx2
from pydantic import SecretStr, ValidationError

from forebay.contracts.errors import ConfigurationError
from forebay.workers.providers.answer_bodies import ANSWER_TOO_LONG, AnswerReader
from forebay.workers.providers.answer_reading import (
    ACCEPTED_ENCODINGS,
    BodyTooLong,
    BodyUnreadable,
    read_body,
)
from forebay.workers.providers.faults import Fault, fault_in_body
from forebay.workers.providers.headers import (
    error_code_of,
    kept_headers,
    lowered_headers,
    with_stated_wait,
)
from forebay.workers.providers.openai_answers import (
    UNREADABLE,
    ChatCompletion,
    Embeddings,
    Images,
    ProviderAnswer,
    ProviderCompletion,
    ProviderEmbeddings,
    ProviderHTTPError,
    ProviderImages,
    Wire,
)
from forebay.workers.providers.registry import profile_of_url
from forebay.workers.providers.token_usage import token_usage

_WireT = TypeVar("_WireT", bound=Wire)

DEFAULT_TIMEOUT_SECONDS = 120.0
CONNECT_TIMEOUT_SECONDS = 10.0
"""Connecting is given up before the whole call is, so that a dead host shows as such."""
MOST_ANSWER_BYTES = 2**20
"""Default bound of a chat completion's body, for some 200,000 tokens."""
_MOST_VECTOR_AND_IMAGE_BYTES = 64 * 2**20


class OpenAICompatibleClient:
    """Calls one provider with one key; to be closed with `aclose` or ``async with``.

    Args:
        base_url: with the version, as in ``https://api.openai.com/v1``; no user, query or fragment.
        api_key: sent as a bearer token; None for servers without keys.
        timeout_seconds: bound of a whole call, where the call names none.
        transport: replaces the network; for tests.

    Raises:
        ConfigurationError: the URL or the key cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        api_key: SecretStr | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._base_url = _checked_url(base_url)
        self._profile = profile_of_url(self._base_url)
        self._timeout_seconds = timeout_seconds
        # Not "if api_key": an empty secret is false, and is to be refused, not left out.
        bearer = None if api_key is None else f"Bearer {_checked_key(api_key)}"
        headers = {"accept-encoding": ACCEPTED_ENCODINGS}
        self._http = httpx2.AsyncClient(
            headers=headers if bearer is None else headers | {"authorization": bearer},
            follow_redirects=False,  # nobody here has chosen the host that they lead to
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
            transport=transport,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; calls that are under way fail."""
        await self._http.aclose()

    async def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        response_format: Mapping[str, Any] | None = None,
        user: str | None = None,
        timeout_seconds: float | None = None,
        max_answer_bytes: int = MOST_ANSWER_BYTES,
    ) -> ProviderCompletion:
        """Ask for one chat completion; arguments that are None are not sent.

        Raises:
            ProviderHTTPError: any answer but a readable 2xx; one that is longer than
                ``max_answer_bytes`` has the error code ``answer_too_long``.
            TimeoutError: no full answer within the timeout.
            httpx2.TransportError: no connection, or a broken one.
        """
        body = _without_none(
            model=model,
            messages=[dict(message) for message in messages],
            temperature=temperature,
            max_tokens=max_tokens,
            response_format=response_format,
            user=user,
        )
        response, content = await self._send(
            "POST", "/chat/completions", body, timeout_seconds, max_answer_bytes
        )
        completion = self._read(ChatCompletion, response, content)
        text = completion.choices[0].message.content or ""
        is_cut = completion.choices[0].finish_reason == "length"
        return ProviderCompletion(
            text=text, is_cut=is_cut, **_answer_fields(response, completion.usage)
        )

    async def embed(
        self, model: str, inputs: Sequence[str], *, timeout_seconds: float | None = None
    ) -> ProviderEmbeddings:
        """Ask for one vector per input; raises as `chat` does."""
        body = {"model": model, "input": list(inputs), "encoding_format": "float"}
        response, content = await self._send("POST", "/embeddings", body, timeout_seconds)
        found = self._read(Embeddings, response, content)
        ordered = sorted(found.data, key=lambda item: item.index)
        if [item.index for item in ordered] != list(range(len(inputs))):
            raise self._error(response, Fault(UNREADABLE))
        vectors = [item.embedding for item in ordered]
        return ProviderEmbeddings(vectors=vectors, **_answer_fields(response, found.usage))

    async def generate_images(
        self,
        model: str,
        prompt: str,
        *,
        n: int | None = None,
        size: str | None = None,
        response_format: str | None = None,
        user: str | None = None,
        timeout_seconds: float | None = None,
    ) -> ProviderImages:
        """Ask for images of a prompt; arguments that are None are not sent; raises as `chat`."""
        body = _without_none(
            model=model, prompt=prompt, n=n, size=size, response_format=response_format, user=user
        )
        response, content = await self._send("POST", "/images/generations", body, timeout_seconds)
        found = self._read(Images, response, content)
        images = [image.url or image.b64_json or "" for image in found.data]
        if "" in images:
            raise self._error(response, Fault(UNREADABLE))
        return ProviderImages(images=images, **_answer_fields(response, found.usage))

    async def check_health(self, *, timeout_seconds: float | None = None) -> ProviderAnswer:
        """Ask for the list of models, which checks address and key and costs no tokens.

        Raises as `chat` does.
        """
        response, _ = await self._send("GET", "/models", None, timeout_seconds)
        return ProviderAnswer(**_answer_fields(response, None))

    async def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        timeout_seconds: float | None,
        max_answer_bytes: int = _MOST_VECTOR_AND_IMAGE_BYTES,
    ) -> tuple[httpx2.Response, bytes]:
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        connect = httpx2.Timeout(None, connect=min(seconds, CONNECT_TIMEOUT_SECONDS))
        try:
            # httpx bounds each read; only this bounds an answer that trickles in.
            async with (
                asyncio.timeout(seconds),
                self._http.stream(
                    method, self._base_url + path, json=body, timeout=connect
                ) as response,
            ):
                content, error_code = await _content_of(response, max_answer_bytes)
        except TimeoutError as error:
            raise TimeoutError(
                f"{self._base_url}{path} did not answer within {seconds:g} s;"
                " raise the model's timeout_seconds if its answers take longer."
            ) from error
        if not response.is_success:
            raise self._error(response, fault_in_body(content, self._profile, now=time.time()))
        if error_code is not None:
            raise self._error(response, Fault(error_code))
        return response, content

    def _read(self, wire: type[_WireT], response: httpx2.Response, content: bytes) -> _WireT:
        # Not raised from the ValidationError: that holds the body.
        with suppress(ValidationError):
            return wire.model_validate_json(content)
        # Some providers tell an overload or a fault in a body under a good status.
        reader = AnswerReader("application/json", "", self._profile)
        reader.feed(content)
        fault = reader.fault
        raise self._error(response, fault if fault.code else Fault(UNREADABLE))

    def _error(self, response: httpx2.Response, fault: Fault) -> ProviderHTTPError:
        headers = lowered_headers(response.headers)
        code = error_code_of(response.status_code, headers, fault, self._profile)
        headers = dict(with_stated_wait(headers, fault, self._profile, time.time()))
        return ProviderHTTPError(response.status_code, headers, code, url=str(response.request.url))


async def _content_of(response: httpx2.Response, most_bytes: int) -> tuple[bytes, str | None]:
    """Return the body, or b"" and the error code of an unreadable body."""
    try:
        return await read_body(response, most_bytes), None
    except BodyTooLong:
        return b"", ANSWER_TOO_LONG
    except BodyUnreadable:
        return b"", UNREADABLE


def _answer_fields(response: httpx2.Response, usage: object) -> dict[str, Any]:
    """Return the fields of `ProviderAnswer`."""
    return {
        "usage": token_usage(usage),
        "status": response.status_code,
        "headers": kept_headers(response.headers),
    }


def _without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _checked_url(base_url: str) -> str:
    """Return the URL without a trailing slash; messages show none of it, it may hold a secret."""
    expected = "expected http:// or https:// with a host, as in https://api.openai.com/v1"
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise ConfigurationError(f"a provider's base_url is no URL, {expected}.") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError(f"a provider's base_url cannot be called, {expected}.")
    if url.userinfo or url.query or url.fragment:
        raise ConfigurationError(
            f"the base_url of {url.host} holds a user, query or fragment, {expected}; name the"
            " environment variable that holds the key in api_key_env."
        )
    return str(url).rstrip("/")


def _checked_key(api_key: SecretStr) -> str:
    """Return the key if it can be a header; otherwise the HTTP library's error would quote it."""
    key = api_key.get_secret_value().strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(
            "a provider's API key is empty or holds blanks, control or non-ASCII characters;"
            " set the environment variable that api_key_env names to the key alone."
        )
    return key
