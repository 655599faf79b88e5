"""Operations and replies of ``lua/tasks/batch.lua`` as values; pure functions (spec 02, 04)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

from contracts.errors import TaskAdmissionError
from contracts.identity import TaskGroupKey
from contracts.tasks import (
    Admission,
    RunCell,
    RunProgress,
    SchedulableTask,
    SchedulerResourceRequest,
    TaskAdmissionBlockSummary,
    TaskAdmissionLease,
    TaskDenialReason,
)
from coordinator.keys import check_id, encode
from coordinator.operations import Args

RESOURCE_SAFE: Final = ":/"
"""Kept readable in resource names besides letters, digits and ``._-~``."""


def operation(name: str, *args: str | int | bytes) -> Args:
    """Return an operation as it stands in ARGV: its name, how many arguments, the arguments."""
    return (name, len(args), *args)


def encode_resource(resource: str) -> str:
    """Return a resource's name as it stands in keys and signatures."""
    return quote(resource, safe=RESOURCE_SAFE)


def encode_group(key: TaskGroupKey) -> str:
    """Return a group's name as it stands in keys: kind and identity, each part encoded."""
    return "/".join(encode(part) for part in (key.kind.value, *key.identity))


def signature(request: SchedulerResourceRequest) -> str:
    """Return a request's amounts in one canonical text: sorted, ``name=amount``, comma between."""
    return ",".join(
        f"{encode_resource(resource)}={amount}"
        for resource, amount in sorted(request.amounts.items())
    )


def parse_signature(text: str) -> dict[str, int]:
    """Return the amounts that a signature stands for."""
    pairs = (item.rsplit("=", 1) for item in text.split(","))
    return {unquote(name): int(amount) for name, amount in pairs}


def submit_args(task: SchedulableTask) -> Args:
    """Return the operation that puts a task into the queue."""
    limit = task.group.admitted_limit
    expires = task.expires_seconds
    return operation(
        "submit",
        check_id("task id", task.task_id),
        encode_group(task.group.key),
        repr(task.group.weight),
        "" if limit is None else limit,
        signature(task.resource_request),
        round(max(0.0, task.delay_seconds) * 1e6),
        task.payload,
        "" if expires is None else max(1, round(expires * 1000)),
    )


def check_accepted(terms: Sequence[Any], what: str) -> bool:
    """Return whether it was new; raise if it was refused.

    Raises:
        TaskAdmissionError: it asks for an unknown resource, or for more than its limit.
    """
    match terms:
        case ["accepted"]:
            return True
        case ["known"]:
            return False
        case ["refused", "unknown_resource", resource]:
            raise TaskAdmissionError(
                "unknown_resource",
                f"{what} asks for resource {unquote(resource)!r}, which this pool does not have;"
                " set a limit for it first (set_limit), or ask for another.",
            )
        case ["refused", reason, resource]:
            raise TaskAdmissionError(
                str(reason),
                f"{what} asks for more of {unquote(resource)!r} than its limit; ask for less or"
                " raise the limit.",
            )
        case _:
            raise TaskAdmissionError("unexpected", f"{what} was answered with {terms!r}.")


def decode_admission(terms: Sequence[Any], generation: str, member_id: str) -> Admission:
    """Return what ``["admitted", leases, queued, reasons]`` says."""
    _word, leases, queued, reasons = terms
    counted = {TaskDenialReason(reason): int(n) for reason, n in dict(reasons).items()}
    return Admission(
        leases=tuple(_decode_lease(lease, generation, member_id) for lease in leases),
        blocked=TaskAdmissionBlockSummary(queued_count=queued, reasons=counted) if queued else None,
    )


def _decode_lease(terms: Sequence[str], generation: str, member_id: str) -> TaskAdmissionLease:
    lease_id, task_id, group, amounts, acquired_us, score, run, column, number = terms
    return TaskAdmissionLease(
        lease_id=lease_id,
        task_id=unquote(task_id),
        group=group,
        resources=parse_signature(amounts),
        acquired_at=int(acquired_us) / 1e6,
        generation=generation,
        member_id=member_id,
        score=int(float(score)),
        cell=RunCell(run_id=unquote(run), column_index=int(column), number=int(number))
        if run
        else None,
    )


def cell_values(values: Mapping[int, Mapping[str, str]]) -> list[str | int]:
    """Return values of cells, by record and column, as they follow a finish in ARGV.

    Args:
        values: record -> column -> its value as JSON text.
    """
    return [
        part
        for record, row in values.items()
        for column, value in row.items()
        for part in (record, encode(column), value)
    ]


def decode_progress(terms: Sequence[Any]) -> RunProgress:
    """Return what ``["progress", done, dropped, open, written, ready]`` says."""
    _word, done, dropped, row_groups_open, written, ready = terms
    return RunProgress(
        records_done=done,
        records_dropped=dropped,
        row_groups_open=row_groups_open,
        row_groups_written=written,
        ready_to_write=tuple(ready),
    )
