"""The operations of tasks in ``lua/tasks/batch.lua``: arguments and replies (design 04)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal, assert_never
from urllib.parse import unquote

from forebay.contracts.outcomes import TaskCompleted, TaskDeferred, TaskDropped, TaskOutcome
from forebay.contracts.tasks import (
    Admission,
    AdmittedTask,
    RunCell,
    SchedulableTask,
    TaskAdmissionBlockSummary,
    TaskAdmissionLease,
)
from forebay.coordinator.keys import check_id, encode
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.shard.operation import Args, EndOfLease, Operation, Reply
from forebay.coordinator.tasks.denials import decode_reasons
from forebay.coordinator.tasks.names import (
    encode_group,
    encode_resource,
    milliseconds,
    parse_signature,
    signature,
)

WhyEnded = Literal["discard", "expire", "fail_lost"]

_COUNTS: Final = {"try": 0, "nothing": 1, "loss": 2}


def named(name: str, *args: str | int | bytes) -> Args:
    """Return an operation as it stands in ARGV: its name, how many arguments, the arguments."""
    return (name, len(args), *args)


@dataclass(frozen=True, slots=True)
class Named(Operation[list[Any]]):
    """An operation by its name, whose result its caller reads by itself."""

    name: str
    args: Args = ()

    def encode(self) -> Args:
        return named(self.name, *self.args)

    def decode(self, reply: Reply) -> list[Any]:
        return list(reply.terms)


@dataclass(frozen=True, slots=True)
class Submit(Operation[list[Any]]):
    """The operation that queues a task; `check_accepted` reads its reply."""

    task: SchedulableTask

    waits_for_server: ClassVar[bool] = True  # asked again, it would not be told whether it was new

    def encode(self) -> Args:
        task = self.task
        limit = task.group.admitted_limit
        expires = task.expires_seconds
        return named(
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

    def decode(self, reply: Reply) -> list[Any]:
        return list(reply.terms)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The terms of a lease that this version cannot read, and why."""

    lease_id: str
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The answer to an ask for tasks.

    Attributes:
        membership: under which it was asked.
        pushed: tasks that were pushed to this member and that it may not have seen, by number.
        leases: the others.
        rest: what else was said, with no leases yet.
    """

    membership: Membership
    pushed: Mapping[int, TaskAdmissionLease | Unreadable]
    leases: Sequence[TaskAdmissionLease | Unreadable]
    rest: Admission

    @property
    def given(self) -> int:
        """The number of filled slots of the ask, known tasks included."""
        return len(self.leases) + len(self.pushed)


@dataclass(frozen=True, slots=True)
class Admit(Operation[Admitted]):
    """The operation that asks for tasks.

    Attributes:
        slots: how many at most.
        in_progress_seconds: how long arq's in-progress mark lives.
        under_pressure: resources whose provider has no room now.
        seen: number of the last task that was pushed to this member; None if it takes no pushes.
    """

    slots: int
    in_progress_seconds: float
    under_pressure: tuple[str, ...] = ()
    seen: int | None = None

    def encode(self) -> Args:
        hints = ",".join(sorted(map(encode_resource, self.under_pressure)))
        mark = milliseconds(self.in_progress_seconds)
        return named("admit", self.slots, mark, hints, "" if self.seen is None else self.seen)

    def decode(self, reply: Reply) -> Admitted:
        """Decode ``["admitted", leases, pushed, queued, reasons, expired, events, lost]``.

        A lease names its payload by its place from 1; a repeat's reply bears none.
        """
        _word, leases, pushed, queued, reasons, expired, events, lost = reply.terms
        blocked = None
        if queued:
            blocked = TaskAdmissionBlockSummary(
                queued_count=queued, reasons=decode_reasons(reasons)
            )
        return Admitted(
            membership=reply.membership,
            pushed={number: _read_lease(terms, reply) for number, terms in pushed},
            leases=[_read_lease(terms, reply) for terms in leases],
            rest=Admission(
                leases=(),
                blocked=blocked,
                expired=tuple(map(unquote, expired)),
                lost={unquote(task_id): tuple(members.split(",")) for task_id, members in lost},
                writes_all_events=events == "full",
            ),
        )


def _read_lease(terms: Sequence[str], reply: Reply) -> TaskAdmissionLease | Unreadable:
    try:
        return decode_lease(terms, reply.payloads, reply.membership)
    except (ValueError, TypeError) as error:
        return Unreadable(terms[0], error)


def decode_lease(
    terms: Sequence[str], payloads: Sequence[bytes], membership: Membership
) -> TaskAdmissionLease:
    """Return a lease from its terms, with the payload at the place (from 1) that they name."""
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
        generation=membership.generation,
        member_id=membership.member_id,
    )


def decode_pushed(
    terms: Sequence[str], payload: str | None, membership: Membership
) -> TaskAdmissionLease:
    """Return a lease from its terms in a notice, with the payload if the notice has it."""
    lease = decode_lease(terms, (), membership)
    if payload is None:
        return lease
    return replace(lease, item=replace(lease.item, payload=payload.encode()))


@dataclass(frozen=True, slots=True)
class End(EndOfLease):
    """The operation that ends a lease: task finished, retried or given up.

    Attributes:
        lease_id: of the lease.
        outcome: how it ended.
        lease: the lease, which is stated to a pool that lost state before it took this; None for
            one that this process never held.
    """

    lease_id: str
    outcome: TaskOutcome
    lease: TaskAdmissionLease | None = None

    def encode(self) -> Args:
        lease_id, outcome = self.lease_id, self.outcome
        match outcome:
            case TaskCompleted():
                kept, mark = outcome.result_seconds, outcome.keep_in_progress_seconds
                return named(
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
                counts, failure = _COUNTS[outcome.counts], outcome.failure
                why = () if failure is None else (failure.reason, failure.model, failure.status)
                return named("retry", lease_id, delay_us, counts, cooling, *why)
            case TaskDropped():
                failure = outcome.failure
                return named("drop", lease_id, failure.reason, failure.model, failure.status)
            case _:
                assert_never(outcome)


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


@dataclass(frozen=True, slots=True)
class EndWaiting(Operation[bool]):
    """Drops a task that waits, and leaves a result of it; answered with whether it was there."""

    why: WhyEnded
    task_id: str
    result: bytes
    result_seconds: float | None

    def encode(self) -> Args:
        kept = "" if self.result_seconds is None else milliseconds(self.result_seconds)
        return named(self.why, check_id("task id", self.task_id), self.result, kept)

    def decode(self, reply: Reply) -> bool:
        return bool(reply.terms == ["discarded"])
