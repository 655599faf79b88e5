"""Which window a request belongs to, from its host, path and body (design 03, *Transport*)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import pytest

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import RequestDomain
from forebay.transports import UNNAMED_MODEL, HttpResolver
from forebay.transports.core import ItemBuilder
from forebay.transports.identity import view_of
from forebay.transports.rules import Rules

OPENAI = "https://api.openai.com/v1"
ANTHROPIC = "https://api.anthropic.com/v1"


def resolved(
    method: str, url: str, body: Any = None, library: Any = httpx2, **providers: str
) -> Any:
    request = library.Request(method, url, json=body)
    return HttpResolver({name.replace("_", "."): to for name, to in providers.items()})(
        view_of(request)
    )


def named(method: str, url: str, body: Any = None, **providers: str) -> tuple[str, str] | None:
    found = resolved(method, url, body, **providers)
    return None if found is None else (str(found.provider_model), str(found.domain))


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_both_libraries_requests_are_read_alike(library: Any) -> None:
    found = resolved("POST", f"{OPENAI}/chat/completions", {"model": "gpt-5"}, library)
    assert (str(found.provider_model), found.domain) == ("openai/gpt-5", RequestDomain.CHAT)


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_stream_in_memory_is_read_and_any_other_is_not(library: Any) -> None:
    def body_of(stream: Any) -> Any:
        headers = {"content-type": "application/json"}
        return view_of(library.Request("POST", OPENAI, headers=headers, stream=stream)).body

    def flowing() -> Iterator[bytes]:
        raise AssertionError
        yield b""

    assert body_of(library.ByteStream(b'{"model": "m"}')) == {"model": "m"}
    assert body_of(flowing()) is None


@pytest.mark.parametrize(
    ("method", "url", "body", "expected"),
    [
        ("POST", f"{OPENAI}/responses", {"model": "gpt-5"}, ("openai/gpt-5", "chat")),
        ("POST", f"{OPENAI}/completions", {"model": "m"}, ("openai/m", "chat")),
        ("POST", f"{OPENAI}/embeddings", {"model": "e"}, ("openai/e", "embedding")),
        ("POST", f"{OPENAI}/images/generations", {"model": "i"}, ("openai/i", "image")),
        ("POST", f"{OPENAI}/images/edits", None, (f"openai/{UNNAMED_MODEL}", "image")),
        ("GET", f"{OPENAI}/models", None, (f"openai/{UNNAMED_MODEL}", "healthcheck")),
        ("POST", f"{ANTHROPIC}/messages", {"model": "claude"}, ("anthropic/claude", "chat")),
        (
            "POST",
            "http://127.0.0.1:8089/v1/chat/completions/",
            {"model": "m"},
            ("127.0.0.1:8089/m", "chat"),
        ),
        (
            "POST",
            "https://x.openai.azure.com/openai/deployments/mine/chat/completions?api-version=1",
            {"messages": []},
            ("x.openai.azure.com/mine", "chat"),
        ),
        (
            "POST",
            "https://x.openai.azure.com/openai/deployments/mine/chat/completions?api-version=1",
            {"model": "gpt-5"},
            ("x.openai.azure.com/mine", "chat"),
        ),
    ],
)
def test_a_call_of_a_model_has_a_window(
    method: str, url: str, body: Any, expected: tuple[str, str]
) -> None:
    assert named(method, url, body) == expected


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", f"{OPENAI}/files"),
        ("POST", f"{OPENAI}/files"),
        ("POST", f"{OPENAI}/batches"),
        ("POST", f"{OPENAI}/threads/t1/messages"),
        ("POST", f"{ANTHROPIC}/messages/count_tokens"),
        ("GET", f"{OPENAI}/chat/completions"),
        ("DELETE", f"{OPENAI}/models/m"),
    ],
)
def test_what_calls_no_model_needs_no_lease(method: str, url: str) -> None:
    assert named(method, url, {"model": "m"} if method == "POST" else None) is None


def test_a_host_can_be_given_its_providers_name() -> None:
    url = "https://gateway.example/v1/chat/completions"
    assert named("POST", url, {"model": "m"}, gateway_example="mine") == ("mine/m", "chat")
    assert named("POST", url.replace("gateway", "GATEWAY"), {"model": "m"}, gateway_example="mine")


@pytest.mark.parametrize("body", [{"model": ""}, {"model": 7}, {}, None])
def test_a_body_that_names_no_model_shares_one_window(body: Any) -> None:
    assert named("POST", f"{OPENAI}/chat/completions", body) == (f"openai/{UNNAMED_MODEL}", "chat")


def test_a_body_that_streams_is_not_read_ahead() -> None:
    def parts() -> Any:
        raise AssertionError("read ahead")
        yield b""

    request = httpx2.Request(
        "POST",
        f"{OPENAI}/chat/completions",
        content=parts(),
        headers={"content-type": "application/json"},
    )
    assert view_of(request).body is None


def test_a_name_that_no_key_can_hold_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ConfigurationError, match="model id"):
        named("POST", f"{OPENAI}/chat/completions", {"model": "m" * 2000})


@pytest.mark.parametrize("providers", [["a"], {"host": 7}, {1: "name"}, {"host": " "}])
def test_wrong_providers_are_refused_where_they_are_given(providers: Any) -> None:
    with pytest.raises(ConfigurationError, match="provider"):
        HttpResolver(providers)


def test_a_view_shows_no_body() -> None:
    request = httpx2.Request("POST", f"{OPENAI}/chat/completions", json={"model": "secret"})
    assert "secret" not in repr(view_of(request))


def test_what_a_call_draws_has_its_estimate_apart_from_the_bound_of_the_output() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 40}], "max_tokens": 100}
    request = httpx2.Request("POST", f"{OPENAI}/chat/completions", json=body)
    asked = ItemBuilder(Rules()).item_of(request)
    assert asked is not None
    item, profile = asked
    assert (item.cost, item.input_estimate, profile.name) == (114, 14, "openai")
