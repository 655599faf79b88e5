"""Values of request admission: what is asked, what is decided, how an attempt ended (spec 02)."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.events import RequestEventContext
from forebay.contracts.identity import (
    RequestGroupSpec,
    RequestResourceKey,
    check_choice,
    check_name,
    check_type,
    shown,
)


class RequestDenialReason(StrEnum):
    """Why no lease was given.

    Attributes:
        NO_CAPACITY: every slot of the window or of the static cap is held (``try_acquire``).
        COOLDOWN: the domain pauses after a rate limit (``try_acquire``).
        QUOTA: a budget has no room for the cost now (``try_acquire``).
        QUEUED_WAITERS_AHEAD: somebody waits who comes first (``try_acquire``).
        QUEUE_TIMEOUT: the wait ended before a slot came.
        CANCELLATION: the wait was cancelled.
        SHUTDOWN: the controller was closed.
        HARD_POLICY_DENIAL: it could never be granted, such as on an unregistered resource.
    """

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

    ``success`` may grow it, ``rate_limited`` lowers it and may cool down (rule ``aimd``: once per
    congestion event), the failures count in diagnostics only, the local ones and ``member_lost``
    only free the lease.
    """

    SUCCESS = "success"
    RATE_LIMITED = "rate_limited"
    PROVIDER_FAILURE = "provider_failure"
    PROVIDER_TIMEOUT = "provider_timeout"
    LOCAL_CANCELLED = "local_cancelled"
    LOCAL_TIMEOUT = "local_timeout"
    UNEXPECTED_EXCEPTION = "unexpected_exception"
    MEMBER_LOST = "member_lost"


class RateLimitScope(StrEnum):
    """What a rate limit's hint speaks of, where the provider says.

    Attributes:
        QUOTA: a budget of requests or tokens, not load: the domain is blocked at once until the
            stated refill, and the window is not cut.
    """

    QUOTA = "quota"


class ReleaseReason(StrEnum):
    """What a release found.

    Attributes:
        RELEASED: the lease, which is free now; once per lease.
        DUPLICATE: it had been released before.
        STALE_LEASE: it had ended otherwise, or is another member's.
        WRONG_GENERATION: nothing of that name, which an older state of the server granted.
        UNKNOWN_LEASE: nothing of that name.
        DEFERRED: no answer within the caller's own deadline; the release goes on by itself.
    """

    RELEASED = "released"
    DUPLICATE = "duplicate"
    STALE_LEASE = "stale_lease"
    WRONG_GENERATION = "wrong_generation"
    UNKNOWN_LEASE = "unknown_lease"
    DEFERRED = "deferred"


MAX_COST: Final = 1_000_000_000
"""Largest estimate of an attempt in tokens: no budget is as large."""


_OF_THE_RESOURCE: Final = RequestGroupSpec()
"""The group of an item that names none, made once: items are made for every call."""


def _check_number(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(
            f"{what} is {shown(value)}, expected a number of seconds or None; convert it."
        )


def check_wait(seconds: float) -> None:
    """Refuse what is no wait in a queue; None, for ever, is for the caller to pass over.

    Raises:
        ConfigurationError: no number of seconds from 0 on.
    """
    _check_number("queue_wait_timeout_seconds", seconds)
    if not seconds >= 0:  # not "<": NaN is below nothing
        raise ConfigurationError(
            f"queue_wait_timeout_seconds is {shown(seconds)}, expected a number from 0 on; use 0 to"
            " take only what is free now, None to wait for ever."
        )


def _check_tokens(what: str, count: object) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ConfigurationError(
            f"{what} is {shown(count)}, expected a whole number of tokens from 0 on; round it."
        )


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
            ever (or for the controller's default), infinity for ever; more than a year is a year.
        cost: estimated tokens of the attempt, for quotas, 0..10^9; None counts as 0.
        event_context: correlation captured when the item was made.

    Raises:
        ConfigurationError: a value that cannot be asked with; nothing was sent.
    """

    resource: RequestResourceKey
    group: RequestGroupSpec = _OF_THE_RESOURCE
    attempt_id: str = field(default_factory=new_attempt_id)
    queue_wait_timeout_seconds: float | None = None
    cost: int | None = None
    event_context: RequestEventContext | None = None

    def __post_init__(self) -> None:
        check_type("resource of a request", self.resource, RequestResourceKey)
        check_type("group of a request", self.group, RequestGroupSpec)
        check_name("attempt id", self.attempt_id)
        if self.queue_wait_timeout_seconds is not None:
            check_wait(self.queue_wait_timeout_seconds)
        if self.cost is not None:
            _check_tokens("cost", self.cost)
            if self.cost > MAX_COST:
                raise ConfigurationError(
                    f"cost is {shown(self.cost)}, expected at most {MAX_COST} tokens; split the"
                    " request."
                )
        if self.event_context is not None:
            check_type("event_context of a request", self.event_context, RequestEventContext)


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

    Raises:
        ConfigurationError: an id or item with which no release could be sent.
    """

    lease_id: str
    item: RequestAdmissionItem
    acquired_at: float
    limit_at_admission: int
    cuts_at_admission: int
    effective_max: int
    generation: str
    member_id: str

    def __post_init__(self) -> None:
        check_type("item of a lease", self.item, RequestAdmissionItem)
        check_name("lease id", self.lease_id)
        check_name("generation of a lease", self.generation)


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
    """Real tokens of an attempt, as the provider reported them; any whole number from 0 on.

    Raises:
        ConfigurationError: a count that is none.
    """

    input_tokens: int = 0
    output_tokens: int = 0

    def __post_init__(self) -> None:
        _check_tokens("input_tokens", self.input_tokens)
        _check_tokens("output_tokens", self.output_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReleaseOutcome:
    """How an attempt ended; what cannot be released is refused here, as releasing never raises.

    Attributes:
        kind: its effect on the window, its text ("success") is taken as well; never
            ``member_lost``, which the system alone writes.
        retry_after_seconds: the provider's hint with a ``rate_limited``; ignored unless finite
            and positive, clamped to the resource's ``max_cooldown_seconds``.
        scope: what that hint speaks of; None is load, as is any scope without a usable hint. The
            hint of a ``quota`` is believed for up to 31 days.
        provider_status: HTTP status, where there was one.
        usage: real tokens, settles the quota.
        diagnostics: JSON-compatible details; never a prompt, completion or body.

    Raises:
        ConfigurationError: a value of the wrong type, or ``member_lost``.
    """

    kind: RequestOutcomeKind
    retry_after_seconds: float | None = None
    scope: RateLimitScope | None = None
    provider_status: int | None = None
    usage: TokenUsage | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if type(self.kind) is not RequestOutcomeKind:
            kind = check_choice("outcome kind", self.kind, RequestOutcomeKind)
            object.__setattr__(self, "kind", kind)
        if self.kind is RequestOutcomeKind.MEMBER_LOST:
            raise ConfigurationError(
                "outcome kind is member_lost, which the system alone writes when a member's"
                " heartbeat is overdue; use local_cancelled for an attempt that was given up."
            )
        if self.retry_after_seconds is not None:
            _check_number("retry_after_seconds", self.retry_after_seconds)
        if self.scope is not None and type(self.scope) is not RateLimitScope:
            scope = check_choice("scope of a rate limit", self.scope, RateLimitScope)
            object.__setattr__(self, "scope", scope)
        if self.provider_status is not None:
            check_type("provider_status", self.provider_status, int)
        if self.usage is not None:
            check_type("usage of an outcome", self.usage, TokenUsage)
        check_type("diagnostics of an outcome", self.diagnostics, Mapping)


SUCCESS = RequestReleaseOutcome(kind=RequestOutcomeKind.SUCCESS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseResult:
    """What a release did: ``released`` is True exactly once per lease."""

    released: bool
    reason: ReleaseReason
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


ClassifyException = Callable[[Exception], RequestReleaseOutcome]
"""Reads from what a provider call raised how its attempt ended; sees no cancellation."""


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

    def acquire_sync(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        """Do as ``acquire``, blocking a thread in which no event loop runs.

        Raises:
            ConfigurationError: an event loop runs in this thread.
        """
        ...

    def release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> Awaitable[ReleaseResult]:
        """Give a lease back; under way at once, never raises."""
        ...
