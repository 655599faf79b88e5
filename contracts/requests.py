"""Values of request admission: items, leases and denials (design 02, *Requests*)."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from forebay.contracts.checks import check_name, check_tokens, check_type, check_wait, shown
from forebay.contracts.errors import ConfigurationError, ForebayError
from forebay.contracts.events import RequestEventContext
from forebay.contracts.identity import RequestGroupSpec, RequestResourceKey
from forebay.contracts.outcomes import ReleaseResult, RequestReleaseOutcome
from forebay.contracts.snapshots import RequestPressure


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


MAX_COST: Final = 1_000_000_000
"""Largest estimate of an attempt in tokens: no budget is as large."""


_OF_THE_RESOURCE: Final = RequestGroupSpec()
"""The default group of an item; made once, as every call makes an item."""


def new_attempt_id() -> str:
    """Return a fresh attempt id: 32 hexadecimal characters."""
    return secrets.token_hex(16)


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
        input_estimate: the part of ``cost`` that is an estimate of the input; the shard multiplies
            it by the factor learned from real usage. None: ``cost`` is taken as it is.
        event_context: correlation captured when the item was made.

    Raises:
        ConfigurationError: a value that cannot be asked with; nothing was sent.

    Example:
        >>> item = forebay.RequestAdmissionItem(resource=chat, queue_wait_timeout_seconds=10.0)
        >>> len(item.attempt_id)
        32
    """

    resource: RequestResourceKey
    group: RequestGroupSpec = _OF_THE_RESOURCE
    attempt_id: str = field(default_factory=new_attempt_id)
    queue_wait_timeout_seconds: float | None = None
    cost: int | None = None
    input_estimate: int | None = None
    event_context: RequestEventContext | None = None

    def __post_init__(self) -> None:
        check_type("resource of a request", self.resource, RequestResourceKey)
        check_type("group of a request", self.group, RequestGroupSpec)
        check_name("attempt id", self.attempt_id)
        if self.queue_wait_timeout_seconds is not None:
            check_wait(self.queue_wait_timeout_seconds)
        if self.cost is not None:
            check_tokens("cost", self.cost)
            if self.cost > MAX_COST:
                raise ConfigurationError(
                    f"cost is {shown(self.cost)}, expected at most {MAX_COST} tokens; split the"
                    " request."
                )
        if self.input_estimate is not None:
            check_tokens("input_estimate", self.input_estimate)
            if self.input_estimate > (self.cost or 0):
                raise ConfigurationError(
                    f"input_estimate is {shown(self.input_estimate)}, expected at most the cost,"
                    f" {shown(self.cost)}, of which it is a part; raise the cost."
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
        degraded: whether the member gave it itself, of its part of the window, while the server
            was away (``on_unavailable="local_share"``).

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
    degraded: bool = False

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


class RequestAdmissionError(ForebayError):
    """An acquire was denied; nothing was sent and no lease is held.

    Attributes:
        denied: the reason, with when it may change.

    Example:
        >>> with forebay.connect(url) as requests:
        ...     try:
        ...         lease = requests.acquire(forebay.RequestAdmissionItem(resource=chat))
        ...     except forebay.RequestAdmissionError as error:
        ...         print(error.denied.reason)
        hard_policy_denial
    """

    def __init__(self, denied: RequestAdmissionDenied, message: str) -> None:
        super().__init__(message)
        self.denied = denied


RequestAdmissionDecision = RequestAdmissionLease | RequestAdmissionDenied


class RequestAdmissionController(Protocol):
    """Grants and takes back request leases."""

    @property
    def pressure(self) -> RequestPressure:
        """The reader of windows, leases and waiters."""
        ...

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
        """Release a lease; the release is sent at once, and never raises."""
        ...
