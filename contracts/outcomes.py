"""Outcomes of attempts and tasks, and results of releasing their leases (design 02, *Requests*)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from forebay.contracts.checks import check_choice, check_seconds, check_tokens, check_type
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import SchedulerResourceKey


class RequestOutcomeKind(StrEnum):
    """Outcomes of an attempt, documented by their effect on the window (design 03, *The window*).

    ``success`` may grow it, ``rate_limited`` lowers it and may cool down (rule ``aimd``: once per
    congestion event), the failures count in diagnostics only, the local ones and ``member_lost``
    only free the lease.

    Attributes:
        SUCCESS: the provider answered.
        RATE_LIMITED: the provider refused for its rate limit or load.
        PROVIDER_FAILURE: the provider answered with a fault, or the connection broke.
        PROVIDER_TIMEOUT: the provider did not answer in time.
        LOCAL_CANCELLED: the caller gave the attempt up.
        LOCAL_TIMEOUT: the caller's own deadline ended the attempt.
        UNEXPECTED_EXCEPTION: code around the call raised what is no outcome of a provider.
        MEMBER_LOST: the holder's heartbeat was overdue; written by the scripts alone.
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
    """The limit of the provider that a rate limit's hint concerns, if stated.

    Attributes:
        QUOTA: a budget of requests or tokens, not load: the domain is blocked at once until the
            stated refill, and the window is not cut.
    """

    QUOTA = "quota"


class ReleaseReason(StrEnum):
    """Whether a release ended its lease, and if not, why.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Real tokens of an attempt, as the provider reported them; any whole number from 0 on.

    Attributes:
        input_tokens: tokens that the model read.
        output_tokens: tokens that the model wrote, those of reasoning too.

    Raises:
        ConfigurationError: a count that is none.
    """

    input_tokens: int = 0
    output_tokens: int = 0

    def __post_init__(self) -> None:
        check_tokens("input_tokens", self.input_tokens)
        check_tokens("output_tokens", self.output_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReleaseOutcome:
    """The outcome of an attempt; an unusable one raises here, as a release never raises.

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

    Example:
        >>> refused = forebay.RequestReleaseOutcome(kind="rate_limited", retry_after_seconds=2.0)
        >>> refused.kind
        <RequestOutcomeKind.RATE_LIMITED: 'rate_limited'>
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
            check_seconds("retry_after_seconds", self.retry_after_seconds)
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
    """The result of a release call: ``released`` is True exactly once per lease.

    Attributes:
        released: whether this call freed the lease.
        reason: whether the lease was freed, and if not, why.
        diagnostics: JSON-compatible details.
    """

    released: bool
    reason: ReleaseReason
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


ClassifyException = Callable[[Exception], RequestReleaseOutcome]
"""Maps a provider call's exception to the attempt's outcome; never gets a cancellation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCompleted:
    """A task is over.

    Attributes:
        result: arq's serialised result, empty for none.
        result_seconds: how long it is kept; None for ever.
        keep_in_progress_seconds: how long arq's in-progress mark stays (cron jobs).
        cells: for a task of a run, what it made: record -> column -> value as JSON text.
    """

    result: bytes = field(default=b"", repr=False)
    result_seconds: float | None = None
    keep_in_progress_seconds: float | None = None
    cells: Mapping[int, Mapping[str, str]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailure:
    """Why one try of a run's task failed.

    Attributes:
        reason: a code and a short text, never a value.
        model: provider and model whose call failed, such as ``openai/gpt-4.1``; empty for none.
        status: HTTP status of its answer, or the kind of error where there was no answer, such as
            ``timeout``; empty for none.
    """

    reason: str
    model: str = ""
    status: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDeferred:
    """A task goes back into the queue, in its old place among its group's.

    Attributes:
        delay_seconds: not before this long from now.
        counts: what this admission was: a ``try``; ``nothing``, as in an orderly stop; or a
            ``loss``, as where its code was cut off by something in its process that nobody knows.
        cooling: the resource that it waits for: of a run, all tasks that ask for it wait with it.
        failure: why this try failed. A task of a run then waits for the next salvage round of its
            row group, and for ``delay_seconds`` at least.
    """

    delay_seconds: float = 0.0
    counts: Literal["try", "nothing", "loss"] = "try"
    cooling: SchedulerResourceKey | None = None
    failure: TaskFailure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDropped:
    """A task of a run that cannot succeed: its records are dropped.

    Attributes:
        failure: why.
    """

    failure: TaskFailure


TaskOutcome = TaskCompleted | TaskDeferred | TaskDropped
"""The outcome of an admitted task."""
