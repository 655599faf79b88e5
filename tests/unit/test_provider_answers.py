from __future__ import annotations

import email.message
import io
import time
import urllib.error
from collections.abc import Iterator

import httpx2
import pytest

from forebay.contracts.quotas import QuotaBudget, QuotaReading
from forebay.workers.providers.answered import answer_of
from forebay.workers.providers.budget_headers import quota_readings
from forebay.workers.providers.headers import (
    kept_headers,
    lowered_headers,
    retry_after_seconds,
)

NOW = 1_445_412_480.0  # 2015-10-21T07:28:00Z
SECRET = "sk-secret"
BUDGETS = QuotaBudget


def openai_style(limit: str, remaining: str, reset: str, unit: str = "requests") -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{unit}": limit,
        f"x-ratelimit-remaining-{unit}": remaining,
        f"x-ratelimit-reset-{unit}": reset,
    }


def anthropic_style(limit: str, remaining: str, reset: str) -> dict[str, str]:
    return {
        "anthropic-ratelimit-tokens-limit": limit,
        "anthropic-ratelimit-tokens-remaining": remaining,
        "anthropic-ratelimit-tokens-reset": reset,
    }


def test_both_budgets_of_an_answer_are_read() -> None:
    headers = openai_style("60", "59", "1s") | openai_style("150000", "149984", "6ms", "tokens")
    assert quota_readings(headers, NOW) == [
        QuotaReading(budget=BUDGETS.REQUESTS_PER_MINUTE, limit=60, remaining=59),
        QuotaReading(budget=BUDGETS.TOKENS_PER_MINUTE, limit=150_000, remaining=149_984),
    ]


def test_anthropics_headers_are_read() -> None:
    headers = anthropic_style("50000", "12000", "2015-10-21T07:28:46Z") | {
        "anthropic-ratelimit-requests-limit": "1000",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-input-tokens-limit": "7",
    }
    assert quota_readings(headers, NOW) == [
        QuotaReading(budget=BUDGETS.TOKENS_PER_MINUTE, limit=50_000, remaining=12_000),
        QuotaReading(budget=BUDGETS.REQUESTS_PER_MINUTE, limit=1000, remaining=0),
    ]


def test_names_of_headers_may_be_in_any_case() -> None:
    (reading,) = quota_readings({"X-RateLimit-Remaining-Tokens": " 7 "}, NOW)
    assert reading == QuotaReading(budget=BUDGETS.TOKENS_PER_MINUTE, remaining=7)
    (reading,) = quota_readings(httpx2.Headers({"X-Ratelimit-Limit-Requests": "3"}), NOW)
    assert reading == QuotaReading(budget=BUDGETS.REQUESTS_PER_MINUTE, limit=3)


@pytest.mark.parametrize(
    ("limit", "remaining", "reset"),
    [
        ("14400", "14370", "2m59.56s"),
        ("1000", "999", "1m26.4s"),
        ("1000", "0", "24h0m0s"),
        ("1000", "500", "12h"),
        ("1000", "0", "1d"),
        ("1000", "3", "43071.5"),
        ("1000", "", "2h"),
    ],
)
def test_a_reset_of_a_day_makes_it_a_days_budget(limit: str, remaining: str, reset: str) -> None:
    (reading,) = quota_readings(openai_style(limit, remaining, reset), NOW)
    assert reading.budget is BUDGETS.REQUESTS_PER_DAY


@pytest.mark.parametrize(
    ("limit", "remaining", "reset"),
    [
        ("60", "59", "1s"),
        ("500", "499", "120ms"),
        ("150000000", "149999990", "1ms"),  # rounded up, the period alone would say 4 hours
        ("100", "99", "59s"),  # a fixed window that ends in 59 s
        ("150000", "149984", "6m0s"),  # as in OpenAI's documentation
        ("60", "0", "1m0s"),
        ("60", "60", "0s"),
        ("60", "70", "5h"),
        ("60", "0", ""),
        ("60", "0", "soon"),
        ("60", "0", "-5h"),
        ("60", "0", "5h " * 20),
        ("60", "0", "9" * 400),
        ("60", "0", "0.5us"),
    ],
)
def test_any_other_reset_makes_it_a_minutes_budget(limit: str, remaining: str, reset: str) -> None:
    (reading,) = quota_readings(openai_style(limit, remaining, reset), NOW)
    assert reading.budget is BUDGETS.REQUESTS_PER_MINUTE


@pytest.mark.parametrize(
    ("remaining", "reset", "budget"),
    [
        ("0", "2015-10-21T19:28:00Z", BUDGETS.TOKENS_PER_DAY),
        ("500", "2015-10-21T21:28:00+02:00", BUDGETS.TOKENS_PER_DAY),
        ("0", "2015-10-21T07:28:59Z", BUDGETS.TOKENS_PER_MINUTE),
        ("997", "2015-10-21T07:36:00Z", BUDGETS.TOKENS_PER_MINUTE),  # a clock 8 minutes behind
        ("0", "2015-10-20T07:28:00Z", BUDGETS.TOKENS_PER_MINUTE),
        ("0", "2015-10-21T19:28:00", BUDGETS.TOKENS_PER_DAY),
        ("0", "0001-01-01T00:00:00+23:59", BUDGETS.TOKENS_PER_MINUTE),
        ("0", "tomorrow", BUDGETS.TOKENS_PER_MINUTE),
    ],
)
def test_a_reset_may_be_a_date(remaining: str, reset: str, budget: QuotaBudget) -> None:
    (reading,) = quota_readings(anthropic_style("1000", remaining, reset), NOW)
    assert reading.budget is budget


@pytest.mark.parametrize(
    "number", ["", "-1", "1.5", "nan", "1e3", "1_000", "٣", "many", "9" * 13, "9" * 5000, "+3"]
)
def test_a_number_that_is_none_or_absurd_is_ignored(number: str) -> None:
    assert quota_readings(openai_style(number, number, "1s"), NOW) == []
    (reading,) = quota_readings(openai_style(number, "7", "1s"), NOW)
    assert (reading.limit, reading.remaining) == (None, 7)


def test_a_limit_of_zero_is_no_limit() -> None:
    assert quota_readings({"x-ratelimit-limit-requests": "0"}, NOW) == []


def test_headers_that_say_nothing_give_no_reading() -> None:
    assert quota_readings({"content-type": "x", "x-ratelimit-reset-requests": "1s"}, NOW) == []


def test_headers_of_any_library_are_lowered() -> None:
    message = email.message.Message()
    message["Retry-After"] = "3"
    assert lowered_headers(message) == {"retry-after": "3"}
    assert lowered_headers({b"Retry-After": b"3", "X": 1}) == {}
    assert lowered_headers(None) == {}


def test_urllibs_error_carries_its_answer() -> None:
    message = email.message.Message()
    message["Retry-After"] = "3"
    body = io.BytesIO(b"")
    with urllib.error.HTTPError("http://p", 429, "no", message, body) as error:
        answer = answer_of(error)
    assert answer is not None
    assert (answer.status, answer.headers) == (429, {"retry-after": "3"})


def test_a_streamed_answer_is_not_read_from_the_network() -> None:
    reads: list[str] = []

    class Streamed:
        status_code = 503
        _content_consumed = False

        @property
        def content(self) -> bytes:
            reads.append("content")
            return b""

    class HTTPError(Exception):
        response = Streamed()

    answer = answer_of(HTTPError())
    assert answer is not None
    assert (answer.status, reads) == (503, [])


def test_an_object_whose_attributes_raise_carries_no_answer() -> None:
    class HostileError(Exception):
        def __getattr__(self, name: str) -> object:
            raise KeyError(name)

    assert answer_of(HostileError()) is None


@pytest.mark.parametrize("status", [True, 99, 600, "429", None])
def test_a_status_that_is_none_carries_no_answer(status: object) -> None:
    error = ValueError()
    error.status_code = status
    assert answer_of(error) is None


def test_headers_are_in_no_repr() -> None:
    response = httpx2.Response(429, headers={"authorization": SECRET})
    assert SECRET not in repr(answer_of(response))


def test_a_good_answers_body_is_not_searched_for_errors() -> None:
    answer = answer_of(httpx2.Response(200, json={"type": "message"}))
    assert answer is not None
    assert answer.error_code is None


def hint(headers: dict[str, str]) -> float | None:
    return retry_after_seconds(lowered_headers(headers), NOW)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"Retry-After": " 0.5 "}, 0.5),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"Retry-After-Ms": "250", "Retry-After": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
        ({"retry-after-ms": "-1", "retry-after": "3"}, 3.0),
        ({"retry-after-ms": "0", "retry-after": "3"}, 3.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 09:28:30 +0200"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 -0000"}, 30.0),
        ({"retry-after": "Wed Oct 21 07:28:30 2015"}, 30.0),
        ({"retry-after": "86400"}, 86_400.0),
        ({"retry-after": "86401"}, 86_401.0),
        ({"retry-after": "9" * 400}, 31 * 86_400.0),
        ({"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}, 31 * 86_400.0),
        ({"retry-after-ms": "2678400001", "retry-after": "3"}, 31 * 86_400.0),
        ({"retry-after": "7, 7"}, 7.0),
        ({"retry-after": f"{NOW + 30:.0f}"}, 30.0),
        ({"retry-after": f"{NOW + 30:.0f}000"}, 30.0),
        ({"retry-after-ms": f"{NOW + 30:.0f}000"}, 30.0),
        ({"retry-after-ms": f"{NOW - 30:.0f}000", "retry-after": "3"}, 3.0),
    ],
)
def test_a_hint_is_read_as_seconds_milliseconds_or_date(
    headers: dict[str, str], seconds: float
) -> None:
    assert hint(headers) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-3",
        "nan",
        "inf",
        "1e5",
        "1_0",
        "٣",
        "soon",
        "Wed, 21 Oct 2015 07:27:59 GMT",
        "Wed, 21 Oct 99999 07:28:00 GMT",
        "Sat, 01 Jan 0001 00:00:00 +2359",
        "Mon, 99 Foo 2015 07:28:00 GMT",
    ],
)
def test_a_hint_that_cannot_be_believed_is_ignored(text: str) -> None:
    assert hint({"retry-after": text}) is None


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX-05:30")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
@pytest.mark.parametrize("zone", ["", " GMT", " -0000"])
def test_a_date_without_a_zone_is_utc_wherever_the_process_runs(zone: str) -> None:
    headers = {"retry-after": f"Wed, 21 Oct 2015 07:28:30{zone}"}
    assert hint(headers) == 30.0


@pytest.mark.parametrize("text", ["", "0", "-3", "nan", "soon"])
def test_a_finer_hint_that_cannot_be_believed_is_ignored(text: str) -> None:
    assert hint({"retry-after-ms": text}) is None


def test_only_headers_of_limits_and_ids_are_kept() -> None:
    given = {"Retry-After": "1", "X-RateLimit-Limit-Tokens": "9", "Set-Cookie": SECRET}
    assert kept_headers(given) == {"retry-after": "1", "x-ratelimit-limit-tokens": "9"}
