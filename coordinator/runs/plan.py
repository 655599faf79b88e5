"""The plan of a run: the part of a workflow that the completion tracker needs.

Rules: design 05, *Workflow files*.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from forebay.contracts.scheduling import ResolvedTaskScheduling
from forebay.contracts.workflow import PlannedColumn, TaskType, Workflow
from forebay.coordinator.keys import encode
from forebay.coordinator.tasks.names import encode_group, encode_resource, signature

CELL_FUNCTION: Final = "forebay_cell"
"""Name of the function of members that make cells of runs."""


def function_of_key(variable: str) -> str:
    """Return the function name of members that have a provider's key in this variable.

    Nothing is ever submitted for it: it lets others count such members, and says no key.
    """
    return f"forebay_key {variable}"


SCOPE_LETTER: Final = {TaskType.FROM_SCRATCH: "g", TaskType.BATCH: "g", TaskType.CELL: "r"}
"""Whether the number of a task is one of a row group or of a record."""


def build_plan(
    workflow: Workflow, scheduling: Sequence[ResolvedTaskScheduling], limits: Mapping[str, int]
) -> str:
    """Return the plan as JSON.

    Args:
        workflow: the checked workflow.
        scheduling: group and resources of each column, in the order of the workflow.
        limits: the run's claims of resources while it has a driver.

    Returns:
        What ``lua/lib/runs/tracker.lua`` reads: sizes, limits, and per column its name, scope,
        inputs (what it waits for), outputs, the columns it feeds (counted from 1), group, weight,
        admitted limit, signature, function; ``skip`` names the column whose ``true`` skips a cell,
        and ``keeps`` says that it is made though a column that it needs was skipped.
    """
    waits = awaited(workflow.columns)
    plan = {
        "records": workflow.record_count,
        "buffer_size": workflow.buffer_size,
        "row_groups": workflow.row_group_count,
        "max_open": workflow.max_concurrent_row_groups,
        "max_rows": workflow.max_admitted_rows,
        "max_retries": workflow.retry_budget,
        "max_error_rate": workflow.max_error_rate,
        "min_error_window": workflow.min_error_window,
        "admission": workflow.row_group_admission,
        "skips": any(column.condition is not None for column in workflow.columns),
        "limits": {encode_resource(resource): limit for resource, limit in limits.items()},
        "columns": [
            _column(workflow.columns, waits, index, resolved)
            for index, resolved in enumerate(scheduling)
        ],
    }
    return json.dumps(plan, separators=(",", ":"))


def awaited(columns: Sequence[PlannedColumn]) -> list[frozenset[int]]:
    """Return the columns that each column waits for, as indices.

    A cell waits for its inputs. A batch waits for every column that does not wait for it: each may
    drop records, and a batch has those that are left, so that which ones it has is no matter of
    time. Of two such batches the second one waits for the first.
    """
    waits = [frozenset(column.depends_on) for column in columns]
    for index, column in reversed([*enumerate(columns)]):
        if column.task_type is TaskType.BATCH:
            waits[index] = frozenset(range(len(columns))) - _waiting_for(waits, index)
    return waits


def _waiting_for(waits: Sequence[frozenset[int]], index: int) -> set[int]:
    """Return a column and all columns that depend on it, directly or not."""
    found = {index}
    while more := {other for other, its in enumerate(waits) if its & found} - found:
        found |= more
    return found


def _column(
    columns: Sequence[PlannedColumn],
    waits: Sequence[frozenset[int]],
    index: int,
    resolved: ResolvedTaskScheduling,
) -> Mapping[str, object]:
    column = columns[index]
    others = waits[index] - frozenset(column.depends_on)
    inputs = [*column.inputs, *(columns[other].outputs[0] for other in sorted(others))]
    limit = resolved.group.admitted_limit
    return {
        "name": encode(column.outputs[0]),
        "scope": SCOPE_LETTER[column.task_type],
        "inputs": [encode(name) for name in inputs],
        "outputs": [encode(name) for name in column.outputs],
        "feeds": [place for place, its in enumerate(waits, 1) if index in its],
        "group": encode_group(resolved.group.key),
        "weight": resolved.group.weight,
        "admitted_limit": "" if limit is None else str(limit),
        "signature": signature(resolved.resource_request),
        "fn": CELL_FUNCTION,
        "keeps": not getattr(column.spec, "propagate_skip", False),
    } | ({} if column.condition is None else {"skip": encode(column.condition)})
