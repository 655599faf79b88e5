from __future__ import annotations

import asyncio
import functools
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import SimpleNamespace

import httpx2
import pytest

from contracts.errors import (
    ConfigurationError,
    CoordinatorUnavailable,
    MembershipLost,
    RequestAdmissionError,
)
from contracts.events import RequestEventContext, RuntimeCorrelation, current_correlation
from contracts.identity import (
    ProviderModelKey,
    RequestDomain,
    RequestGroupSpec,
    RequestResourceKey,
)
from contracts.quotas import QuotaBudget, QuotaReading
from contracts.requests import (
    ReleaseReason,
    ReleaseResult,
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
    RequestOutcomeKind,
    RequestReleaseOutcome,
    TokenUsage,
)
from tests.support import wait_until
from workers.classification import DefaultClassifier
from workers.executor import ModelRequest, ModelRequestExecutor, in_executor
from workers.openai_answers import ProviderCompletion, ProviderHTTPError
from workers.openai_client import OpenAICompatibleClient
from workers.retries import RetryBudget, RetryPolicy

KINDS = RequestOutcomeKind
RESOURCE = RequestResourceKey(provider_model=ProviderModelKey(provider_name="p", model_id="m"))
RATE_LIMIT = ProviderHTTPError(429, {"retry-after": "9"})
OUTAGE = ProviderHTTPError(500, {})
REFUSAL = ProviderHTTPError(400, {})


ANSWERS = {
    RequestDomain.CHAT: {"choices": [{"message": {"content": "x"}}]},
    RequestDomain.EMBEDDING: {"data": [{"index": 0, "embedding": [1.0]}]},
    RequestDomain.IMAGE: {"data": [{"url": "http://p/1"}]},
    RequestDomain.HEALTHCHECK: {"data": []},
}


class FakeAdmission:
    """Grants at once and records; what it is told to raise comes first."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.items: list[RequestAdmissionItem] = []
        self.outcomes: list[RequestReleaseOutcome] = []
        self.live: set[str] = set()
        self.acquire_errors: list[Exception] = []
        self.held_errors: list[Exception] = []
        self.readings: list[QuotaReading] = []
        self.learn_errors: list[Exception] = []
        self.acknowledge: Callable[[], Awaitable[object]] | None = None

    async def acquire(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        self.steps.append("acquire")
        self.items.append(item)
        if self.acquire_errors:
            raise self.acquire_errors.pop(0)
        assert item.attempt_id not in self.live
        self.live.add(item.attempt_id)
        return RequestAdmissionLease(
            lease_id=item.attempt_id,
            item=item,
            acquired_at=0.0,
            limit_at_admission=1,
            cuts_at_admission=0,
            effective_max=1,
            generation="g",
            member_id="member",
        )

    def release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> Awaitable[ReleaseResult]:
        self.steps.append(f"release {outcome.kind}")
        self.outcomes.append(outcome)
        self.live.remove(lease.lease_id)
        return self._acknowledged()

    async def _acknowledged(self) -> ReleaseResult:
        if self.acknowledge is not None:
            await self.acknowledge()
        self.steps.append("acknowledged")
        return ReleaseResult(released=True, reason=ReleaseReason.RELEASED)

    def learn(self, lease: RequestAdmissionLease, readings: Sequence[QuotaReading]) -> None:
        assert lease.lease_id in self.live
        self.steps.append("learn")
        self.readings += readings
        if self.learn_errors:
            raise self.learn_errors.pop(0)

    def assert_held(self, lease: RequestAdmissionLease) -> None:
        assert lease.lease_id in self.live
        if self.held_errors:
            raise self.held_errors.pop(0)


class Calls:
    """A provider that ends its calls as listed, then answers."""

    def __init__(self, admission: FakeAdmission, *endings: BaseException) -> None:
        self._admission = admission
        self._endings = list(endings)
        self.made = 0

    async def __call__(self) -> str:
        assert len(self._admission.live) == 1
        self.made += 1
        self._admission.steps.append("call")
        if self._endings:
            raise self._endings.pop(0)
        return "answer"


@pytest.fixture
def admission() -> FakeAdmission:
    return FakeAdmission()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
async def make(
    admission: FakeAdmission, pauses: list[float]
) -> AsyncIterator[Callable[..., ModelRequestExecutor]]:
    """Executors whose pauses take no time and are checked to hold no lease."""
    made: list[ModelRequestExecutor] = []

    async def sleep(seconds: float) -> None:
        assert not admission.live
        pauses.append(seconds)

    def make(**options: object) -> ModelRequestExecutor:
        given = {"sleep": sleep, "draw": lambda: 1.0, **options}
        made.append(ModelRequestExecutor(admission, **given))
        return made[-1]

    yield make
    for executor in made:
        await executor.aclose()
    assert not admission.live


Make = Callable[..., ModelRequestExecutor]


async def test_an_attempt_is_acquire_call_release(admission: FakeAdmission, make: Make) -> None:
    request = ModelRequest(
        resource=RESOURCE,
        call=Calls(admission),
        group=RequestGroupSpec(key="run"),
        cost=7,
        queue_wait_timeout_seconds=3.0,
    )
    assert await make().execute_attempt(request) == "answer"
    assert admission.steps == ["acquire", "call", "release success"]
    (item,) = admission.items
    assert (item.resource, item.group.key, item.cost) == (RESOURCE, "run", 7)
    assert item.queue_wait_timeout_seconds == 3.0
    assert item.event_context.request_attempt_id == item.attempt_id


async def test_an_attempt_is_made_once_whatever_happens(
    admission: FakeAdmission, make: Make
) -> None:
    calls = Calls(admission, OUTAGE)
    with pytest.raises(ProviderHTTPError) as caught:
        await make().execute_attempt(ModelRequest(resource=RESOURCE, call=calls))
    assert caught.value is OUTAGE
    assert calls.made == 1
    assert admission.outcomes[0].kind is KINDS.PROVIDER_FAILURE


async def test_usage_and_status_of_an_answer_go_into_the_outcome(
    admission: FakeAdmission, make: Make
) -> None:
    usage = TokenUsage(input_tokens=3, output_tokens=4)
    answer = ProviderCompletion(text="hello", usage=usage, status=200, headers={})

    async def call() -> ProviderCompletion:
        return answer

    assert await make().execute(ModelRequest(resource=RESOURCE, call=call)) is answer
    assert admission.outcomes[0].usage == usage
    assert admission.outcomes[0].provider_status == 200


async def test_the_usage_of_an_sdks_answer_goes_into_the_outcome(
    admission: FakeAdmission, make: Make
) -> None:
    async def call() -> SimpleNamespace:
        usage = SimpleNamespace(prompt_tokens=3, completion_tokens=4, total_tokens=7)
        return SimpleNamespace(usage=usage, status="completed")

    await make().execute(ModelRequest(resource=RESOURCE, call=call))
    (outcome,) = admission.outcomes
    assert outcome.kind is KINDS.SUCCESS
    assert outcome.usage == TokenUsage(input_tokens=3, output_tokens=4)


async def test_an_answer_that_was_not_raised_is_classified_and_retried(
    admission: FakeAdmission, make: Make
) -> None:
    answers = [httpx2.Response(429, headers={"retry-after": "9"}), httpx2.Response(200)]
    last = answers[-1]

    async def call() -> httpx2.Response:
        return answers.pop(0)

    assert await make().execute(ModelRequest(resource=RESOURCE, call=call)) is last
    first, second = admission.outcomes
    assert (first.kind, first.retry_after_seconds) == (KINDS.RATE_LIMITED, 9.0)
    assert second.kind is KINDS.SUCCESS


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


class Busy(DefaultClassifier):
    """Knows a provider that says it is busy in the body of a 200."""

    def classify_response(
        self,
        status: int,
        headers: Mapping[str, str],
        body_error_code: str | None = None,
        *,
        now: float,
    ) -> RequestReleaseOutcome:
        if body_error_code == "too_busy":
            return RequestReleaseOutcome(kind=KINDS.RATE_LIMITED, provider_status=status)
        return super().classify_response(status, headers, body_error_code, now=now)


@pytest.mark.parametrize("is_raised", [True, False])
async def test_a_users_classifier_reads_an_overload_from_the_body_of_a_200(
    admission: FakeAdmission, make: Make, is_raised: bool
) -> None:
    endings: list[object] = [SimpleNamespace(status=200, headers={}, error_code="too_busy"), "good"]
    if is_raised:
        endings[0] = ProviderHTTPError(200, {}, "too_busy")

    async def call() -> object:
        ending = endings.pop(0)
        if isinstance(ending, Exception):
            raise ending
        return ending

    executor = make(classifier=Busy())
    assert await executor.execute(ModelRequest(resource=RESOURCE, call=call)) == "good"
    assert [outcome.kind for outcome in admission.outcomes] == [KINDS.RATE_LIMITED, KINDS.SUCCESS]


async def test_an_answers_headers_teach_the_quotas_before_its_lease_goes_back(
    admission: FakeAdmission, make: Make
) -> None:
    headers = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0"}
    calls = Calls(admission, ProviderHTTPError(429, headers))

    async def call() -> ProviderCompletion:
        await calls()
        return ProviderCompletion(text="hello", usage=None, status=200, headers=headers)

    await make().execute(ModelRequest(resource=RESOURCE, call=call))
    reading = QuotaReading(budget=QuotaBudget.REQUESTS_PER_MINUTE, limit=60, remaining=0)
    assert admission.readings == [reading, reading]
    assert admission.steps == [
        *("acquire", "call", "learn", "release rate_limited", "acknowledged"),
        *("acquire", "call", "learn", "release success"),
    ]


async def test_headers_without_quotas_teach_nothing(admission: FakeAdmission, make: Make) -> None:
    await make().execute(ModelRequest(resource=RESOURCE, call=Calls(admission, RATE_LIMIT)))
    assert "learn" not in admission.steps


async def test_a_call_can_tell_that_it_runs_under_the_executor(
    admission: FakeAdmission, make: Make
) -> None:
    seen: list[bool] = []

    async def call() -> None:
        seen.append(in_executor.get())
        raise RATE_LIMIT

    with pytest.raises(ProviderHTTPError):
        await make().execute(ModelRequest(resource=RESOURCE, call=call, max_attempts=2))
    assert seen == [True, True]
    assert not in_executor.get()


class Thorny:
    """An answer whose attributes raise."""

    def __getattr__(self, name: str) -> object:
        raise KeyError(name)


async def test_an_answer_that_cannot_be_read_costs_no_lease(
    admission: FakeAdmission, make: Make
) -> None:
    answer = Thorny()

    async def call() -> Thorny:
        return answer

    assert await make().execute(ModelRequest(resource=RESOURCE, call=call)) is answer
    assert admission.outcomes[0].kind is KINDS.UNEXPECTED_EXCEPTION


async def test_learning_that_fails_costs_no_lease(admission: FakeAdmission, make: Make) -> None:
    admission.learn_errors = [RuntimeError("against the contract")]
    answer = httpx2.Response(200, headers={"x-ratelimit-limit-tokens": "5"})

    async def call() -> httpx2.Response:
        return answer

    assert await make().execute(ModelRequest(resource=RESOURCE, call=call)) is answer
    assert len(admission.outcomes) == 1


async def test_a_classifier_that_returns_nothing_costs_no_lease(
    admission: FakeAdmission, make: Make
) -> None:
    class Silent(DefaultClassifier):
        def classify_exception(self, *_: object, **__: object) -> None:
            return None

    with pytest.raises(ProviderHTTPError) as caught:
        await make(classifier=Silent()).execute(
            ModelRequest(resource=RESOURCE, call=Calls(admission, OUTAGE))
        )
    assert caught.value is OUTAGE
    assert admission.outcomes[0].kind is KINDS.UNEXPECTED_EXCEPTION


def test_a_request_shows_nothing_of_its_call() -> None:
    prompt = "a prompt of a customer"
    request = ModelRequest(resource=RESOURCE, call=functools.partial(Calls, prompt))
    assert prompt not in repr(request)


@pytest.mark.parametrize("domain", list(RequestDomain))
async def test_each_domain_is_asked_for_under_its_own_resource(
    admission: FakeAdmission, make: Make, domain: RequestDomain
) -> None:
    resource = RequestResourceKey(provider_model=RESOURCE.provider_model, domain=domain)
    called: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        called.append(request.url.path)
        return httpx2.Response(200, json=ANSWERS[domain])

    client = OpenAICompatibleClient("http://p/v1", transport=httpx2.MockTransport(handler))
    calls = {
        RequestDomain.CHAT: lambda: client.chat("m", []),
        RequestDomain.EMBEDDING: lambda: client.embed("m", ["a"]),
        RequestDomain.IMAGE: lambda: client.generate_images("m", "p"),
        RequestDomain.HEALTHCHECK: client.check_health,
    }
    async with client:
        await make().execute(ModelRequest(resource=resource, call=calls[domain]))
    assert admission.items[0].resource.domain is domain
    (outcome,) = admission.outcomes
    assert (outcome.kind, outcome.provider_status) == (KINDS.SUCCESS, 200)
    assert len(called) == 1


async def test_the_correlation_is_captured_when_the_item_is_made(
    admission: FakeAdmission, make: Make
) -> None:
    correlation = RuntimeCorrelation(run_id="r", task_execution_id="t1")
    token = current_correlation.set(correlation)
    await make().execute(ModelRequest(resource=RESOURCE, call=Calls(admission)))
    current_correlation.reset(token)
    given = RequestEventContext(task_execution_id="t2")
    await make().execute(
        ModelRequest(resource=RESOURCE, call=Calls(admission), event_context=given)
    )
    first, second = (item.event_context for item in admission.items)
    assert (first.captured_correlation, first.task_execution_id) == (correlation, "t1")
    assert (second.captured_correlation, second.task_execution_id) == (None, "t2")


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


async def test_a_call_that_raises_before_it_awaits_gives_its_lease_back(
    admission: FakeAdmission, make: Make
) -> None:
    def call() -> Awaitable[str]:
        raise ValueError("no coroutine")

    with pytest.raises(ValueError, match="no coroutine"):
        await make().execute(ModelRequest(resource=RESOURCE, call=call))
    assert admission.outcomes[0].kind is KINDS.UNEXPECTED_EXCEPTION


async def test_a_denied_acquire_reaches_the_caller_and_is_not_retried(
    admission: FakeAdmission, make: Make
) -> None:
    item = RequestAdmissionItem(resource=RESOURCE)
    denied = RequestAdmissionDenied(item=item, reason=RequestDenialReason.QUEUE_TIMEOUT)
    for error in (RequestAdmissionError(denied, "timeout"), CoordinatorUnavailable("away")):
        admission.acquire_errors = [error]
        with pytest.raises(type(error)) as caught:
            await make().execute(ModelRequest(resource=RESOURCE, call=Calls(admission)))
        assert caught.value is error
    assert admission.steps == ["acquire", "acquire"]


async def test_nothing_is_sent_under_a_lease_that_may_be_lost(
    admission: FakeAdmission, make: Make
) -> None:
    calls = Calls(admission)
    admission.held_errors = [MembershipLost("asleep")]
    with pytest.raises(MembershipLost, match="asleep"):
        await make().execute_attempt(ModelRequest(resource=RESOURCE, call=calls))
    assert calls.made == 0
    assert admission.outcomes[0].kind is KINDS.LOCAL_CANCELLED
    assert admission.outcomes[0].usage == TokenUsage()


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


async def test_a_fault_of_the_check_itself_frees_the_lease_and_is_not_retried(
    admission: FakeAdmission, make: Make
) -> None:
    admission.held_errors = [TypeError("bug")]
    with pytest.raises(TypeError, match="bug"):
        await make().execute(ModelRequest(resource=RESOURCE, call=Calls(admission)))
    assert admission.outcomes[0].kind is KINDS.LOCAL_CANCELLED


async def test_cancelling_a_call_frees_its_lease_and_goes_on(
    admission: FakeAdmission, make: Make
) -> None:
    async def call() -> None:
        await asyncio.Event().wait()

    executor = make()
    task = asyncio.create_task(executor.execute(ModelRequest(resource=RESOURCE, call=call)))
    await wait_until(lambda: bool(admission.live))
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError, match="why"):
        await task
    assert admission.outcomes[0].kind is KINDS.LOCAL_CANCELLED
    await executor.aclose()
    assert admission.steps == ["acquire", "release local_cancelled", "acknowledged"]


async def test_a_release_that_is_not_answered_delays_neither_answer_nor_cancellation(
    admission: FakeAdmission, make: Make
) -> None:
    answered = asyncio.Event()
    admission.acknowledge = answered.wait
    executor = make()
    await executor.execute(ModelRequest(resource=RESOURCE, call=Calls(admission)))
    with pytest.raises(asyncio.CancelledError):
        await executor.execute(
            ModelRequest(resource=RESOURCE, call=Calls(admission, asyncio.CancelledError()))
        )
    assert "acknowledged" not in admission.steps
    answered.set()
    await executor.aclose()
    assert admission.steps.count("acknowledged") == 2


async def test_cancelling_a_retry_that_waits_for_its_release_leaves_the_release_alone(
    admission: FakeAdmission, make: Make
) -> None:
    answered = asyncio.Event()
    waiting = asyncio.Event()

    async def acknowledge() -> None:
        waiting.set()
        await answered.wait()

    admission.acknowledge = acknowledge
    executor = make()
    calls = Calls(admission, OUTAGE)
    task = asyncio.create_task(executor.execute(ModelRequest(resource=RESOURCE, call=calls)))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    answered.set()
    await executor.aclose()
    assert admission.steps == ["acquire", "call", "release provider_failure", "acknowledged"]


async def test_a_release_under_way_survives_the_garbage_collector(
    admission: FakeAdmission, make: Make
) -> None:
    waiting: list[weakref.ref[asyncio.Future[None]]] = []

    async def acknowledge() -> None:
        future = asyncio.get_running_loop().create_future()
        waiting.append(weakref.ref(future))
        await future

    admission.acknowledge = acknowledge
    executor = make()
    await executor.execute(ModelRequest(resource=RESOURCE, call=Calls(admission)))
    await wait_until(lambda: bool(waiting))
    gc.collect()
    future = waiting[0]()
    assert future is not None
    future.set_result(None)
    await executor.aclose()
    assert admission.steps[-1] == "acknowledged"


async def test_a_release_that_fails_hides_neither_answer_nor_error(
    admission: FakeAdmission, make: Make
) -> None:
    async def fail() -> None:
        raise RuntimeError("against the contract")

    admission.acknowledge = fail
    executor = make()
    calls = Calls(admission, OUTAGE)
    assert await executor.execute(ModelRequest(resource=RESOURCE, call=calls)) == "answer"
    await executor.aclose()


async def test_a_classifier_that_fails_costs_no_lease_and_hides_no_error(
    admission: FakeAdmission, make: Make
) -> None:
    class Broken(DefaultClassifier):
        def classify_exception(self, *_: object, **__: object) -> RequestReleaseOutcome:
            raise RuntimeError("broken")

        def is_retryable(self, _: RequestReleaseOutcome) -> bool:
            raise RuntimeError("broken")

    with pytest.raises(ProviderHTTPError) as caught:
        await make(classifier=Broken()).execute(
            ModelRequest(resource=RESOURCE, call=Calls(admission, OUTAGE))
        )
    assert caught.value is OUTAGE
    assert admission.outcomes[0].kind is KINDS.UNEXPECTED_EXCEPTION
    assert admission.outcomes[0].diagnostics == {"error_type": "ProviderHTTPError"}


async def test_the_classifier_can_be_replaced(admission: FakeAdmission, make: Make) -> None:
    class Patient(DefaultClassifier):
        def is_retryable(self, _: RequestReleaseOutcome) -> bool:
            return True

    calls = Calls(admission, REFUSAL)
    executor = make(classifier=Patient())
    assert await executor.execute(ModelRequest(resource=RESOURCE, call=calls)) == "answer"


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
