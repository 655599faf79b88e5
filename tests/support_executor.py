"""Stand-ins for what an executor works with: request admission and a provider."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.outcomes import (
    ReleaseReason,
    ReleaseResult,
    RequestOutcomeKind,
    RequestReleaseOutcome,
)
from forebay.contracts.quotas import QuotaReading
from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.workers.executor import ModelRequestExecutor
from forebay.workers.providers.openai_answers import ProviderHTTPError

KINDS = RequestOutcomeKind
RESOURCE = RequestResourceKey(provider_model=ProviderModelKey(provider_name="p", model_id="m"))
RATE_LIMIT = ProviderHTTPError(429, {"retry-after": "9"})
OUTAGE = ProviderHTTPError(500, {})
REFUSAL = ProviderHTTPError(400, {})


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
        self.release_results: list[ReleaseResult] = []
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
        if self.release_results:
            return self.release_results.pop(0)
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


Make = Callable[..., ModelRequestExecutor]
