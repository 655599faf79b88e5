"""The kinds of events that processes emit (design 02, *Events*); docs/events.md describes each."""

from __future__ import annotations

from enum import StrEnum


class SchedulerEventKind(StrEnum):
    """Kinds of ``scheduler`` events that a process gives to its sinks."""

    SCHEDULER_JOB_STARTED = "scheduler_job_started"
    SCHEDULER_JOB_COMPLETED = "scheduler_job_completed"
    SCHEDULER_HEALTH_SNAPSHOT = "scheduler_health_snapshot"
    SELECTED = "selected"
    QUEUE_EMPTY = "queue_empty"
    ADMISSION_BLOCKED = "admission_blocked"
    GROUP_CAPPED = "group_capped"
    TASK_LEASE_ACQUIRED = "task_lease_acquired"
    WORKER_SPAWNED = "worker_spawned"
    WORKER_SPAWN_FAILED = "worker_spawn_failed"
    RETRY_DEFERRED = "retry_deferred"
    NON_RETRYABLE_DROPPED = "non_retryable_dropped"
    TASK_COMPLETED = "task_completed"
    TASK_LEASE_RELEASED = "task_lease_released"
    RELEASE_DIAGNOSTIC = "release_diagnostic"


class RequestEventKind(StrEnum):
    """Kinds of ``request`` events that a process gives to its sinks."""

    REQUEST_WAIT_STARTED = "request_wait_started"
    REQUEST_WAIT_COMPLETED = "request_wait_completed"
    REQUEST_WAIT_TIMEOUT = "request_wait_timeout"
    REQUEST_WAIT_CANCELLED = "request_wait_cancelled"
    REQUEST_ACQUIRE_DENIED = "request_acquire_denied"
    REQUEST_LEASE_ACQUIRED = "request_lease_acquired"
    MODEL_REQUEST_STARTED = "model_request_started"
    MODEL_REQUEST_COMPLETED = "model_request_completed"
    REQUEST_LEASE_RELEASED = "request_lease_released"
