"""Values of task admission: tasks, leases and denials (design 02, *Tasks*)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from forebay.contracts.checks import (
    check_cap,
    check_instant,
    check_name,
    check_span,
    check_type,
    shown,
)
from forebay.contracts.errors import ConfigurationError, ForebayError
from forebay.contracts.identity import (
    SUBMISSION,
    RequestResourceKey,
    SchedulerResourceKey,
    TaskGroupSpec,
)

MOST_TRIES: Final = 1_000_000

Amounts = Mapping[SchedulerResourceKey, int]
"""Units by resource."""


class TaskDenialReason(StrEnum):
    """Why a ready task may not start, or a new one is not taken.

    ``not_served``: no member serves its function, or the one that asks does not. ``suspect``: it
    was lost with a member that died, and waits for a member that runs no other such task.
    ``cooldown``: its run's provider takes nothing for now.
    """

    NO_CAPACITY = "no_capacity"
    GROUP_CAP = "group_cap"
    BORROW_DEBT = "borrow_debt"
    RESERVED = "reserved"
    NEVER_FITS = "never_fits"
    PAUSED = "paused"
    NOT_SERVED = "not_served"
    SUSPECT = "suspect"
    COOLDOWN = "cooldown"
    SHUTDOWN = "shutdown"
    POLICY_DENIAL = "policy_denial"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerResourceRequest:
    """Amounts that a task needs all at once, or it gets none.

    Attributes:
        amounts: resource -> units, each at least 1.

    Raises:
        ConfigurationError: nothing is asked for, a wrong name, or an amount below 1.

    Example:
        >>> forebay.SchedulerResourceRequest(amounts={"submission": 1, "gpu": 2}).amounts["gpu"]
        2
    """

    amounts: Amounts = field(default_factory=lambda: {SUBMISSION: 1})

    def __post_init__(self) -> None:
        if not self.amounts:
            raise ConfigurationError(
                "a task asks for no resource at all, expected at least one unit of"
                f" {SUBMISSION!r}; leave the request out for that."
            )
        for resource, amount in self.amounts.items():
            check_name("resource", resource)
            if isinstance(amount, bool) or not isinstance(amount, int) or amount < 1:
                raise ConfigurationError(
                    f"resource {resource!r} is asked for with amount {shown(amount)}, expected a"
                    " whole number from 1 on; leave out what is not needed."
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulableTask:
    """A task on its way into the queue.

    Attributes:
        task_id: stable; submitting it again while it is known adds nothing. arq's keys are named by
            it, so an id that another pool holds is refused.
        payload: the arq job, serialised.
        group: its fair-queue group.
        resource_request: what it needs from the ledger.
        request_resource: the provider/model domain that it will ask most, as a hint.
        function: the function that runs it; refused where live workers serve others and not this
            one. None asks nobody.
        first_try: what its first try counts as, from 1.
        not_before: instant before which it does not start, in seconds since the epoch, as the
            server's clock counts them; None for now. One that is past is kept as arq's score.
        expires_seconds: after which the payload is dropped; None keeps it while it is queued.

    Raises:
        ConfigurationError: a wrong name, type or number.
    """

    task_id: str
    payload: bytes = field(repr=False)
    group: TaskGroupSpec
    resource_request: SchedulerResourceRequest = field(default_factory=SchedulerResourceRequest)
    request_resource: RequestResourceKey | None = None
    function: str | None = None
    first_try: int = 1
    not_before: float | None = None
    expires_seconds: float | None = None

    def __post_init__(self) -> None:
        check_name("task id", self.task_id)
        check_type(f"group of task {self.task_id!r}", self.group, TaskGroupSpec)
        check_type(
            f"resource_request of task {self.task_id!r}",
            self.resource_request,
            SchedulerResourceRequest,
        )
        check_cap(f"first_try of task {self.task_id!r}", self.first_try, MOST_TRIES)
        if self.not_before is not None:
            check_instant(f"not_before of task {self.task_id!r}", self.not_before)
        if self.expires_seconds is not None:
            check_span(f"expires_seconds of task {self.task_id!r}", self.expires_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCell:
    """The cell of a run, or the row group of cells, that a task makes.

    Attributes:
        run_id: the run.
        column_index: place of the column in the run's plan, from 1.
        number: the record, or the row group where the column makes a row group at once.
    """

    run_id: str
    column_index: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmittedTask:
    """A task as the queue stored it, read at its admission.

    Attributes:
        task_id: the task.
        group: its group, as it stands in keys.
        payload: the arq job; None for a cell, and where the reply that brought it was lost.
        available_ms: since when it might have run, server time in milliseconds: arq's score.
        job_try: which try this is, from 1.
        is_aborted: whether arq was asked to abort it while it waited.
        cell: for a task of a run, which cell.
    """

    task_id: str
    group: str
    payload: bytes | None = field(repr=False)
    available_ms: int
    job_try: int
    is_aborted: bool
    cell: RunCell | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAdmissionLease:
    """The right to run one task now; no code of it runs before this exists.

    Attributes:
        lease_id: names this admission of the task, so that a finish cannot hit a later one.
        item: the task.
        resources: amounts taken from the ledger.
        acquired_at: server time in seconds.
        generation: the shard's generation.
        member_id: the member that holds it.
    """

    lease_id: str
    item: AdmittedTask
    resources: Amounts
    acquired_at: float
    generation: str
    member_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAdmissionDenied:
    """A task that may not start, or is not taken, and why.

    Attributes:
        item: the task.
        reason: the rule that said no.
        available_at: server time in seconds at which it may change; None if unknown.
        snapshot: a capture of the pool, where one was at hand.
        diagnostics: JSON-compatible details, such as ``code`` and ``resource``.
    """

    item: SchedulableTask
    reason: TaskDenialReason
    available_at: float | None = None
    snapshot: Mapping[str, Any] | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


class TaskAdmissionError(ForebayError):
    """A submit was refused; nothing of it was queued.

    Attributes:
        reason: a stable snake_case name of the refusal: ``unknown_resource``, ``never_fits``,
            ``shutdown``, ``payload_too_large``, ``duplicate_id``, ``id_of_another_pool``.
        denied: the task and the rule that said no; None where a run was refused.
    """

    def __init__(
        self, reason: str, message: str, denied: TaskAdmissionDenied | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.denied = denied


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAdmissionBlockSummary:
    """Why a queue that has work admits none.

    Attributes:
        queued_count: ready tasks.
        reasons: denial reasons; from `explain_blocked` with how many tasks each holds back, of the
            first 100 groups; in an admission's answer with how many groups, but that
            ``never_fits``, ``not_served``, ``suspect`` and ``paused`` count tasks.
        available_at: server time in seconds at which time alone may change something; None where
            only a finish, a limit or an operator can.
        diagnostics: JSON-compatible details.
    """

    queued_count: int
    reasons: Mapping[TaskDenialReason, int]
    available_at: float | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The answer to ``admit``.

    Attributes:
        leases: tasks to start now.
        blocked: set where fewer were given than asked for and some are queued.
        expired: ids of tasks whose turn came and whose payload had expired, for ``queue.expire``;
            each comes again after a minute until it was ended so.
        lost: tasks that were lost with a member too often, each with those members, for
            ``queue.fail_lost``; as with ``expired``.
        writes_all_events: whether the pool writes the events of each task.
    """

    leases: tuple[TaskAdmissionLease, ...]
    blocked: TaskAdmissionBlockSummary | None
    expired: tuple[str, ...] = ()
    lost: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    writes_all_events: bool = False
