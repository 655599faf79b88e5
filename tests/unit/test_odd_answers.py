"""Answers as providers really send them, odd ones among them, and what is made of each."""

from __future__ import annotations

import json
from typing import Any, Final

import httpx2
import pytest

from forebay.contracts.outcomes import RequestOutcomeKind
from forebay.contracts.quotas import QuotaBudget, QuotaReading
from forebay.transports import HttpResolver, RequestView
from forebay.transports.identity import view_of
from forebay.workers.providers.budget_headers import quota_readings
from forebay.workers.providers.classification import DefaultClassifier
from forebay.workers.providers.recorded import RecordedAnswer, replayed
from tests.unit.odd_answers import ODD, Odd

NOW: Final = 1_764_500_000.0  # 2025-11-30T10:53:20Z
WORDS: Final = {
    RequestOutcomeKind.SUCCESS: "good",
    RequestOutcomeKind.RATE_LIMITED: "overload",
    RequestOutcomeKind.PROVIDER_FAILURE: "failure",
}

WORDS_OF: Final = {
    "good": RequestOutcomeKind.SUCCESS,
    "overload": RequestOutcomeKind.RATE_LIMITED,
    "quota": RequestOutcomeKind.RATE_LIMITED,
    "failure": RequestOutcomeKind.PROVIDER_FAILURE,
    "about": RequestOutcomeKind.PROVIDER_FAILURE,
}


def verdict(odd: Odd) -> str:
    """Say in a few words how an answer is read."""
    outcome = replayed(
        RecordedAnswer(host=odd.host, status=odd.status, headers=odd.headers, body=odd.body, at=NOW)
    ).outcome
    told: dict[str, Any] = dict(outcome.diagnostics)
    words = [WORDS[outcome.kind]]
    if "about" in told:
        words = [f"about the {told['about']}"]
    if outcome.scope is not None:
        words = [f"quota {told.get('budget', 'of some kind')}"]
    elif "budget" in told:
        words.append(told["budget"])
    if outcome.retry_after_seconds is not None:
        words.append(f"{outcome.retry_after_seconds:g} s")
    if words == ["failure"] and DefaultClassifier().is_retryable(outcome):
        words.append("again")
    if outcome.usage is not None:
        words.append(f"used {outcome.usage.input_tokens}+{outcome.usage.output_tokens}")
    return ", ".join(words)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: f"{odd.host}-{odd.status}-{odd.says}")
def test_what_is_made_of_an_answer(odd: Odd) -> None:
    assert verdict(odd) == odd.says


@pytest.mark.parametrize("odd", [one for one in ODD if one.status >= 400], ids=lambda odd: odd.says)
def test_an_exception_that_carries_an_answer_is_read_as_it(odd: Odd) -> None:
    request = httpx2.Request("POST", f"https://{odd.host}/v1")
    body = odd.body if isinstance(odd.body, str) else json.dumps(odd.body)
    response = httpx2.Response(odd.status, headers=odd.headers, content=body, request=request)
    error = httpx2.HTTPStatusError("refused", request=request, response=response)
    outcome = DefaultClassifier().classify_exception(error, now=NOW)
    assert outcome.kind is WORDS_OF[verdict(odd).partition(",")[0].partition(" ")[0]]


@pytest.mark.parametrize(
    ("url", "window"),
    [
        ("https://api.openai.com./v1/chat/completions", "openai/m/chat"),
        ("https://API.OpenAI.com/v1/chat/completions", "openai/m/chat"),
        ("https://api.openai.com:8443/v1/chat/completions", "openai/m/chat"),
        ("https://api.openai.com.:443/v1/chat/completions", "openai/m/chat"),
        ("https://API.Anthropic.com.:8443/v1/messages", "anthropic/m/chat"),
        ("https://X.openai.azure.com.:8443/openai/v1/responses", "x.openai.azure.com/m/chat"),
        ("http://localhost.:11434/api/chat", "localhost:11434/m/chat"),
        ("http://GPU-7.:8000/v1/chat/completions", "gpu-7:8000/m/chat"),
        ("https://gateway.example./v1/chat/completions", "mine/m/chat"),
        ("https://[2001:db8::1]:8000/v1/chat/completions", "2001:db8::1:8000/m/chat"),
    ],
)
def test_a_host_has_one_window_however_it_is_written(url: str, window: str) -> None:
    resolver = HttpResolver({"Gateway.Example": "mine"})
    request = httpx2.Request("POST", url, json={"model": "m"})
    assert str(resolver(view_of(request))) == window


def test_a_view_that_is_no_httpx_request_may_write_its_host_as_it_likes() -> None:
    view = RequestView(method="POST", host="API.OPENAI.COM.", path="/v1/responses", body={})
    assert str(HttpResolver()(view)) == "openai/unnamed/chat"


@pytest.mark.parametrize(
    ("limit", "remaining", "reset"),
    [
        ("100, 100", "40, 40", "1s, 1s"),
        ("100,100", "40,50", "1s"),
        ("500, 100", "40, 41", "500ms, 1s"),
    ],
)
def test_a_budget_told_twice_is_the_smaller_one(limit: str, remaining: str, reset: str) -> None:
    headers = {
        "x-ratelimit-limit-requests": limit,
        "x-ratelimit-remaining-requests": remaining,
        "x-ratelimit-reset-requests": reset,
    }
    minute = QuotaBudget.REQUESTS_PER_MINUTE
    assert quota_readings(headers, NOW) == [QuotaReading(budget=minute, limit=100, remaining=40)]


def test_two_numbers_of_which_one_is_none_tell_nothing() -> None:
    assert quota_readings({"x-ratelimit-limit-requests": "100, many"}, NOW) == []
