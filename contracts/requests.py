"""Values of request admission: what is asked, what is decided, how an attempt ended (spec 02)."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from contracts.events import RequestEventContext
from contracts.identity import RequestGroupSpec, RequestResourceKey


class RequestDenialReason(StrEnum):
    """Why no lease was given."""

    NO_CAPACITY = "no_capacity"
    COOLDOWN = "cooldown"
    QUOTA = "quota"
    QUEUED_WAITERS_AHEAD = "queued_waiters_ahead"
    QUEUE_TIMEOUT = "queue_timeout"
    CANCELLATION = "cancellation"
    SHUTDOWN = "shutdown"
    HARD_POLICY_DENIAL = "hard_policy_denial"


class RequestOutcomeKind(StrEnum):
    """How an attempt ended, documented by its effect on the window (spec 03, *The window*).

    ``success`` grows it, ``rate_limited`` cuts it once per congestion event and cools down, the
    failures count in diagnostics only, the local ones and ``member_lost`` only free the lease.
    """

    SUCCESS = "success"
    RATE_LIMITED = "rate_limited"
    PROVIDER_FAILURE = "provider_failure"
    PROVIDER_TIMEOUT = "provider_timeout"
    LOCAL_CANCELLED = "local_cancelled"
    LOCAL_TIMEOUT = "local_timeout"
    UNEXPECTED_EXCEPTION = "unexpected_exception"
    MEMBER_LOST = "member_lost"


class ReleaseReason(StrEnum):
    """What a release found."""

    RELEASED = "released"
    DUPLICATE = "duplicate"
    STALE_LEASE = "stale_lease"
    WRONG_GENERATION = "wrong_generation"
    UNKNOWN_LEASE = "unknown_lease"
    DEFERRED = "deferred"


def new_attempt_id() -> str:
    """Return a fresh attempt id: 32 hexadecimal characters."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAdmissionItem:
    """One outbound attempt that asks for a lease.

    Attributes:
        resource: the provider/model and domain.
        group: who asks, for the fair queue.
        attempt_id: the idempotency key, made by the caller; it becomes the lease id.
        queue_wait_timeout_seconds: longest wait; 0 takes only what is free now, None waits for
            ever (or for the controller's default).
        cost: estimated tokens of the attempt, for quotas; None counts as 0.
        event_context: correlation captured when the item was made.
    """

    resource: RequestResourceKey
    group: RequestGroupSpec = field(default_factory=RequestGroupSpec)
    attempt_id: str = field(default_factory=new_attempt_id)
    queue_wait_timeout_seconds: float | None = None
    cost: int | None = None
    event_context: RequestEventContext | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAdmissionLease:
    """The right to make one provider call now.

    Attributes:
        lease_id: the item's attempt id.
        item: what was asked.
        acquired_at: server time of the grant, in seconds.
        limit_at_admission: the window when it was granted.
        cuts_at_admission: how often the window had been cut by then; its 429 cuts the window
            only while that number stands.
        effective_max: the window's ceiling by caps and clamps at that instant.
        generation: the shard's generation.
        member_id: the member that holds it.
    """

    lease_id: str
    item: RequestAdmissionItem
    acquired_at: float
    limit_at_admission: int
    cuts_at_admission: int
    effective_max: int
    generation: str
    member_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAdmissionDenied:
    """No lease, and why.

    Attributes:
        item: what was asked.
        reason: the rule that said no.
        retry_after_seconds: when asking again may help, from now; None if unknown.
        available_at: the same instant as server time in seconds; None if unknown.
        snapshot: a capture of the domain, where one was at hand.
        diagnostics: JSON-compatible details.
    """

    item: RequestAdmissionItem
    reason: RequestDenialReason
    retry_after_seconds: float | None = None
    available_at: float | None = None
    snapshot: Mapping[str, Any] | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


RequestAdmissionDecision = RequestAdmissionLease | RequestAdmissionDenied


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Real tokens of an attempt, as the provider reported them."""

    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReleaseOutcome:
    """How an attempt ended.

    Attributes:
        kind: its effect on the window.
        retry_after_seconds: the provider's hint with a ``rate_limited``; ignored unless finite
            and positive, clamped to the resource's ``max_cooldown_seconds``.
        provider_status: HTTP status, where there was one.
        usage: real tokens, settles the quota.
        diagnostics: JSON-compatible details; never a prompt, completion or body.
    """

    kind: RequestOutcomeKind
    retry_after_seconds: float | None = None
    provider_status: int | None = None
    usage: TokenUsage | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


SUCCESS = RequestReleaseOutcome(kind=RequestOutcomeKind.SUCCESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseResult:
    """What a release did: ``released`` is True exactly once per lease."""

    released: bool
    reason: ReleaseReason
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


class RequestAdmissionController(Protocol):
    """Grants and takes back request leases."""

    async def try_acquire(self, item: RequestAdmissionItem) -> RequestAdmissionDecision:
        """Decide at once; never waits and never overtakes a waiter."""
        ...

    async def acquire(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        """Wait in the fair queue for a lease.

        Raises:
            RequestAdmissionError: denied; carries the reason.
            CoordinatorError: the shared state could not be used.
        """
        ...

    def release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> Awaitable[ReleaseResult]:
        """Give a lease back; under way at once, never raises."""
        ...
