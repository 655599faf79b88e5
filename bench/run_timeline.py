"""Reads invariants and times of a run from the events of its pool. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

Event = Mapping[str, str]
_ENDS = ("task_lease_released", "retry_deferred", "task_lease_expired")


def problems(events: Sequence[Event]) -> list[str]:
    """Return broken invariants: instants that go back, leases that never end or end twice."""
    found = []
    for one, other in pairwise(events):
        if int(other["at_us"]) < int(one["at_us"]):
            found.append(f"event {other['sequence']} lies before event {one['sequence']}")
        if int(other["sequence"]) != int(one["sequence"]) + 1:
            found.append(f"event {other['sequence']} follows event {one['sequence']}")
    begun = [event["lease_id"] for event in events if event["kind"] == "task_lease_acquired"]
    ended = [event["lease_id"] for event in events if event["kind"] in _ENDS]
    if sorted(begun) != sorted(ended):
        found.append(f"{len(begun)} task leases began, and {len(ended)} ended")
    return found


def _column_of(task_id: str) -> str:
    return task_id.split(":")[1]


def first_cell_seconds(events: Sequence[Event], column: str) -> float | None:
    """Return after how long the first cell of a column was made; None where none was."""
    return _first(
        events,
        lambda event: (
            event["kind"] == "task_lease_released"
            and event["outcome"] == "completed"
            and _column_of(event["task_id"]) == column
        ),
    )


def first_row_group_seconds(events: Sequence[Event]) -> float | None:
    """Return after how long the first row group could be written; None where none could."""
    return _first(events, lambda event: event["kind"] == "row_group_checkpointed")


def _first(events: Sequence[Event], is_meant: Callable[[Event], bool]) -> float | None:
    for event in events:
        if is_meant(event):
            return (int(event["at_us"]) - int(events[0]["at_us"])) / 1e6
    return None
