"""Correlation of the two event streams (spec 02, *Events*): primitives only."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeCorrelation:
    """Which task of which run an attempt belongs to; ids, never values."""

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
"""Set by the worker around a task; follows child asyncio tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestEventContext:
    """What an event of an attempt says of its origin, captured when the item is made."""

    captured_correlation: RuntimeCorrelation | None = None
    task_execution_id: str | None = None
    request_attempt_id: str | None = None


def captured_context(attempt_id: str) -> RequestEventContext:
    """Return the context of an attempt that is asked for here and now."""
    correlation = current_correlation.get()
    return RequestEventContext(
        captured_correlation=correlation,
        task_execution_id=correlation.task_execution_id if correlation else None,
        request_attempt_id=attempt_id,
    )
