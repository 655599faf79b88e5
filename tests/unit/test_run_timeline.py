"""What the bench of runs takes for a broken timeline, and which instants it reads from one."""

from __future__ import annotations

from typing import Any

import pytest

from bench.run_timeline import first_cell_seconds, first_row_group_seconds, problems


def events(*named: dict[str, Any]) -> list[dict[str, str]]:
    """Return events a second apart, numbered in order."""
    found = []
    for number, one in enumerate(named):
        event = {"sequence": number, "at_us": number * 1_000_000, **one}
        found.append({name: str(value) for name, value in event.items()})
    return found


BEGUN = {"kind": "task_lease_acquired", "lease_id": "1", "task_id": "run:text:r0"}
ENDED = {
    "kind": "task_lease_released",
    "lease_id": "1",
    "task_id": "run:text:r0",
    "outcome": "completed",
}


def test_a_lease_that_ends_once_in_order_is_no_problem() -> None:
    assert problems(events(BEGUN, ENDED)) == []


@pytest.mark.parametrize(
    "broken",
    [
        events(BEGUN),
        events(BEGUN, ENDED, ENDED),
        events(BEGUN, ENDED | {"at_us": -1}),
        events(BEGUN, ENDED | {"sequence": 2}),
    ],
    ids=["never ends", "ends twice", "goes back", "misses an event"],
)
def test_a_broken_timeline_is_a_problem(broken: list[dict[str, str]]) -> None:
    assert len(problems(broken)) == 1


def test_the_first_cell_of_a_column_is_the_first_that_was_made() -> None:
    other = ENDED | {"task_id": "run:other:r0"}
    dropped = ENDED | {"outcome": "dropped"}
    group = {"kind": "row_group_checkpointed"}
    timeline = events(BEGUN, other, dropped, ENDED, group, ENDED)
    assert first_cell_seconds(timeline, "text") == 3.0
    assert first_row_group_seconds(timeline) == 4.0
    assert first_cell_seconds(timeline, "none") is None
