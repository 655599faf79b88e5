"""Events of tasks in a process go to its sinks (design 07, *Two streams*)."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from forebay.contracts.events import RuntimeCorrelation
from forebay.contracts.outcomes import (
    ReleaseReason,
    ReleaseResult,
    TaskCompleted,
    TaskDeferred,
    TaskDropped,
    TaskFailure,
    TaskOutcome,
)
from forebay.contracts.tasks import (
    AdmittedTask,
    TaskAdmissionBlockSummary,
    TaskAdmissionLease,
    TaskDenialReason,
)
from forebay.coordinator.event_outlet import SILENT, EventOutlet, ShardInstant
from forebay.coordinator.tasks.events import TaskEvents
from forebay.sinks import MemorySink

LEASE = TaskAdmissionLease(
    lease_id="t~1",
    item=AdmittedTask(
        task_id="t", group="g", payload=None, available_ms=0, job_try=1, is_aborted=False, cell=None
    ),
    resources={},
    acquired_at=7.0,
    generation="born",
    member_id="m",
)
BLOCKED = TaskAdmissionBlockSummary(
    queued_count=5,
    reasons={TaskDenialReason.NO_CAPACITY: 1, TaskDenialReason.GROUP_CAP: 4},
)


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def events(sink: MemorySink) -> TaskEvents:
    return TaskEvents(EventOutlet([sink]), "pool", lambda: (9.0, 4))


def test_a_granted_task_is_selected_and_leased_at_the_pools_time(
    events: TaskEvents, sink: MemorySink
) -> None:
    events.admitted([LEASE], None)

    assert sink.kinds() == ["selected", "task_lease_acquired"]
    assert {event.captured_at for event in sink.events} == {7.0}
    assert sink.events[0].correlation == RuntimeCorrelation(
        task_type="job", task_execution_id="t~1"
    )


def test_a_workers_health_shows_its_counts_and_what_its_sinks_lost(
    events: TaskEvents, sink: MemorySink
) -> None:
    worker = SimpleNamespace(max_jobs=9, jobs_complete=4, jobs_failed=2, jobs_retried=1)
    events.health(worker, 3)

    [told] = sink.events
    assert (told.event_kind, told.captured_at) == ("scheduler_health_snapshot", 9.0)
    assert told.snapshot == {
        "slots": 9, "running": 3, "completed": 4, "failed": 2, "retried": 1, "events_lost": 0
    }  # fmt: skip


def test_an_ask_that_gets_nothing_says_why(events: TaskEvents, sink: MemorySink) -> None:
    events.admitted([], None)
    events.admitted([], BLOCKED)

    assert sink.kinds() == ["queue_empty", "admission_blocked", "group_capped"]
    assert sink.events[1].reason_or_outcome == "group_cap"
    assert sink.events[1].snapshot == {
        "queued_count": 5, "reasons": {"no_capacity": 1, "group_cap": 4}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (TaskCompleted(), "task_completed"),
        (TaskDeferred(), "retry_deferred"),
        (TaskDropped(failure=TaskFailure(reason="bad")), "non_retryable_dropped"),
    ],
)
@pytest.mark.parametrize("is_held", [True, False])
async def test_a_task_ends_once_and_its_lease_when_that_is_acknowledged(
    events: TaskEvents, sink: MemorySink, outcome: TaskOutcome, kind: str, *, is_held: bool
) -> None:
    released: asyncio.Future[ReleaseResult] = asyncio.get_running_loop().create_future()
    events.ended(LEASE, outcome, released)
    assert sink.kinds() == [kind]

    reason = ReleaseReason.RELEASED if is_held else ReleaseReason.STALE_LEASE
    released.set_result(ReleaseResult(released=is_held, reason=reason))
    await asyncio.sleep(0)  # the turn in which callbacks run
    assert sink.kinds() == [kind, "task_lease_released" if is_held else "release_diagnostic"]


async def test_nothing_is_asked_of_a_process_without_sinks() -> None:
    def unexpected() -> ShardInstant:
        raise AssertionError("the pool's time was asked for")

    events = TaskEvents(SILENT, "pool", unexpected)
    released: asyncio.Future[ReleaseResult] = asyncio.get_running_loop().create_future()
    events.admitted([LEASE], BLOCKED)
    events.ended(LEASE, TaskCompleted(), released)
    released.cancel()
