"""Events of the two streams, their correlation, and the interfaces of sinks.

Rules: design 02, *Events*.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, Protocol, runtime_checkable

from forebay.contracts.identity import RequestResourceKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeCorrelation:
    """The task and run of an attempt, as ids."""

    run_id: str | None = None
    row_group: int | None = None
    task_column: str | None = None
    task_type: str | None = None
    scheduling_group_kind: str | None = None
    scheduling_group_identity_hash: str | None = None
    task_execution_id: str | None = None


current_correlation: ContextVar[RuntimeCorrelation | None] = ContextVar(
    "forebay_correlation", default=None
)
"""Correlation of the running task; set by the worker, inherited by child asyncio tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEventContext:
    """Correlation and execution id of an attempt's events, captured when the item is made.

    Attributes:
        captured_correlation: the run, record and column that the attempt belongs to, where known.
        task_execution_id: the try of the task that makes the attempt.
        request_attempt_id: the attempt.
    """

    captured_correlation: RuntimeCorrelation | None = None
    task_execution_id: str | None = None
    request_attempt_id: str | None = None


def captured_context(attempt_id: str) -> RequestEventContext:
    """Return the event context of an attempt that the running task begins now."""
    correlation = current_correlation.get()
    return RequestEventContext(
        captured_correlation=correlation,
        task_execution_id=correlation.task_execution_id if correlation else None,
        request_attempt_id=attempt_id,
    )


class EventStream(StrEnum):
    """The two event streams: ``scheduler`` for tasks, ``request`` for attempts."""

    SCHEDULER = "scheduler"
    REQUEST = "request"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeEvent:
    """One event of a process; docs/events.md says what each kind means.

    It carries ids, names, numbers and reasons: never a prompt, an answer, a row's value, a secret
    or the text of an exception.

    Attributes:
        event_kind: what happened, as `SchedulerEventKind` or `RequestEventKind` names it.
        stream: to which stream it belongs.
        captured_at: server time of the shard in seconds; where no reply of the shard has come yet,
            this process's own, and ``diagnostics`` holds ``"clock": "process"``.
        ordinal: number of the event within this process, from 1; later events have larger ones.
        correlation: the task that it belongs to; None is uncorrelated.
        task_id: of a task.
        task_execution_id: of one try of a task.
        task_lease_id: of a task's lease.
        request_attempt_id: of an attempt.
        request_lease_id: of an attempt's lease.
        scheduler_resource_key: a resource of the task's pool.
        request_resource_key: provider, model and domain.
        request_group_key: the request group that asked; None is the resource's own.
        reason_or_outcome: one of a bounded set of words.
        snapshot: numbers of the instant, such as the window under which a lease was given.
        diagnostics: further JSON-compatible details.
    """

    event_kind: str
    stream: EventStream
    captured_at: float
    ordinal: int
    correlation: RuntimeCorrelation | None = None
    task_id: str | None = None
    task_execution_id: str | None = None
    task_lease_id: str | None = None
    request_attempt_id: str | None = None
    request_lease_id: str | None = None
    scheduler_resource_key: str | None = None
    request_resource_key: RequestResourceKey | None = None
    request_group_key: str | None = None
    reason_or_outcome: str | None = None
    snapshot: Mapping[str, Any] = field(default_factory=dict)
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the fields that are set, as JSON-compatible values; ``correlation`` always."""
        found = _set_fields_of(self, _EVENT_FIELDS)
        found["stream"] = self.stream.value
        resource, correlation = self.request_resource_key, self.correlation
        if resource is not None:
            found["request_resource_key"] = {
                "provider_name": resource.provider_model.provider_name,
                "model_id": resource.provider_model.model_id,
                "domain": resource.domain.value,
            }
        for name, details in (("snapshot", self.snapshot), ("diagnostics", self.diagnostics)):
            if details:
                found[name] = dict(details)
        found["correlation"] = correlation and _set_fields_of(correlation, _CORRELATION_FIELDS)
        return found


_CORRELATION_FIELDS: Final = tuple(one.name for one in fields(RuntimeCorrelation))
_EVENT_FIELDS: Final = tuple(
    one.name
    for one in fields(RuntimeEvent)
    if one.name not in {"correlation", "request_resource_key", "snapshot", "diagnostics"}
)
"""Fields of an event whose values are JSON as they stand; worked out once, not for each event."""


def _set_fields_of(one: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(one, name)) is not None}


@runtime_checkable
class SchedulerEventSink(Protocol):
    """Takes events of tasks; called on the event loop or a caller's thread, so it must not block.

    What it raises loses the event and is counted; it disturbs no work.
    """

    def emit_scheduler_event(self, event: RuntimeEvent) -> None:
        """Take one event of the stream ``scheduler``."""
        ...


@runtime_checkable
class RequestEventSink(Protocol):
    """Takes events of provider calls; otherwise as `SchedulerEventSink`."""

    def emit_request_event(self, event: RuntimeEvent) -> None:
        """Take one event of the stream ``request``."""
        ...


EventSink = SchedulerEventSink | RequestEventSink
