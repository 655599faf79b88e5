"""Events of the two streams, their correlation, and the interfaces of sinks.

Rules: design 02, *Events*.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import lru_cache
from math import isfinite
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

from forebay.contracts.identity import RequestResourceKey

NO_DETAILS: Final[Mapping[str, Any]] = MappingProxyType({})


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
class EventSubject:
    """The attempt or the task that events are about; made once for all of its events.

    Attributes:
        stream: the stream of these events.
        correlation: the task that an attempt belongs to, or the task itself; None is uncorrelated.
        task_id: of a task.
        task_execution_id: of one try of a task.
        task_lease_id: of a task's lease.
        request_attempt_id: of an attempt.
        scheduler_resource_key: the resource of the task's pool that it asks for; of several the
            one that is not every task's.
        request_resource_key: provider, model and domain.
        request_group_key: the request group that asked; None is the resource's own.
    """

    stream: EventStream
    correlation: RuntimeCorrelation | None = None
    task_id: str | None = None
    task_execution_id: str | None = None
    task_lease_id: str | None = None
    request_attempt_id: str | None = None
    scheduler_resource_key: str | None = None
    request_resource_key: RequestResourceKey | None = None
    request_group_key: str | None = None
    _json_members: str = field(default="", init=False, repr=False, compare=False)

    @property
    def json_members(self) -> str:
        """The fields that are set, as members of a JSON object; encoded the first time."""
        if not self._json_members:
            object.__setattr__(self, "_json_members", _members_text(self))
        return self._json_members


class RuntimeEvent(NamedTuple):
    """One event of a process; docs/events.md says what each kind means.

    It carries ids, names, numbers and reasons: never a prompt, an answer, a row's value, a secret
    or the text of an exception. A named tuple, as a frozen dataclass takes three times as long to
    make, and each attempt makes six.

    Attributes:
        event_kind: what happened, as `SchedulerEventKind` or `RequestEventKind` names it.
        subject: the attempt or task; its fields are fields of the event as well.
        captured_at: server time of the shard in seconds; where no reply of the shard has come yet,
            this process's own, and ``diagnostics`` holds ``"clock": "process"``.
        ordinal: number of the event within this process, from 1; later events have larger ones.
        sequence: number of the shard's last event, as of its last reply to this process; None
            before a reply.
        request_lease_id: of an attempt's lease.
        reason_or_outcome: one of a bounded set of words.
        snapshot: numbers of the instant, such as the window under which a lease was given.
        diagnostics: further JSON-compatible details.
    """

    event_kind: str
    subject: EventSubject
    captured_at: float
    ordinal: int
    sequence: int | None = None
    request_lease_id: str | None = None
    reason_or_outcome: str | None = None
    snapshot: Mapping[str, Any] = NO_DETAILS
    diagnostics: Mapping[str, Any] = NO_DETAILS

    @property
    def stream(self) -> EventStream:
        """The stream that the event belongs to."""
        return self.subject.stream

    @property
    def correlation(self) -> RuntimeCorrelation | None:
        """The task that the event belongs to; None is uncorrelated."""
        return self.subject.correlation

    @property
    def task_id(self) -> str | None:
        """The id of the task."""
        return self.subject.task_id

    @property
    def task_execution_id(self) -> str | None:
        """The id of the try of the task."""
        return self.subject.task_execution_id

    @property
    def task_lease_id(self) -> str | None:
        """The id of the task's lease."""
        return self.subject.task_lease_id

    @property
    def request_attempt_id(self) -> str | None:
        """The id of the attempt."""
        return self.subject.request_attempt_id

    @property
    def scheduler_resource_key(self) -> str | None:
        """The resource of the task's pool."""
        return self.subject.scheduler_resource_key

    @property
    def request_resource_key(self) -> RequestResourceKey | None:
        """Provider, model and domain of the attempt."""
        return self.subject.request_resource_key

    @property
    def request_group_key(self) -> str | None:
        """The request group that asked; None is the resource's own."""
        return self.subject.request_group_key

    def as_json(self) -> dict[str, Any]:
        """Return the fields that are set, as JSON-compatible values; ``correlation`` always."""
        found: dict[str, Any] = json.loads(self.as_json_text())
        return found

    def as_json_text(self) -> str:
        """Return what `as_json` returns as one line of JSON.

        Raises:
            ValueError, TypeError: a value that JSON has not.
        """
        text = (
            f'{{"event_kind":"{self.event_kind}","captured_at":{self.captured_at!r}'
            f',"ordinal":{self.ordinal},{self.subject.json_members}'
        )
        if self.sequence is not None:
            text += f',"sequence":{self.sequence}'
        if self.request_lease_id is not None:
            text += f',"request_lease_id":{_quote(self.request_lease_id)}'
        if self.reason_or_outcome is not None:
            text += f',"reason_or_outcome":{_quote(self.reason_or_outcome)}'
        if self.snapshot:
            text += f',"snapshot":{_details_text(self.snapshot)}'
        if self.diagnostics:
            text += f',"diagnostics":{_details_text(self.diagnostics)}'
        return text + "}"


encode_json: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""Made once: `json.dumps` with options makes an encoder in each call."""
_quote: Final = json.encoder.encode_basestring_ascii
_CORRELATION_FIELDS: Final = tuple(one.name for one in fields(RuntimeCorrelation))
_SUBJECT_FIELDS: Final = (
    "task_id",
    "task_execution_id",
    "task_lease_id",
    "request_attempt_id",
    "scheduler_resource_key",
    "request_group_key",
)
"""Fields whose values are JSON as they stand."""


def _set_fields_of(one: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(one, name)) is not None}


@lru_cache(maxsize=1024)
def _resource_text(resource: RequestResourceKey) -> str:
    model = resource.provider_model
    return (
        f'{{"provider_name":{_quote(model.provider_name)},"model_id":{_quote(model.model_id)}'
        f',"domain":"{resource.domain}"}}'
    )


def _members_text(subject: EventSubject) -> str:
    """Return what all events of a subject have in common, as text."""
    parts = [f'"stream":"{subject.stream}"']
    for name in _SUBJECT_FIELDS:
        value = getattr(subject, name)
        if value is not None:
            parts.append(f'"{name}":{_quote(value)}')
    if subject.request_resource_key is not None:
        parts.append(f'"request_resource_key":{_resource_text(subject.request_resource_key)}')
    correlation = subject.correlation
    if correlation is None:
        parts.append('"correlation":null')
    else:
        parts.append(
            f'"correlation":{encode_json(_set_fields_of(correlation, _CORRELATION_FIELDS))}'
        )
    return ",".join(parts)


def _details_text(details: Mapping[str, Any]) -> str:
    """Return details as a JSON object; most are a few numbers, which need no encoder."""
    parts = []
    for name, value in details.items():
        is_plain = type(value) is int or (type(value) is float and isfinite(value))
        parts.append(f"{_quote(name)}:{repr(value) if is_plain else encode_json(value)}")
    return "{" + ",".join(parts) + "}"


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
