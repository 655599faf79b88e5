"""Events of tasks in one process: asks, leases, starts and ends (design 07, *Two streams*)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol, assert_never

from forebay.contracts.event_kinds import SchedulerEventKind as Kind
from forebay.contracts.events import EventStream, EventSubject, RuntimeCorrelation
from forebay.contracts.identity import SUBMISSION
from forebay.contracts.outcomes import (
    ReleaseResult,
    TaskCompleted,
    TaskDeferred,
    TaskDropped,
    TaskOutcome,
)
from forebay.contracts.tasks import (
    TaskAdmissionBlockSummary,
    TaskAdmissionLease,
    TaskDenialReason,
)
from forebay.coordinator.event_outlet import EventOutlet, ShardClock

OF_NO_TASK: Final = EventSubject(stream=EventStream.SCHEDULER)
"""Subject of events of a whole worker."""
_SUBMISSION: Final = str(SUBMISSION)


class WorkerCounts(Protocol):
    """Counters of an arq worker: its slots, and the jobs that ended since its start."""

    max_jobs: int
    jobs_complete: int
    jobs_failed: int
    jobs_retried: int


class TaskEvents:
    """Gives the events of a pool's tasks in this process to its sinks, if any takes them.

    Args:
        outlet: of this process.
        pool: its name.
        clock: returns the instant of the pool.
    """

    def __init__(self, outlet: EventOutlet, pool: str, clock: ShardClock) -> None:
        self._outlet = outlet
        self._clock = clock
        self._of_pool: Final = {"pool": pool}

    def scheduler(self, kind: Kind, *, slots: int) -> None:
        """Emit that this process begins to take tasks, or has ended its last one."""
        if self._outlet.takes_tasks:
            self._emit(kind, OF_NO_TASK, diagnostics=self._of_pool | {"slots": slots})

    def health(self, worker: WorkerCounts, running: int) -> None:
        """Emit `scheduler_health_snapshot`, as often as the worker records its health."""
        if self._outlet.takes_tasks:
            snapshot = {
                "slots": worker.max_jobs,
                "running": running,
                "completed": worker.jobs_complete,
                "failed": worker.jobs_failed,
                "retried": worker.jobs_retried,
                "events_lost": sum(self._outlet.lost.values()),
            }
            self._emit(
                Kind.SCHEDULER_HEALTH_SNAPSHOT,
                OF_NO_TASK,
                snapshot=snapshot,
                diagnostics=self._of_pool,
            )

    def admitted(
        self, leases: Sequence[TaskAdmissionLease], blocked: TaskAdmissionBlockSummary | None
    ) -> None:
        """Emit the granted leases of an ask, and the reasons that held back other tasks."""
        if not self._outlet.takes_tasks:
            return
        _, sequence = self._clock()
        for lease in leases:
            subject, instant = _subject_of(lease), (lease.acquired_at, sequence)
            self._outlet.emit(Kind.SELECTED, subject, instant, diagnostics=self._of_pool)
            self._outlet.emit(
                Kind.TASK_LEASE_ACQUIRED,
                subject,
                instant,
                snapshot={"resources": {str(key): n for key, n in lease.resources.items()}},
                diagnostics=self._of_pool | {"member_id": lease.member_id},
            )
        if blocked is not None:
            self._emit_blocked(blocked)
        elif not leases:
            self._emit(Kind.QUEUE_EMPTY, OF_NO_TASK, diagnostics=self._of_pool)

    def of_lease(self, kind: Kind, lease: TaskAdmissionLease) -> None:
        """Emit an event of a task in its worker."""
        if self._outlet.takes_tasks:
            self._emit(kind, _subject_of(lease), diagnostics=self._of_pool)

    def ended(
        self, lease: TaskAdmissionLease, outcome: TaskOutcome, result: asyncio.Future[ReleaseResult]
    ) -> None:
        """Emit the end of a task at once, and of its lease when the release is acknowledged."""
        if not self._outlet.takes_tasks:
            return
        subject = _subject_of(lease)
        kind, word = _end_of(outcome)
        self._emit(kind, subject, reason=word, diagnostics=self._of_pool)

        def acknowledged(done: asyncio.Future[ReleaseResult]) -> None:
            if done.cancelled() or done.exception() is not None:
                return
            released = done.result()
            end = Kind.TASK_LEASE_RELEASED if released.released else Kind.RELEASE_DIAGNOSTIC
            reason = word if released.released else released.reason.value
            self._emit(end, subject, reason=reason, diagnostics=self._of_pool)

        result.add_done_callback(acknowledged)

    def _emit_blocked(self, blocked: TaskAdmissionBlockSummary) -> None:
        reasons = {reason.value: count for reason, count in blocked.reasons.items()}
        snapshot = {"queued_count": blocked.queued_count, "reasons": reasons}
        most = max(reasons, key=lambda reason: reasons[reason], default=None)
        for kind in _kinds_of(blocked):
            self._emit(kind, OF_NO_TASK, reason=most, snapshot=snapshot, diagnostics=self._of_pool)

    def _emit(self, kind: Kind, subject: EventSubject, **more: Any) -> None:
        self._outlet.emit(kind, subject, self._clock(), **more)


def correlation_of(lease: TaskAdmissionLease) -> RuntimeCorrelation:
    """Return the correlation of a lease: its task, try and run."""
    cell = lease.item.cell
    return RuntimeCorrelation(
        run_id=None if cell is None else cell.run_id,
        task_type="job" if cell is None else "cell",
        task_execution_id=lease.lease_id,
    )


def _kinds_of(blocked: TaskAdmissionBlockSummary) -> list[Kind]:
    kinds = [Kind.ADMISSION_BLOCKED]
    if TaskDenialReason.GROUP_CAP in blocked.reasons:
        kinds.append(Kind.GROUP_CAPPED)
    return kinds


def _end_of(outcome: TaskOutcome) -> tuple[Kind, str]:
    match outcome:
        case TaskCompleted():
            return Kind.TASK_COMPLETED, "completed"
        case TaskDeferred():
            return Kind.RETRY_DEFERRED, "deferred"
        case TaskDropped():
            return Kind.NON_RETRYABLE_DROPPED, "dropped"
        case _:
            assert_never(outcome)


def _subject_of(lease: TaskAdmissionLease) -> EventSubject:
    """Return the subject of the events of a task's try."""
    keys = [str(key) for key in lease.resources]
    return EventSubject(
        stream=EventStream.SCHEDULER,
        correlation=correlation_of(lease),
        task_id=lease.item.task_id,
        task_execution_id=lease.lease_id,
        task_lease_id=lease.lease_id,
        scheduler_resource_key=next((key for key in keys if key != _SUBMISSION), _SUBMISSION),
    )
