"""Retries: attempts of their own, and what is waited between them (design 03, *Executor*)."""

from __future__ import annotations

import asyncio
import gc
import weakref

import httpx2
import pytest

from forebay.contracts.errors import ConfigurationError, CoordinatorUnavailable, MembershipLost
from forebay.contracts.outcomes import ReleaseReason, ReleaseResult, RequestReleaseOutcome
from forebay.contracts.requests import (
    RequestAdmissionDenied,
    RequestAdmissionError,
    RequestAdmissionItem,
    RequestDenialReason,
)
from forebay.workers.model_request import ModelRequest
from forebay.workers.providers.openai_answers import ProviderHTTPError
from forebay.workers.retries import RetryBudget, RetryPolicy
from tests.support_executor import (
    KINDS,
    OUTAGE,
    RATE_LIMIT,
    REFUSAL,
    RESOURCE,
    Calls,
    FakeAdmission,
    Make,
)


async def test_the_last_answer_is_returned_when_the_retries_are_spent(
    admission: FakeAdmission, make: Make
) -> None:
    made: list[httpx2.Response] = []

    async def call() -> httpx2.Response:
        made.append(httpx2.Response(503))
        return made[-1]

    budget = RetryBudget(1)
    executor = make(retry_budget=budget)
    assert await executor.execute(ModelRequest(resource=RESOURCE, call=call)) is made[-1]
    assert len(made) == 2
    assert budget.tokens == 0


async def test_each_retry_is_a_new_attempt_with_a_lease_of_its_own(
    admission: FakeAdmission, make: Make
) -> None:
    calls = Calls(admission, OUTAGE, RATE_LIMIT)
    assert await make().execute(ModelRequest(resource=RESOURCE, call=calls)) == "answer"
    assert len({item.attempt_id for item in admission.items}) == 3
    kinds = [outcome.kind for outcome in admission.outcomes]
    assert kinds == [KINDS.PROVIDER_FAILURE, KINDS.RATE_LIMITED, KINDS.SUCCESS]


async def test_backoff_grows_up_to_its_cap_and_is_slept_without_a_lease(
    admission: FakeAdmission, make: Make, pauses: list[float]
) -> None:
    calls = Calls(admission, *[OUTAGE] * 5)
    retry = RetryPolicy(max_attempts=6, base_seconds=1.0, cap_seconds=5.0)
    await make(retry=retry).execute(ModelRequest(resource=RESOURCE, call=calls))
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0]


async def test_backoff_is_drawn_from_zero_to_its_bound(
    admission: FakeAdmission, make: Make, pauses: list[float]
) -> None:
    draws = iter([0.25, 0.0])
    calls = Calls(admission, OUTAGE, OUTAGE)
    executor = make(draw=lambda: next(draws), retry=RetryPolicy(base_seconds=2.0))
    await executor.execute(ModelRequest(resource=RESOURCE, call=calls))
    assert pauses == [0.5]


async def test_a_failures_hint_is_the_least_pause(
    admission: FakeAdmission, make: Make, pauses: list[float]
) -> None:
    calls = Calls(
        admission,
        ProviderHTTPError(500, {"retry-after": "7"}),
        ProviderHTTPError(500, {"retry-after": "7000"}),
        ProviderHTTPError(500, {"retry-after-ms": "1"}),
    )
    await make().execute(ModelRequest(resource=RESOURCE, call=calls))
    assert pauses == [7.0, 300.0, 2.0]


async def test_a_rate_limited_attempt_re_enters_the_queue_without_a_pause(
    admission: FakeAdmission, make: Make, pauses: list[float]
) -> None:
    calls = Calls(admission, *[RATE_LIMIT] * 3)
    await make().execute(ModelRequest(resource=RESOURCE, call=calls))
    assert pauses == []
    assert admission.outcomes[0].retry_after_seconds == 9.0
    assert calls.made == 4


async def test_a_rate_limit_that_no_window_took_is_waited_out_here(
    admission: FakeAdmission, make: Make, pauses: list[float]
) -> None:
    admission.release_results = [
        ReleaseResult(released=False, reason=ReleaseReason.STALE_LEASE),
        ReleaseResult(released=False, reason=ReleaseReason.UNKNOWN_LEASE),
    ]
    calls = Calls(admission, RATE_LIMIT, ProviderHTTPError(429, {}), RATE_LIMIT)
    assert await make().execute(ModelRequest(resource=RESOURCE, call=calls)) == "answer"
    assert pauses == [9.0, 1.0]


async def test_a_retry_without_a_lease_raises_what_the_provider_raised(
    admission: FakeAdmission, make: Make
) -> None:
    denied = RequestAdmissionError(
        RequestAdmissionDenied(
            item=RequestAdmissionItem(resource=RESOURCE), reason=RequestDenialReason.QUEUE_TIMEOUT
        ),
        "no lease within 3 s",
    )
    for refusal in (denied, CoordinatorUnavailable("redis is away"), MembershipLost("expired")):
        error = ProviderHTTPError(429, {"retry-after": "9"})

        async def call(error: Exception = error, refusal: Exception = refusal) -> None:
            admission.acquire_errors = [refusal]
            raise error

        with pytest.raises(ProviderHTTPError) as caught:
            await make().execute(ModelRequest(resource=RESOURCE, call=call, max_attempts=2))
        assert caught.value is error
        assert caught.value.__cause__ is caught.value.__context__ is None
        assert caught.value.__notes__ == [f"Forebay: no lease came for the retry: {refusal}"]


async def test_a_retry_without_a_lease_returns_what_the_provider_answered(
    admission: FakeAdmission, make: Make
) -> None:
    answer = httpx2.Response(503)

    async def call() -> httpx2.Response:
        admission.acquire_errors = [CoordinatorUnavailable("redis is away")]
        return answer

    assert await make().execute(ModelRequest(resource=RESOURCE, call=call)) is answer


async def test_what_was_raised_is_not_kept_by_its_own_traceback(
    admission: FakeAdmission, make: Make
) -> None:
    gc.disable()
    try:
        try:
            await make().execute(
                ModelRequest(resource=RESOURCE, call=Calls(admission, ProviderHTTPError(400, {})))
            )
        except ProviderHTTPError as error:
            kept = weakref.ref(error)
        assert kept() is None
    finally:
        gc.enable()


async def test_a_rate_limited_attempt_counts_as_an_attempt(
    admission: FakeAdmission, make: Make
) -> None:
    calls = Calls(admission, *[RATE_LIMIT] * 4)
    with pytest.raises(ProviderHTTPError) as caught:
        await make().execute(ModelRequest(resource=RESOURCE, call=calls))
    assert caught.value is RATE_LIMIT
    assert calls.made == 4


async def test_the_next_acquire_finds_what_the_release_changed(
    admission: FakeAdmission, make: Make
) -> None:
    async def slowly() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    admission.acknowledge = slowly
    await make().execute(ModelRequest(resource=RESOURCE, call=Calls(admission, RATE_LIMIT)))
    assert admission.steps == [
        *("acquire", "call", "release rate_limited", "acknowledged"),
        *("acquire", "call", "release success"),
    ]


@pytest.mark.parametrize(
    "error", [REFUSAL, ProviderHTTPError(429, {}, "insufficient_quota"), ValueError("bug")]
)
async def test_what_cannot_end_better_is_not_retried(
    admission: FakeAdmission, make: Make, error: Exception
) -> None:
    calls = Calls(admission, error)
    with pytest.raises(type(error)) as caught:
        await make().execute(ModelRequest(resource=RESOURCE, call=calls))
    assert caught.value is error
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert calls.made == 1


async def test_a_request_may_bound_its_own_attempts(admission: FakeAdmission, make: Make) -> None:
    calls = Calls(admission, OUTAGE, OUTAGE)
    with pytest.raises(ProviderHTTPError):
        await make().execute(ModelRequest(resource=RESOURCE, call=calls, max_attempts=1))
    assert calls.made == 1


async def test_a_lost_membership_is_retried_as_a_new_attempt(
    admission: FakeAdmission, make: Make, pauses: list[float]
) -> None:
    calls = Calls(admission)
    admission.acquire_errors = [MembershipLost("while waiting")]
    admission.held_errors = [MembershipLost("asleep")]
    assert await make().execute(ModelRequest(resource=RESOURCE, call=calls)) == "answer"
    assert admission.steps.count("acquire") == 3
    assert calls.made == 1
    assert pauses == [0.5, 1.0]


async def test_dates_in_headers_are_read_by_the_executors_clock(
    admission: FakeAdmission, make: Make, pauses: list[float]
) -> None:
    error = ProviderHTTPError(500, {"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"})
    executor = make(clock=lambda: 1_445_412_480.0)
    await executor.execute(ModelRequest(resource=RESOURCE, call=Calls(admission, error)))
    assert pauses == [30.0]


async def test_a_spent_budget_ends_the_retries_of_all_calls(
    admission: FakeAdmission, make: Make
) -> None:
    budget = RetryBudget(2)
    executor = make(retry_budget=budget)
    for made in (3, 1):
        calls = Calls(admission, *[OUTAGE] * 4)
        with pytest.raises(ProviderHTTPError):
            await executor.execute(ModelRequest(resource=RESOURCE, call=calls))
        assert calls.made == made


async def test_ten_successes_give_one_retry_back(admission: FakeAdmission, make: Make) -> None:
    budget = RetryBudget(1)
    executor = make(retry_budget=budget)
    await executor.execute(ModelRequest(resource=RESOURCE, call=Calls(admission, OUTAGE)))
    for _ in range(8):
        await executor.execute(ModelRequest(resource=RESOURCE, call=Calls(admission)))
    assert budget.tokens == 0.9
    assert not budget.take()
    for _ in range(8):
        await executor.execute(ModelRequest(resource=RESOURCE, call=Calls(admission)))
    assert budget.tokens == 1.0
    assert budget.take()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"base_seconds": -1.0},
        {"cap_seconds": float("inf")},
        {"max_retry_after_seconds": float("nan")},
    ],
)
def test_a_retry_policy_that_cannot_be_followed_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="turns retries off"):
        RetryPolicy(**wrong)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "3"])
def test_a_request_with_attempts_that_cannot_be_made_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="max_attempts"):
        ModelRequest(resource=RESOURCE, call=Calls, max_attempts=wrong)


@pytest.mark.parametrize("wrong", [-1, 1.5, True, None])
def test_a_retry_budget_that_is_no_number_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="retry budget"):
        RetryBudget(wrong)


def test_a_late_attempt_does_not_overflow_its_backoff() -> None:
    outcome = RequestReleaseOutcome(kind=KINDS.PROVIDER_FAILURE)
    assert RetryPolicy().pause_seconds(100_000, outcome, lambda: 1.0) == 30.0
