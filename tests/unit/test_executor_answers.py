"""What an answer tells, and who reads it, in the outcome of its lease (design 03, *Executor*)."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import httpx2
import pytest

from forebay.contracts.identity import RequestDomain, RequestResourceKey
from forebay.contracts.outcomes import RequestReleaseOutcome, TokenUsage
from forebay.contracts.quotas import QuotaBudget, QuotaReading
from forebay.workers.model_request import ModelRequest
from forebay.workers.providers.classification import DefaultClassifier
from forebay.workers.providers.openai_answers import ProviderCompletion, ProviderHTTPError
from forebay.workers.providers.openai_client import OpenAICompatibleClient
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

ANSWERS = {
    RequestDomain.CHAT: {"choices": [{"message": {"content": "x"}}]},
    RequestDomain.EMBEDDING: {"data": [{"index": 0, "embedding": [1.0]}]},
    RequestDomain.IMAGE: {"data": [{"url": "http://p/1"}]},
    RequestDomain.HEALTHCHECK: {"data": []},
}


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


class Interrupted(BaseException):
    pass


class InterruptedClassifier(DefaultClassifier):
    def classify_exception(self, *_: object, **__: object) -> RequestReleaseOutcome:
        raise Interrupted

    def classify_response(self, *_: object, **__: object) -> RequestReleaseOutcome:
        raise Interrupted


async def test_a_classifier_that_is_interrupted_costs_no_lease(
    admission: FakeAdmission, make: Make
) -> None:
    async def answered() -> httpx2.Response:
        return httpx2.Response(200)

    for call in (Calls(admission, OUTAGE), answered):
        with pytest.raises(Interrupted):
            await make(classifier=InterruptedClassifier()).execute(
                ModelRequest(resource=RESOURCE, call=call)
            )
    assert not admission.live
    assert [outcome.kind for outcome in admission.outcomes] == [KINDS.UNEXPECTED_EXCEPTION] * 2


async def test_the_classifier_can_be_replaced(admission: FakeAdmission, make: Make) -> None:
    class Patient(DefaultClassifier):
        def is_retryable(self, _: RequestReleaseOutcome) -> bool:
            return True

    calls = Calls(admission, REFUSAL)
    executor = make(classifier=Patient())
    assert await executor.execute(ModelRequest(resource=RESOURCE, call=calls)) == "answer"


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
