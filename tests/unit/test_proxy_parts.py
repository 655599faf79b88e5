"""``forebay proxy`` apart from its calls: where they go, which headers, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.commands.proxy import proxy_command
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey, RequestGroupSpec, RequestResourceKey
from forebay.contracts.requests import (
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestDenialReason,
)
from forebay.coordinator.requests.denials import denial
from forebay.proxy.error_responses import LONGEST_RETRY_SECONDS, error_response_of
from forebay.proxy.headers import request_headers, response_headers
from forebay.proxy.upstreams import (
    Destination,
    UnknownUpstreamError,
    Upstreams,
    parse_upstream,
)

OPENAI, ANTHROPIC, GROQ = (
    "https://api.openai.com",
    "https://api.anthropic.com",
    "groq=https://api.groq.com/openai/v1",
)
CHAT = RequestResourceKey(provider_model=ProviderModelKey(provider_name="p", model_id="m"))


def destination_of(upstreams: list[str], path: str, **headers: str) -> Destination:
    """Return the destination of a call."""
    raw_path, _, query = path.partition("?")
    scope = {"raw_path": raw_path.encode(), "query_string": query.encode()}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Upstreams([parse_upstream(one) for one in upstreams]).destination_of(scope, named)


def sent_to(upstreams: list[str], path: str, **headers: str) -> tuple[str, bytes]:
    """Return the name and the path of where a call goes."""
    chosen = destination_of(upstreams, path, **headers)
    return chosen.upstream.name, chosen.raw_path


@pytest.mark.parametrize(
    ("text", "name", "authority", "path"),
    [
        (OPENAI, "openai", "api.openai.com", b""),
        (f"{OPENAI}/v1/", "openai", "api.openai.com", b""),
        (f"{ANTHROPIC}:443", "anthropic", "api.anthropic.com", b""),
        (GROQ, "groq", "api.groq.com", b"/openai"),
        ("http://127.0.0.1:8089", "127.0.0.1:8089", "127.0.0.1:8089", b""),
        ("http://gateway.example/?", "gateway.example", "gateway.example", b""),
        ("six=http://[::1]:8089/v1", "six", "[::1]:8089", b""),
    ],
)
def test_an_upstream_is_a_name_and_where_it_is(
    text: str, name: str, authority: str, path: bytes
) -> None:
    found = parse_upstream(text)
    assert (found.name, found.authority, found.path) == (name, authority, path)


@pytest.mark.parametrize(
    "text",
    [
        "api.openai.com",
        "ftp://api.openai.com",
        "https://",
        "https://key@api.openai.com",
        "https://api.openai.com?api-key=1",
        "https://api.openai.com:port",
        "http://[::1",
        "a/b=https://api.openai.com",
        "t=https://api.openai.com",
        "v1=https://api.openai.com",
        "http://[::1]:8089",
    ],
)
def test_a_wrong_upstream_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--upstream .*expected .*; (correct|write)"):
        parse_upstream(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://sk-key@api.openai.com",
        "https://user:sk-key@api.openai.com/v1",
        "a=https://api.openai.com?api-key=sk-key",
        "https://api.openai.com/v1#sk-key",
        "https://api.openai.com:port?key=sk-key",
        "sk-key@api.openai.com",
    ],
)
def test_a_refused_upstream_is_named_without_its_key(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--upstream .*api\.openai\.com") as refused:
        parse_upstream(text)
    assert "sk-key" not in str(refused.value)


@pytest.mark.parametrize(
    ("upstreams", "says"),
    [
        ([], "no upstream was given"),
        ([GROQ, "groq=https://groq.example"], "two upstreams are named 'groq'"),
        ([OPENAI, "other=https://api.openai.com/v1"], "two upstreams are at api.openai.com"),
    ],
)
def test_upstreams_that_cannot_be_told_apart_are_refused(upstreams: list[str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Upstreams([parse_upstream(one) for one in upstreams])


def test_a_call_goes_where_its_path_says_else_by_its_api() -> None:
    three = [ANTHROPIC, OPENAI, GROQ]
    messages = {"anthropic_version": "2023-06-01"}
    assert sent_to(three, "/v1/chat/completions?a=1") == ("openai", b"/v1/chat/completions?a=1")
    assert sent_to(three, "/v1/messages", **messages) == ("anthropic", b"/v1/messages")
    assert sent_to(three, "/groq/v1/models") == ("groq", b"/openai/v1/models")
    assert sent_to(three, "/t/a%2Fb/groq/v1/models") == ("groq", b"/openai/v1/models")
    assert sent_to(three, "/groq", **messages) == ("groq", b"/openai/")
    assert sent_to([GROQ], "/v1/messages", **messages) == ("groq", b"/openai/v1/messages")
    assert sent_to([ANTHROPIC], "/v1/models") == ("anthropic", b"/v1/models")
    assert sent_to([OPENAI], "//evil.example/x") == ("openai", b"//evil.example/x")
    assert sent_to(three, "/t/a/v1/messages") == ("anthropic", b"/v1/messages")
    assert sent_to(three, "/v1beta/models") == ("openai", b"/v1beta/models")
    assert sent_to([OPENAI], "/api/chat") == ("openai", b"/api/chat")


@pytest.mark.parametrize("path", ["/grok/v1/models", "/t/atlas/grok/v1/models", "/", "/t/atlas"])
def test_a_path_of_no_upstream_goes_to_none_of_several(path: str) -> None:
    with pytest.raises(UnknownUpstreamError, match=r"expected an upstream \(openai, groq\)"):
        sent_to([OPENAI, GROQ], path)


@pytest.mark.parametrize(
    ("path", "location", "told"),
    [
        ("/v1/x/", "https://api.openai.com/v1/x", "/v1/x"),
        ("/t/a%2Fb/v1/x/", "/v1/x?y=1", "/t/a%2Fb/v1/x?y=1"),
        ("/t/a/groq/v1/x/", "https://api.groq.com/openai/v1/x", "/t/a/groq/v1/x"),
        ("/groq/v1/x/", "https://api.groq.com/console", "https://api.groq.com/console"),
        ("/v1/x/", "https://files.example/v1/x", "https://files.example/v1/x"),
        ("/v1/x/", "https://api.openai.com.example/x", "https://api.openai.com.example/x"),
        ("/v1/x/", "//files.example/x", "//files.example/x"),
        ("/v1/x/", "y", "y"),
    ],
)
def test_a_redirect_within_the_upstream_stays_with_the_proxy(
    path: str, location: str, told: str
) -> None:
    destination = destination_of([OPENAI, GROQ], path)
    assert destination.location_for_client(location.encode()) == told.encode()


@pytest.mark.parametrize(
    ("path", "headers", "group"),
    [
        ("/v1/x", {}, None),
        ("/t/atlas/v1/x", {}, RequestGroupSpec(key="atlas")),
        ("/v1/x", {"x-forebay-tenant": "a"}, RequestGroupSpec(key="a")),
        ("/t/b/v1/x", {"x-forebay-tenant": "a"}, RequestGroupSpec(key="b")),
        ("/t/Z%C3%BCrich/v1/x", {}, RequestGroupSpec(key="Z\u00fcrich")),
        ("/v1/x", {"x-forebay-tenant": "Z\u00c3\u00bcrich"}, RequestGroupSpec(key="Z\u00fcrich")),
        ("/v1/x", {"x-forebay-tenant": "Z\u00fcrich"}, RequestGroupSpec(key="Z\u00fcrich")),
        ("/t/b/v1/x", {"x-forebay-weight": "2.5"}, RequestGroupSpec(key="b", weight=2.5)),
    ],
)
def test_the_tenant_of_the_path_goes_before_that_of_the_header(
    path: str, headers: dict[str, str], group: RequestGroupSpec | None
) -> None:
    scope = {"raw_path": path.encode(), "query_string": b""}
    assert Upstreams([parse_upstream(OPENAI)]).destination_of(scope, headers).group == group


@pytest.mark.parametrize("path", ["/t//v1/x", f"/t/{'x' * 2000}/v1/x"])
def test_a_tenant_that_no_key_can_hold_is_refused(path: str) -> None:
    scope = {"raw_path": path.encode(), "query_string": b""}
    with pytest.raises(ConfigurationError, match="request group"):
        Upstreams([parse_upstream(OPENAI)]).destination_of(scope, {})


def test_a_tenant_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the tenant '%FF' of the path is no UTF-8"):
        sent_to([OPENAI], "/t/%FF/v1/x")


@pytest.mark.parametrize(
    "path",
    [
        "/../admin",
        "/groq/v1/%2e%2E/%2e./admin",
        "/t/atlas/v1/..%2f..%5cadmin",
        "/v1/./models",
        "/v1/models/..",
    ],
)
def test_a_path_that_may_lead_out_of_the_upstreams_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"has a part `\.` or `\.\.`.*; write"):
        sent_to([GROQ], path)


@pytest.mark.parametrize("path", ["/v1/models/a..b", "/v1/...", "/t/../v1/x", "/v1/x?a=/../b"])
def test_dots_that_lead_nowhere_pass(path: str) -> None:
    assert sent_to([OPENAI], path) == ("openai", path.removeprefix("/t/..").encode())


def test_an_empty_token_is_refused_and_not_taken_for_none() -> None:
    options = ["--url", "redis://localhost", "--upstream", OPENAI, "--token", ""]
    with pytest.raises(ConfigurationError, match=r"--token is empty.*; give one"):
        proxy_command.main(options, standalone_mode=False)


def test_a_length_beside_a_chunked_encoding_is_not_passed_on() -> None:
    received = [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked"), (b"X-A", b"1")]
    assert response_headers(received, {}, bytes) == [(b"x-a", b"1")]


def test_headers_that_come_twice_stay_two() -> None:
    twice = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    passed = response_headers(twice, {"queue-ms": "3"}, bytes)
    assert passed == [*twice, (b"x-forebay-queue-ms", b"3")]
    accepts = [(b"accept", b"a"), (b"accept", b"b")]
    assert request_headers(accepts, "h:1", b"") == [(b"host", b"h:1"), *accepts]


@pytest.mark.parametrize(
    ("reason", "hint", "status", "retry_after"),
    [
        (RequestDenialReason.QUEUE_TIMEOUT, None, 429, 1),
        (RequestDenialReason.QUEUE_TIMEOUT, 2.1, 429, 3),
        (RequestDenialReason.COOLDOWN, 9000.0, 429, LONGEST_RETRY_SECONDS),
        (RequestDenialReason.SHUTDOWN, None, 503, 1),
        (RequestDenialReason.HARD_POLICY_DENIAL, None, 400, None),
    ],
)
def test_a_denial_is_answered_so_that_an_sdk_behaves(
    reason: RequestDenialReason, hint: float | None, status: int, retry_after: int | None
) -> None:
    denied = RequestAdmissionDenied(
        item=RequestAdmissionItem(resource=CHAT), reason=reason, retry_after_seconds=hint
    )
    error: Any = error_response_of(denial(denied), "p")
    assert (error.status, error.retry_after_seconds) == (status, retry_after)


def test_an_error_that_nobody_foresaw_is_not_guessed_at() -> None:
    assert error_response_of(RuntimeError("x"), "p") is None
