"""Callers: they ask for a lease, call the provider under it, give it back, and begin again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple, Protocol

from bench.simulate.provider import Provider
from forebay.contracts.identity import (
    ProviderModelKey,
    RequestDomain,
    RequestGroupSpec,
    RequestResourceKey,
)
from forebay.contracts.outcomes import RequestOutcomeKind, RequestReleaseOutcome
from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.simulation.timeline import Timeline, to_us
from forebay.workers.providers.recorded import RecordedAnswer, replayed

PROVIDER_MODEL: Final = ProviderModelKey(provider_name="simulated", model_id="model")
TOO_LARGE: Final = RecordedAnswer(
    host="api.openai.com",
    status=429,
    headers={"content-type": "application/json"},
    body={
        "error": {
            "message": "Request too large for m on tokens per min (TPM): Limit 30000, Requested"
            " 40000. The input or output tokens must be reduced in order to run successfully.",
            "type": "tokens",
            "code": "rate_limit_exceeded",
        }
    },
)
"""The answer to a hopeless call."""
_SUCCESS: Final = RequestReleaseOutcome(kind=RequestOutcomeKind.SUCCESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """Some callers of a fleet that are alike, spread over its members.

    Attributes:
        count: callers that call one after another, without a pause.
        per_second: calls that begin at random instants besides, so many in the mean.
        domain: whose window admits them.
        tenant: the fair queue's group.
        weight: of that group.
        is_hopeless: each call is larger than the provider's limit can ever hold; it is refused at
            once, counts against nobody's limit there, and is no answer of the run.
        backs_off: a refused call sleeps before it asks again, as the OpenAI SDK does; else it asks
            at once, the queue being its back-off.
    """

    count: int = 0
    per_second: float = 0.0
    domain: RequestDomain = RequestDomain.CHAT
    tenant: str = "all"
    weight: float = 1.0
    is_hopeless: bool = False
    backs_off: bool = False


class Answer(NamedTuple):
    """The answer of a simulated provider to one call.

    Attributes:
        at_us: when the caller knew.
        is_success: else it was refused.
        fleet: the number of its fleet.
        tenant: whose call it was.
    """

    at_us: int
    is_success: bool
    fleet: int
    tenant: str


class Admission(Protocol):
    """A source of leases: a member of a fleet, or the oracle that knows the provider's limits."""

    is_alive: bool

    def acquire(
        self, item: RequestAdmissionItem, on_granted: Callable[[RequestAdmissionLease], None]
    ) -> None:
        """Wait for a lease."""
        ...

    def release(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome) -> None:
        """Release the slot."""
        ...

    def admits(self) -> bool:
        """Decide on the call that arrives at the provider now under a lease of this."""
        ...

    def leave(self) -> None:
        """A call that was admitted has ended at the provider."""
        ...


@dataclass(slots=True, kw_only=True)
class World:
    """State that all simulated callers share.

    Attributes:
        timeline: when things happen.
        provider: whom they call.
        shortest_way_us: from a caller to the provider, and the same back.
        delay_us: the mean of what a busy machine adds to each way, exponentially.
        random: draws pauses and delays.
        answers: what all of them were answered, in order.
    """

    timeline: Timeline
    provider: Provider
    shortest_way_us: int
    delay_us: int
    random: Random
    answers: list[Answer] = field(default_factory=list)

    def way_us(self) -> int:
        """Draw how long one way takes now."""
        delay_us = round(self.random.expovariate(1 / self.delay_us)) if self.delay_us else 0
        return self.shortest_way_us + delay_us


class Caller:
    """One simulated caller, or one call of an open load.

    Args:
        world: what it shares with the others.
        admission: what grants it leases.
        callers: what it does.
        fleet: the number of its fleet.
        name: never used before.
        is_endless: after an answer it begins the next call.
    """

    __slots__ = (
        "_admission",
        "_attempts",
        "_callers",
        "_fleet",
        "_group",
        "_is_endless",
        "_lease",
        "_name",
        "_refusals",
        "_resource",
        "_world",
    )

    def __init__(
        self,
        world: World,
        admission: Admission,
        callers: Callers,
        fleet: int,
        name: str,
        *,
        is_endless: bool,
    ) -> None:
        self._world = world
        self._admission = admission
        self._callers = callers
        self._fleet = fleet
        self._name = name
        self._is_endless = is_endless
        self._attempts = 0
        self._refusals = 0
        self._resource = RequestResourceKey(provider_model=PROVIDER_MODEL, domain=callers.domain)
        self._group = RequestGroupSpec(key=callers.tenant, weight=callers.weight)
        self._lease: RequestAdmissionLease | None = None

    def ask(self) -> None:
        """Ask for the lease of the next attempt."""
        self._attempts += 1
        item = RequestAdmissionItem(
            resource=self._resource,
            group=self._group,
            attempt_id=f"{self._name}n{self._attempts}",
        )
        self._admission.acquire(item, self._granted)

    def _granted(self, lease: RequestAdmissionLease) -> None:
        self._lease = lease
        self._world.timeline.after(self._world.way_us(), self._arrive)

    def _arrive(self) -> None:
        world = self._world
        if not self._admission.is_alive:
            return  # it was killed before the bytes had left
        if self._callers.is_hopeless:
            world.timeline.after(world.way_us(), self._refused_for_ever)
        elif self._admission.admits():
            world.timeline.after(world.provider.latency_us(), self._served)
        else:
            world.timeline.after(world.way_us(), self._answered, False)

    def _served(self) -> None:
        self._admission.leave()
        self._world.timeline.after(self._world.way_us(), self._answered, True)

    def _refused_for_ever(self) -> None:
        if self._admission.is_alive and self._lease is not None:
            self._admission.release(self._lease, replayed(TOO_LARGE).outcome)

    def _answered(self, is_success: bool) -> None:
        world, lease = self._world, self._lease
        if not self._admission.is_alive or lease is None:
            return
        now_us = world.timeline.now_us
        world.answers.append(Answer(now_us, is_success, self._fleet, self._callers.tenant))
        if is_success:
            self._refusals = 0
            self._admission.release(lease, _SUCCESS)
            if self._is_endless:
                self.ask()
            return
        self._refusals += 1
        hint = world.provider.hint_at(now_us)
        refused = RequestReleaseOutcome(
            kind=RequestOutcomeKind.RATE_LIMITED, retry_after_seconds=hint
        )
        self._admission.release(lease, refused)
        if self._callers.backs_off:
            world.timeline.after(to_us(self._pause_seconds(hint)), self.ask)
        else:
            self.ask()

    def _pause_seconds(self, hint: float | None) -> float:
        """Return how long the OpenAI SDK sleeps before it tries again."""
        if hint is not None:
            return hint
        longest = min(8.0, 0.5 * 2.0 ** min(self._refusals - 1, 8))
        return longest * (1 - 0.25 * self._world.random.random())
