from __future__ import annotations

import asyncio
import email.message
import io
import socket
import ssl
import urllib.error

import httpx2
import openai
import pytest

from forebay.contracts.errors import CoordinatorFull, CoordinatorUnavailable, MembershipLost
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.outcomes import (
    RateLimitScope,
    RequestOutcomeKind,
    RequestReleaseOutcome,
    TokenUsage,
)
from forebay.contracts.requests import (
    RequestAdmissionDenied,
    RequestAdmissionError,
    RequestAdmissionItem,
    RequestDenialReason,
)
from forebay.workers.providers.classification import Classifier, DefaultClassifier
from forebay.workers.providers.openai_answers import ProviderHTTPError

NOW = 1_445_412_480.0  # Wed, 21 Oct 2015 07:28:00 GMT
KINDS = RequestOutcomeKind
CLASSIFIER: Classifier = DefaultClassifier()
SECRET = "the prompt and sk-secret"


def denied(reason: RequestDenialReason) -> RequestAdmissionError:
    resource = RequestResourceKey(provider_model=ProviderModelKey(provider_name="p", model_id="m"))
    item = RequestAdmissionItem(resource=resource)
    return RequestAdmissionError(RequestAdmissionDenied(item=item, reason=reason), "denied")


def answered(status: int, code: str | None = None, **headers: str) -> httpx2.Response:
    body = {"error": {"message": SECRET, "type": None, "code": code}}
    return httpx2.Response(
        status, headers=headers, json=body, request=httpx2.Request("POST", "http://p/v1")
    )


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (200, KINDS.SUCCESS, False),
        (299, KINDS.SUCCESS, False),
        (301, KINDS.PROVIDER_FAILURE, False),
        (400, KINDS.PROVIDER_FAILURE, False),
        (401, KINDS.PROVIDER_FAILURE, False),
        (408, KINDS.PROVIDER_FAILURE, False),
        (428, KINDS.PROVIDER_FAILURE, False),
        (429, KINDS.RATE_LIMITED, True),
        (430, KINDS.PROVIDER_FAILURE, False),
        (500, KINDS.PROVIDER_FAILURE, True),
        (502, KINDS.PROVIDER_FAILURE, True),
        (503, KINDS.RATE_LIMITED, True),
        (504, KINDS.PROVIDER_FAILURE, True),
        (529, KINDS.RATE_LIMITED, True),
        (599, KINDS.PROVIDER_FAILURE, True),
    ],
)
def test_each_status_has_its_outcome(status: int, kind: KINDS, retryable: bool) -> None:
    outcome = CLASSIFIER.classify_response(status, {}, None, now=NOW)
    assert (outcome.kind, outcome.provider_status) == (kind, status)
    assert CLASSIFIER.is_retryable(outcome) is retryable


@pytest.mark.parametrize(
    ("headers", "code", "budget"),
    [
        ({"x-ratelimit-remaining-requests": "0"}, None, "requests_per_minute"),
        (
            {"X-RateLimit-Limit-Tokens": "60000", "X-RateLimit-Remaining-Tokens": "0"},
            "rate_limit_exceeded",
            "tokens_per_minute",
        ),
        (
            {
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "0",
            },
            "rate_limit_error",
            "requests_per_minute",
        ),
        (
            {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "7h12m"},
            None,
            "requests_per_day",
        ),
        ({}, "daily_limit_exceeded", None),
        ({}, "tokens_per_day", None),
        ({}, "request_quota_exceeded", None),
    ],
)
def test_refusal_that_names_a_budget_says_so_beside_its_refill(
    headers: dict[str, str], code: str | None, budget: str | None
) -> None:
    outcome = CLASSIFIER.classify_response(429, {"retry-after": "90000", **headers}, code, now=NOW)
    assert (outcome.kind, outcome.scope) == (KINDS.RATE_LIMITED, RateLimitScope.QUOTA)
    assert outcome.retry_after_seconds == 90_000.0
    assert outcome.diagnostics.get("budget") == budget


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-ratelimit-remaining-requests": "1"}, None),
        ({"x-ratelimit-limit-requests": "60"}, "rate_limit_exceeded"),
        ({"x-ratelimit-remaining-requests": "none"}, "overloaded_error"),
    ],
)
def test_refusal_that_names_no_exhausted_budget_is_load(
    headers: dict[str, str], code: str | None
) -> None:
    outcome = CLASSIFIER.classify_response(429, {"retry-after": "3", **headers}, code, now=NOW)
    assert (outcome.kind, outcome.scope) == (KINDS.RATE_LIMITED, None)


def test_scope_is_of_refusals_alone() -> None:
    exhausted = {"x-ratelimit-remaining-requests": "0"}
    for status, code in ((200, None), (500, None), (429, "insufficient_quota")):
        assert CLASSIFIER.classify_response(status, exhausted, code, now=NOW).scope is None


def test_exception_of_an_sdk_keeps_the_scope_of_its_answer() -> None:
    response = answered(429, **{"x-ratelimit-remaining-requests": "0", "retry-after": "5"})
    error = openai.RateLimitError("refused", response=response, body=None)
    assert CLASSIFIER.classify_exception(error, now=NOW).scope is RateLimitScope.QUOTA


@pytest.mark.parametrize("status", [403, 429, 503])
@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached"])
def test_an_exhausted_account_is_no_overload_and_not_retried(status: int, code: str) -> None:
    outcome = CLASSIFIER.classify_response(status, {"retry-after": "20"}, code, now=NOW)
    assert outcome.kind is KINDS.PROVIDER_FAILURE
    assert outcome.retry_after_seconds is None
    assert outcome.diagnostics["error_code"] == code
    assert not CLASSIFIER.is_retryable(outcome)


def test_a_provider_that_says_not_to_retry_is_believed() -> None:
    outcome = CLASSIFIER.classify_response(429, {"X-Should-Retry": "false"}, None, now=NOW)
    assert outcome.kind is KINDS.RATE_LIMITED
    assert not CLASSIFIER.is_retryable(outcome)


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (httpx2.ConnectError(SECRET), KINDS.PROVIDER_FAILURE, True),
        (httpx2.ConnectTimeout(SECRET), KINDS.PROVIDER_FAILURE, True),
        (httpx2.ReadError(SECRET), KINDS.PROVIDER_FAILURE, True),
        (httpx2.RemoteProtocolError(SECRET), KINDS.PROVIDER_FAILURE, True),
        (httpx2.ReadTimeout(SECRET), KINDS.PROVIDER_TIMEOUT, True),
        (httpx2.WriteTimeout(SECRET), KINDS.PROVIDER_TIMEOUT, True),
        (httpx2.PoolTimeout(SECRET), KINDS.LOCAL_TIMEOUT, True),
        (httpx2.LocalProtocolError(SECRET), KINDS.UNEXPECTED_EXCEPTION, False),
        (TimeoutError(SECRET), KINDS.PROVIDER_TIMEOUT, True),
        (ConnectionResetError(SECRET), KINDS.PROVIDER_FAILURE, True),
        (socket.gaierror(SECRET), KINDS.PROVIDER_FAILURE, True),
        (ssl.SSLError(SECRET), KINDS.PROVIDER_FAILURE, True),
        (FileNotFoundError(SECRET), KINDS.UNEXPECTED_EXCEPTION, False),
        (ValueError(SECRET), KINDS.UNEXPECTED_EXCEPTION, False),
        (KeyboardInterrupt(SECRET), KINDS.UNEXPECTED_EXCEPTION, False),
        (asyncio.CancelledError(SECRET), KINDS.LOCAL_CANCELLED, False),
        (denied(RequestDenialReason.QUEUE_TIMEOUT), KINDS.LOCAL_TIMEOUT, True),
        (denied(RequestDenialReason.HARD_POLICY_DENIAL), KINDS.LOCAL_CANCELLED, False),
        (MembershipLost(SECRET), KINDS.LOCAL_CANCELLED, True),
        (CoordinatorUnavailable(SECRET), KINDS.LOCAL_CANCELLED, True),
        (CoordinatorFull(SECRET), KINDS.LOCAL_CANCELLED, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_each_exception_has_its_outcome(error: BaseException, kind: KINDS, retryable: bool) -> None:
    outcome = CLASSIFIER.classify_exception(error, now=NOW)
    assert outcome.kind is kind
    assert CLASSIFIER.is_retryable(outcome) is retryable
    assert outcome.diagnostics["error_type"] == type(error).__qualname__
    assert SECRET not in repr(outcome)


def test_no_connection_in_time_gives_the_whole_cost_back() -> None:
    error = httpx2.PoolTimeout("full")
    assert CLASSIFIER.classify_exception(error, now=NOW).usage == TokenUsage()


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        httpx2.ReadTimeout("slow"),
        httpx2.ConnectError("refused"),
        asyncio.CancelledError(),
    ],
)
def test_what_may_have_been_sent_gives_no_cost_back(error: Exception) -> None:
    assert CLASSIFIER.classify_exception(error, now=NOW).usage is None


@pytest.mark.parametrize(
    "error",
    [
        httpx2.HTTPStatusError(
            SECRET, request=None, response=answered(429, "slow", retry_after="2")
        ),
        openai.RateLimitError(SECRET, response=answered(429, "slow"), body=None),
        ProviderHTTPError(429, {"retry-after": "2"}, "slow"),
    ],
    ids=["httpx", "sdk", "own"],
)
def test_an_exception_with_an_answer_is_classified_by_it(error: Exception) -> None:
    outcome = CLASSIFIER.classify_exception(error, now=NOW)
    assert (outcome.kind, outcome.provider_status) == (KINDS.RATE_LIMITED, 429)
    assert outcome.diagnostics["error_code"] == "slow"
    assert SECRET not in repr(outcome)


def test_the_hint_of_an_sdks_exception_is_read() -> None:
    response = answered(429, **{"retry-after-ms": "40"})
    error = openai.RateLimitError("no", response=response, body=None)
    assert CLASSIFIER.classify_exception(error, now=NOW).retry_after_seconds == 0.04


@pytest.mark.parametrize(
    ("status", "code", "kind", "retryable"),
    [
        (200, "overloaded_error", KINDS.RATE_LIMITED, True),
        (200, "rate_limit_exceeded", KINDS.RATE_LIMITED, True),
        (200, "429", KINDS.RATE_LIMITED, True),
        (500, "overloaded_error", KINDS.RATE_LIMITED, True),
        (200, "server_error", KINDS.PROVIDER_FAILURE, True),
        (200, "insufficient_quota", KINDS.PROVIDER_FAILURE, False),
        (400, "server_error", KINDS.PROVIDER_FAILURE, False),
    ],
)
def test_a_code_in_the_body_says_more_than_the_status(
    status: int, code: str, kind: KINDS, retryable: bool
) -> None:
    outcome = CLASSIFIER.classify_response(status, {}, code, now=NOW)
    assert (outcome.kind, outcome.diagnostics["error_code"]) == (kind, code)
    assert CLASSIFIER.is_retryable(outcome) is retryable


def test_an_error_that_an_sdk_raises_within_a_stream_is_classified_by_its_code() -> None:
    body = {"message": SECRET, "type": "server_error", "code": "rate_limit_exceeded"}
    error = openai.APIError(SECRET, httpx2.Request("POST", "http://p"), body=body)
    outcome = CLASSIFIER.classify_exception(error, now=NOW)
    assert outcome.kind is KINDS.RATE_LIMITED
    assert SECRET not in repr(outcome)
    # Anthropic's SDK raises it with the stream's own answer, whose body was consumed.
    answer = httpx2.Response(200, headers={"retry-after": "3"}, stream=httpx2.ByteStream(b""))
    body = {"type": "error", "error": {"type": "overloaded_error", "message": SECRET}}
    error = openai.APIStatusError(SECRET, response=_with_request(answer), body=body)
    outcome = CLASSIFIER.classify_exception(error, now=NOW)
    assert (outcome.kind, outcome.retry_after_seconds) == (KINDS.RATE_LIMITED, 3.0)


def _with_request(response: httpx2.Response) -> httpx2.Response:
    response.request = httpx2.Request("POST", "http://p")
    return response


def test_an_answer_that_a_subclass_classifies_otherwise_is_so_in_exceptions_too() -> None:
    class Own(DefaultClassifier):
        def classify_response(
            self, status: int, headers: object, body_error_code: str | None = None, *, now: float
        ) -> RequestReleaseOutcome:
            assert body_error_code == "too_busy"
            return RequestReleaseOutcome(kind=KINDS.RATE_LIMITED, provider_status=status)

    error = ProviderHTTPError(200, {}, "too_busy")
    outcome = Own().classify_exception(error, now=NOW)
    assert (outcome.kind, outcome.provider_status) == (KINDS.RATE_LIMITED, 200)


def _foreign(package: str, *names: str) -> type[Exception]:
    """Make a class as a library that is not installed here has it, last name first in its mro."""
    made: type[Exception] = OSError
    for name in names:
        made = type(name, (made,), {"__module__": f"{package}.exceptions"})
    return made


@pytest.mark.parametrize(
    ("cls", "kind"),
    [
        (_foreign("requests", "RequestException", "ConnectionError"), KINDS.PROVIDER_FAILURE),
        (
            _foreign("requests", "RequestException", "Timeout", "ReadTimeout"),
            KINDS.PROVIDER_TIMEOUT,
        ),
        (_foreign("requests", "Timeout", "ConnectTimeout"), KINDS.PROVIDER_FAILURE),
        (
            _foreign("aiohttp", "ClientConnectionError", "ServerTimeoutError"),
            KINDS.PROVIDER_TIMEOUT,
        ),
        (_foreign("aiohttp", "ClientConnectionError", "ClientOSError"), KINDS.PROVIDER_FAILURE),
        (_foreign("aiohttp", "ClientPayloadError"), KINDS.PROVIDER_FAILURE),
        (_foreign("mine", "ConnectionError"), KINDS.UNEXPECTED_EXCEPTION),
        (urllib.error.URLError, KINDS.PROVIDER_FAILURE),
    ],
)
def test_connection_errors_of_other_libraries_are_known(cls: type[Exception], kind: KINDS) -> None:
    assert CLASSIFIER.classify_exception(cls("no"), now=NOW).kind is kind


def test_the_hint_of_urllibs_error_is_read() -> None:
    headers = email.message.Message()
    headers["Retry-After"] = "7"
    with urllib.error.HTTPError("http://p", 429, "no", headers, io.BytesIO()) as error:
        outcome = CLASSIFIER.classify_exception(error, now=NOW)
    assert (outcome.kind, outcome.retry_after_seconds) == (KINDS.RATE_LIMITED, 7.0)


def test_the_hint_of_aiohttps_error_is_read() -> None:
    error = OSError("ClientResponseError")
    error.status, error.headers = 503, {"Retry-After": "7"}
    outcome = CLASSIFIER.classify_exception(error, now=NOW)
    assert (outcome.kind, outcome.retry_after_seconds) == (KINDS.RATE_LIMITED, 7.0)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (openai.APITimeoutError(httpx2.Request("POST", "http://p")), KINDS.PROVIDER_TIMEOUT),
        (
            openai.APIConnectionError(request=httpx2.Request("POST", "http://p")),
            KINDS.PROVIDER_FAILURE,
        ),
    ],
)
def test_an_sdks_connection_errors_are_known(error: Exception, kind: KINDS) -> None:
    assert CLASSIFIER.classify_exception(error, now=NOW).kind is kind


def test_the_body_of_an_answer_that_nobody_read_is_left_alone() -> None:
    async def stream() -> object:
        yield b"{}"

    response = httpx2.Response(500, content=stream())
    error = httpx2.HTTPStatusError("no", request=None, response=response)
    outcome = CLASSIFIER.classify_exception(error, now=NOW)
    assert (outcome.kind, outcome.provider_status) == (KINDS.PROVIDER_FAILURE, 500)


def test_an_unreadable_success_is_a_retryable_failure_of_the_provider() -> None:
    error = ProviderHTTPError(200, {}, "unreadable_answer")
    outcome = CLASSIFIER.classify_exception(error, now=NOW)
    assert outcome.kind is KINDS.PROVIDER_FAILURE
    assert CLASSIFIER.is_retryable(outcome)


def test_a_status_that_is_no_http_status_is_not_taken_for_one() -> None:
    error = ValueError("no")
    error.status = 7
    assert CLASSIFIER.classify_exception(error, now=NOW).kind is KINDS.UNEXPECTED_EXCEPTION


@pytest.mark.parametrize(
    ("kind", "retryable"),
    [
        (KINDS.RATE_LIMITED, True),
        (KINDS.PROVIDER_TIMEOUT, True),
        (KINDS.LOCAL_TIMEOUT, True),
        (KINDS.PROVIDER_FAILURE, True),
        (KINDS.LOCAL_CANCELLED, False),
        (KINDS.UNEXPECTED_EXCEPTION, False),
        (KINDS.SUCCESS, False),
    ],
)
def test_outcomes_that_say_nothing_are_retried_by_their_kind(kind: KINDS, retryable: bool) -> None:
    assert CLASSIFIER.is_retryable(RequestReleaseOutcome(kind=kind)) is retryable
