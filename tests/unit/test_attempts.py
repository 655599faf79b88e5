"""An attempt's outcome, its single use, and what the decorator takes (design 02; design 03)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.outcomes import (
    SUCCESS,
    ClassifyException,
    ReleaseReason,
    ReleaseResult,
    RequestOutcomeKind,
    RequestReleaseOutcome,
)
from forebay.contracts.requests import (
    RequestAdmissionDecision,
    RequestAdmissionItem,
    RequestAdmissionLease,
)
from forebay.coordinator.requests.attempts import RequestAttempt, limited
from forebay.coordinator.requests.classifying import classify_by_kind, outcome_of
from forebay.coordinator.requests.threads import LoopCaller

CHAT = RequestResourceKey(provider_model=ProviderModelKey(provider_name="p", model_id="m"))
FAILURE = RequestReleaseOutcome(kind=RequestOutcomeKind.PROVIDER_FAILURE)


class Recorder:
    """A controller that grants everything and remembers what was released."""

    def __init__(self, classify: ClassifyException = classify_by_kind) -> None:
        self.released: list[tuple[str, RequestReleaseOutcome]] = []
        self.acquired: list[RequestAdmissionItem] = []
        self._classify = classify
        self._caller = LoopCaller()

    def attempt(self, item: RequestAdmissionItem | None = None) -> RequestAttempt:
        item = item or RequestAdmissionItem(resource=CHAT)
        return RequestAttempt(item, self, self._caller, self._classify)

    def acquire_sync(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        self.acquired.append(item)
        return RequestAdmissionLease(
            lease_id=item.attempt_id,
            item=item,
            acquired_at=1.0,
            limit_at_admission=1,
            cuts_at_admission=0,
            effective_max=1,
            generation="g",
            member_id="m",
        )

    async def acquire(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        return self.acquire_sync(item)

    async def try_acquire(self, item: RequestAdmissionItem) -> RequestAdmissionDecision:
        return self.acquire_sync(item)

    def release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> Awaitable[ReleaseResult]:
        self.released.append((lease.lease_id, outcome))
        future: asyncio.Future[ReleaseResult] = asyncio.get_running_loop().create_future()
        future.set_result(ReleaseResult(released=True, reason=ReleaseReason.RELEASED))
        return future

    @property
    def outcomes(self) -> list[RequestReleaseOutcome]:
        return [outcome for _, outcome in self.released]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncio.CancelledError(), RequestOutcomeKind.LOCAL_CANCELLED),
        (KeyboardInterrupt(), RequestOutcomeKind.LOCAL_CANCELLED),
        (SystemExit(1), RequestOutcomeKind.LOCAL_CANCELLED),
        (GeneratorExit(), RequestOutcomeKind.LOCAL_CANCELLED),
        (TimeoutError(), RequestOutcomeKind.PROVIDER_TIMEOUT),
        (ConnectionResetError(), RequestOutcomeKind.PROVIDER_FAILURE),
        (ValueError("secret prompt"), RequestOutcomeKind.UNEXPECTED_EXCEPTION),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_each_kind_of_exception_has_its_outcome_and_leaks_no_message(
    error: BaseException, kind: RequestOutcomeKind
) -> None:
    outcome = outcome_of(error, classify_by_kind)
    assert outcome.kind is kind
    assert outcome.diagnostics == {"error_type": type(error).__name__}


def test_what_ends_an_attempt_from_outside_is_not_the_classifiers_to_judge() -> None:
    outcome = outcome_of(asyncio.CancelledError(), lambda _error: FAILURE)
    assert outcome.kind is RequestOutcomeKind.LOCAL_CANCELLED


def broken(error: Exception) -> RequestReleaseOutcome:
    raise KeyError(type(error).__name__)


def silent(_error: Exception) -> Any:
    return None


@pytest.mark.parametrize("classify", [broken, silent])
async def test_failing_classifier_costs_no_lease_and_hides_nothing(
    classify: ClassifyException,
) -> None:
    recorder = Recorder(classify)
    raised = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with recorder.attempt():
            raise raised
    assert caught.value is raised
    assert caught.value.__context__ is None
    assert [o.kind for o in recorder.outcomes] == [RequestOutcomeKind.UNEXPECTED_EXCEPTION]


async def test_classifier_that_is_interrupted_costs_no_lease() -> None:
    def interrupted(_error: Exception) -> RequestReleaseOutcome:
        raise KeyboardInterrupt

    recorder = Recorder(interrupted)
    with pytest.raises(KeyboardInterrupt):
        async with recorder.attempt():
            raise ValueError("mine")
    assert [o.kind for o in recorder.outcomes] == [RequestOutcomeKind.UNEXPECTED_EXCEPTION]


async def test_block_without_exception_is_a_success() -> None:
    recorder = Recorder()
    async with recorder.attempt() as attempt:
        lease_id = attempt.lease.lease_id
    assert recorder.released == [(lease_id, SUCCESS)]


async def test_callers_outcome_wins_over_success_and_over_an_exception() -> None:
    recorder = Recorder()
    async with recorder.attempt() as attempt:
        attempt.outcome = FAILURE
    with suppress(TimeoutError):
        async with recorder.attempt() as attempt:
            attempt.rate_limited(retry_after_seconds=3.0)
            raise TimeoutError
    assert recorder.outcomes == [
        FAILURE,
        RequestReleaseOutcome(
            kind=RequestOutcomeKind.RATE_LIMITED, retry_after_seconds=3.0, provider_status=429
        ),
    ]


async def test_wrong_outcome_is_refused_where_it_is_set() -> None:
    recorder = Recorder()
    wrong: Any = "rate_limited"
    async with recorder.attempt() as attempt:
        with pytest.raises(ConfigurationError, match="the attempt's outcome"):
            attempt.outcome = wrong
    assert recorder.outcomes == [SUCCESS]


async def test_attempt_is_entered_once() -> None:
    recorder = Recorder()
    attempt = recorder.attempt()
    async with attempt:
        with pytest.raises(ConfigurationError, match="entered before"):
            await attempt.__aenter__()
    with pytest.raises(ConfigurationError, match="entered before"):
        attempt.__enter__()
    assert len(recorder.acquired) == len(recorder.released) == 1


async def test_attempt_has_no_lease_before_it_is_entered() -> None:
    with pytest.raises(ConfigurationError, match="has no lease yet"):
        _ = Recorder().attempt().lease


async def test_generator_that_is_closed_midway_gives_its_lease_back() -> None:
    recorder = Recorder()

    async def stream() -> AsyncIterator[int]:
        async with recorder.attempt():
            yield 1
            yield 2

    async for _ in (generator := stream()):
        break
    await generator.aclose()  # type: ignore[attr-defined]
    assert [o.kind for o in recorder.outcomes] == [RequestOutcomeKind.LOCAL_CANCELLED]


async def test_block_on_another_loop_is_refused_before_it_acquires() -> None:
    recorder = Recorder()

    async def elsewhere() -> None:
        async with recorder.attempt():
            raise AssertionError

    with pytest.raises(ConfigurationError, match="off the event loop"):
        await asyncio.to_thread(asyncio.run, elsewhere())
    assert recorder.acquired == []


# -- the decorator


async def test_each_call_of_a_decorated_function_is_an_attempt_of_its_own() -> None:
    recorder = Recorder()

    @limited(recorder.attempt, CHAT, queue_wait_timeout_seconds=2.0, cost=7)
    async def ask(prompt: str, *, times: int = 1) -> str:
        """Ask."""
        return prompt * times

    assert await ask("a", times=2) == "aa"
    assert await ask("b") == "b"
    first, second = recorder.acquired
    assert first.attempt_id != second.attempt_id
    assert (first.queue_wait_timeout_seconds, first.cost) == (2.0, 7)
    assert (ask.__name__, ask.__doc__) == ("ask", "Ask.")
    assert inspect.iscoroutinefunction(ask)
    assert recorder.outcomes == [SUCCESS, SUCCESS]


async def test_decorated_plain_function_runs_in_a_thread() -> None:
    recorder = Recorder()

    @limited(recorder.attempt, CHAT)
    def ask(prompt: str) -> str:
        if not prompt:
            raise TimeoutError
        return prompt

    assert await asyncio.to_thread(ask, "a") == "a"
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(ask, "")
    assert [o.kind for o in recorder.outcomes] == [
        RequestOutcomeKind.SUCCESS,
        RequestOutcomeKind.PROVIDER_TIMEOUT,
    ]


async def test_object_with_an_async_call_is_decorated_as_an_async_function() -> None:
    recorder = Recorder()

    class Client:
        async def __call__(self, prompt: str) -> str:
            assert recorder.released == []
            return prompt

    assert await limited(recorder.attempt, CHAT)(Client())("a") == "a"
    assert recorder.outcomes == [SUCCESS]


async def test_generator_functions_are_refused_when_decorated() -> None:
    decorate: Any = limited(Recorder().attempt, CHAT)

    def stream() -> Iterator[int]:
        yield 1

    async def stream_async() -> AsyncIterator[int]:
        yield 1

    for function in (stream, stream_async):
        with pytest.raises(ConfigurationError, match="generator function"):
            decorate(function)
