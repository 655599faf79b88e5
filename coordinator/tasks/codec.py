"""Operations and replies of ``lua/tasks/batch.lua`` as values; pure functions (spec 02, 04)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, assert_never
from urllib.parse import quote, unquote

from forebay.contracts.errors import CoordinatorError
from forebay.contracts.identity import TaskGroupKey
from forebay.contracts.outcomes import TaskCompleted, TaskDeferred, TaskDropped, TaskOutcome
from forebay.contracts.runs import CoolingResource, RunProgress
from forebay.contracts.task_policies import TaskAdmissionConfig
from forebay.contracts.tasks import (
    Admission,
    AdmittedTask,
    RunCell,
    SchedulableTask,
    SchedulerResourceRequest,
    TaskAdmissionBlockSummary,
    TaskAdmissionDenied,
    TaskAdmissionError,
    TaskAdmissionLease,
    TaskDenialReason,
)
from forebay.coordinator.keys import check_id, encode
from forebay.coordinator.shard.operation import Args

_COUNTS: Final = {"try": 0, "nothing": 1, "loss": 2}
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
    pairs = (item.rsplit("=", 1) for item in text.split(",") if item)
    return {unquote(name): int(amount) for name, amount in pairs}


def submit_args(task: SchedulableTask) -> Args:
    """Return the operation that puts a task into the queue."""
    limit = task.group.admitted_limit
    expires = task.expires_seconds
    return operation(
        "submit",
        encode(task.task_id),
        encode_group(task.group.key),
        repr(task.group.weight),
        "" if limit is None else limit,
        signature(task.resource_request),
        "" if task.not_before is None else round(task.not_before * 1e6),
        task.payload,
        "" if expires is None else milliseconds(expires),
        "" if task.function is None else check_id("function", task.function),
        task.first_try - 1,
    )


def milliseconds(seconds: float) -> int:
    """Return a span that the server can expire by: at least one millisecond."""
    return max(1, round(seconds * 1000))


def outcome_args(lease_id: str, outcome: TaskOutcome) -> Args:
    """Return the operation that ends a lease."""
    match outcome:
        case TaskCompleted():
            kept, mark = outcome.result_seconds, outcome.keep_in_progress_seconds
            return operation(
                "finish",
                lease_id,
                outcome.result,
                "" if kept is None else milliseconds(kept),
                "" if mark is None else milliseconds(mark),
                *cell_values(outcome.cells),
            )
        case TaskDeferred():
            delay_us = round(max(0.0, outcome.delay_seconds) * 1e6)
            cooling = "" if outcome.cooling is None else encode_resource(outcome.cooling)
            return operation("retry", lease_id, delay_us, _COUNTS[outcome.counts], cooling)
        case TaskDropped():
            return operation("drop", lease_id, outcome.reason)
        case _:
            assert_never(outcome)


def admit_args(
    slots: int, in_progress_seconds: float, under_pressure: Iterable[str], seen: int | None = None
) -> Args:
    """Return the operation that asks for tasks.

    Args:
        slots: how many at most.
        in_progress_seconds: how long arq's in-progress mark lives.
        under_pressure: resources whose provider has no room now.
        seen: number of the last task that was pushed to this member; None if it takes no pushes.
    """
    hints = ",".join(sorted(map(encode_resource, under_pressure)))
    mark = milliseconds(in_progress_seconds)
    return operation("admit", slots, mark, hints, "" if seen is None else seen)


def configure_args(config: TaskAdmissionConfig) -> Args:
    """Return the operation that sets a pool's policy."""
    events = "full" if config.events == "full" else ""
    reserve_us = round(config.reserve_after_seconds * 1e6)
    if config.borrow is None:
        return operation("configure", "", reserve_us, events, config.max_losses)
    borrow = config.borrow
    fields: dict[str, str | int] = {
        "share_rounding": borrow.share_rounding,
        "ceiling_reserve": borrow.ceiling_reserve,
    }
    if borrow.default_ceiling is not None:
        fields["ceiling"] = borrow.default_ceiling
    for ceiling in borrow.ceilings:
        place = f"{encode_group(ceiling.group)}\0{encode_resource(ceiling.resource)}"
        fields[f"ceiling:{place}"] = ceiling.units
    pairs = [part for pair in fields.items() for part in pair]
    return operation("configure", "borrow", reserve_us, events, config.max_losses, *pairs)


def check_accepted(terms: Sequence[Any], what: str, item: SchedulableTask | None = None) -> bool:
    """Return whether it was new; raise if it was refused.

    Args:
        terms: the result of a submit.
        what: what was submitted, for the message.
        item: the task, where it is one.

    Raises:
        TaskAdmissionError: it was refused.
    """
    match terms:
        case ["accepted", *_]:
            return True
        case ["known"]:
            return False
        case ["refused", str(code), str(detail)]:
            reason, says = _refusal(code, unquote(detail))
            denied = None
            if item is not None:
                diagnostics = {"code": code, "detail": unquote(detail)}
                denied = TaskAdmissionDenied(item=item, reason=reason, diagnostics=diagnostics)
            raise TaskAdmissionError(code, f"{what} {says}", denied)
        case _:
            raise CoordinatorError(f"{what} was answered with {terms!r}; please report this.")


def _refusal(code: str, detail: str) -> tuple[TaskDenialReason, str]:
    """Return the rule of a refusal and the rest of a sentence about it."""
    match code:
        case "unknown_resource":
            return TaskDenialReason.NEVER_FITS, (
                f"asks for resource {detail!r}, which this pool does not have; set a limit for it"
                " first (set_limit), or ask for another."
            )
        case "never_fits":
            return TaskDenialReason.NEVER_FITS, (
                f"asks for more of {detail!r} than its limit; ask for less or raise the limit."
            )
        case _:
            return TaskDenialReason.SHUTDOWN, (
                "was not taken, as the pool is draining; submit to another pool, or open it again."
            )


def decode_reasons(counted: Mapping[str, int] | Sequence[Any]) -> dict[TaskDenialReason, int]:
    """Return denial reasons with their counts; Lua writes an empty table as a list."""
    return {TaskDenialReason(reason): int(count) for reason, count in dict(counted).items()}


def decode_admission(
    terms: Sequence[Any],
    payloads: Sequence[bytes],
    generation: str,
    member_id: str,
    *,
    seen: int = 0,
    put_back: Callable[[str, Exception], None],
) -> Admission:
    """Return what ``["admitted", leases, pushed, queued, reasons, expired, events, lost]`` says.

    Args:
        terms: the result.
        payloads: what the reply carried, of which leases name their own; empty where it is a
            repeat's.
        generation: the shard's.
        member_id: who was given the leases.
        seen: number of the last pushed task that is known; those up to it are left out.
        put_back: told the lease id of each task whose terms cannot be read, and why.
    """
    _word, leases, pushed, queued, reasons, expired, events, lost = terms
    blocked = None
    if queued:
        blocked = TaskAdmissionBlockSummary(queued_count=queued, reasons=decode_reasons(reasons))
    readable = []
    for given in [terms for number, terms in pushed if number > seen] + leases:
        try:
            readable.append(decode_lease(given, payloads, generation, member_id))
        except (ValueError, TypeError) as error:
            put_back(given[0], error)
    return Admission(
        leases=tuple(readable),
        blocked=blocked,
        expired=tuple(map(unquote, expired)),
        lost={unquote(task_id): tuple(members.split(",")) for task_id, members in lost},
        writes_all_events=events == "full",
    )


def count_given(terms: Sequence[Any]) -> int:
    """Return how many slots of an ask are filled, also by tasks that are known already."""
    _word, leases, pushed, *_rest = terms
    return len(leases) + len(pushed)


def decode_lease(
    terms: Sequence[str], payloads: Sequence[bytes], generation: str, member_id: str
) -> TaskAdmissionLease:
    """Return a lease of its terms, with the payload that it names by its place from 1."""
    lease_id, task_id, group, amounts, acquired_us, *rest = terms
    score, tries, aborted, index, run, column, number = rest
    cell = None
    if run:
        cell = RunCell(run_id=unquote(run), column_index=int(column), number=int(number))
    place = int(index) - 1
    return TaskAdmissionLease(
        lease_id=lease_id,
        item=AdmittedTask(
            task_id=unquote(task_id) if "%" in task_id else task_id,
            group=group,
            payload=payloads[place] if 0 <= place < len(payloads) else None,
            available_ms=int(score),
            job_try=int(tries),
            is_aborted=aborted == "1",
            cell=cell,
        ),
        resources=parse_signature(amounts),
        acquired_at=int(acquired_us) / 1e6,
        generation=generation,
        member_id=member_id,
    )


def decode_pushed(
    terms: Sequence[str], payload: str | None, generation: str, member_id: str
) -> TaskAdmissionLease:
    """Return a lease of its terms in a notice, which bears the payload beside them if it can."""
    lease = decode_lease(terms, (), generation, member_id)
    if payload is None:
        return lease
    return replace(lease, item=replace(lease.item, payload=payload.encode()))


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
    """Return what ``["progress", done, dropped, open, written, ready, cooling]`` says."""
    _word, done, dropped, row_groups_open, written, ready, cooling = terms
    return RunProgress(
        records_done=done,
        records_dropped=dropped,
        row_groups_open=row_groups_open,
        row_groups_written=written,
        ready_to_write=tuple(ready),
        cooling=tuple(
            CoolingResource(resource=unquote(resource), until_at=until_us / 1e6, times=times)
            for resource, until_us, times in cooling
        ),
    )
