"""Values of task admission: what waits, what may run, how it ended (spec 02, *Tasks*)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from contracts.errors import ConfigurationError
from contracts.identity import (
    SUBMISSION,
    RequestResourceKey,
    SchedulerResourceKey,
    TaskGroupSpec,
    check_name,
)


class TaskDenialReason(StrEnum):
    """Why a ready task may not start."""

    NO_CAPACITY = "no_capacity"
    GROUP_CAP = "group_cap"
    BORROW_DEBT = "borrow_debt"
    RESERVED = "reserved"
    NEVER_FITS = "never_fits"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"
    POLICY_DENIAL = "policy_denial"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerResourceRequest:
    """Amounts that a task needs all at once, or it gets none.

    Attributes:
        amounts: resource -> units, each at least 1.
    """

    amounts: Mapping[SchedulerResourceKey, int] = field(default_factory=lambda: {SUBMISSION: 1})

    def __post_init__(self) -> None:
        for resource, amount in self.amounts.items():
            check_name("resource", resource)
            if isinstance(amount, bool) or not isinstance(amount, int) or amount < 1:
                raise ConfigurationError(
                    f"resource {resource!r} is asked for with amount {amount!r}, expected a whole"
                    " number from 1 on; leave out what is not needed."
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulableTask:
    """A task on its way into the queue.

    Attributes:
        task_id: stable; submitting it again while it is known adds nothing.
        payload: the arq job, serialised.
        group: its fair-queue group.
        resource_request: what it needs from the ledger.
        request_resource: the provider/model domain that it will ask most, as a hint.
        delay_seconds: not before this long from now.
        expires_seconds: after which the payload is dropped; None keeps it while it is queued.
    """

    task_id: str
    payload: bytes
    group: TaskGroupSpec
    resource_request: SchedulerResourceRequest = field(default_factory=SchedulerResourceRequest)
    request_resource: RequestResourceKey | None = None
    delay_seconds: float = 0.0
    expires_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCell:
    """Which cell, or row group of cells, of which run a task makes.

    Attributes:
        run_id: the run.
        column_index: place of the column in the run's plan, from 1.
        number: the record, or the row group where the column makes a row group at once.
    """

    run_id: str
    column_index: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAdmissionLease:
    """The right to run one task now; no code of it runs before this exists.

    Attributes:
        lease_id: names this admission of the task, so that a finish cannot hit a later one.
        task_id: the task.
        group: its group, as it stands in keys.
        resources: amounts taken from the ledger.
        acquired_at: server time in seconds.
        generation: the shard's generation.
        member_id: the member that holds it.
        score: available-at in milliseconds, as arq's ``run_job`` wants it.
        cell: for a task of a run, which cell.
    """

    lease_id: str
    task_id: str
    group: str
    resources: Mapping[SchedulerResourceKey, int]
    acquired_at: float
    generation: str
    member_id: str
    score: int
    cell: RunCell | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAdmissionBlockSummary:
    """Why a queue that has work admits none.

    Attributes:
        queued_count: ready tasks.
        reasons: denial reasons, counted by resource signature.
    """

    queued_count: int
    reasons: Mapping[TaskDenialReason, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The answer to ``admit``.

    Attributes:
        leases: tasks to start now.
        blocked: set where fewer were given than asked for.
    """

    leases: tuple[TaskAdmissionLease, ...]
    blocked: TaskAdmissionBlockSummary | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedTaskScheduling:
    """What the resolver makes of a generator's metadata.

    Attributes:
        group: fair-queue group with weight and admitted limit.
        resource_request: ledger amounts.
        request_resource: the provider/model domain, where there is one.
        diagnostics: what the resolver had to assume.
    """

    group: TaskGroupSpec
    resource_request: SchedulerResourceRequest
    request_resource: RequestResourceKey | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """Where a run stands.

    Attributes:
        records_done: whole records, all columns there.
        records_dropped: records given up with a reason.
        row_groups_open: row groups that have records missing.
        row_groups_written: row groups whose records are on disk.
        ready_to_write: row groups that are through and wait to be written out, in order.
    """

    records_done: int
    records_dropped: int
    row_groups_open: int
    row_groups_written: int
    ready_to_write: tuple[int, ...]
