"""Compares the results of a chaos run with the promises, without the code under test. Pure.

Instants are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

ALL: Final = "all"
"""The process of a window that concerns every process."""
RUNS: Final = "runs"
"""The process of calls that say of themselves nothing: those of the workers of runs."""
TO_BE_REPORTED: Final = "CoordinatorError"
"""The type itself, and none of those below it: the shared state could not be used, by a fault."""
LONGEST_CALL_SECONDS: Final = 4.0
"""A lease that was granted before a cap fell may be out for so long."""
UNNOTICED_SECONDS: Final = 0.25
"""Within which the provider notices that a client has left."""
SAME_INSTANT_SECONDS: Final = 0.01
"""Within which the provider's and the run's clocks agree."""


class LossPeriod(NamedTuple):
    """A period in which a process may lose its membership while it calls."""

    begin: float
    end: float
    process: str


class CapMove(NamedTuple):
    """A change of the cap, which takes effect between two instants."""

    begin: float
    end: float
    cap: int


class Difference(NamedTuple):
    """A broken promise, and when it was broken."""

    at: float
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCall:
    """A call in the log of the provider.

    Attributes:
        process: the process id that it named, or `RUNS`.
        is_left: whether its client left before the answer was complete.
    """

    begin: float
    end: float
    process: str
    status: int
    is_left: bool


def read_calls(records: Iterable[Mapping[str, Any]], began_at: float) -> list[ProviderCall]:
    """Return the calls that a provider served, from its log.

    Args:
        records: of the log.
        began_at: the instant at which the provider's clock was 0.
    """
    return [
        ProviderCall(
            begin=began_at + record["arrived_at"],
            end=began_at + record["finished_at"],
            process=record["tag"] or RUNS,
            status=record["status"],
            is_left=record["status"] == 499,
        )
        for record in records
        if record["kind"] == "request" and record["refused_by"] is None
    ]


# -- the provider: how many calls at once


def overruns(
    calls: Sequence[ProviderCall],
    caps: Sequence[CapMove],
    losses: Sequence[LossPeriod],
) -> list[Difference]:
    """Return the instants at which more calls were in flight than the cap allows.

    Left out are the calls of processes that may have been expired while they called
    (design 01, *Invariants* 5). Of several instants within a second the first is returned.

    Args:
        calls: all that the provider served.
        caps: changes of the cap; the first is the cap at the beginning.
        losses: periods in which processes may lose their membership.
    """
    changes = []
    for call in calls:
        if not _may_be_expired(call, losses):
            end = call.end - (UNNOTICED_SECONDS if call.is_left else SAME_INSTANT_SECONDS)
            if end > call.begin:
                changes += [(call.begin, 1, call), (end, -1, call)]
    changes.sort(key=lambda change: (change[0], change[1]))
    found: list[Difference] = []
    in_flight: list[ProviderCall] = []
    for at, change, call in changes:
        if change < 0:
            in_flight.remove(call)
            continue
        in_flight.append(call)
        if len(in_flight) > (cap := _allowed(caps, at)) and not (found and at - found[-1].at < 1):
            by = sorted({call.process for call in in_flight})
            found.append(Difference(at, f"{len(in_flight)} calls at a cap of {cap}, by {by}"))
    return found


def _may_be_expired(call: ProviderCall, losses: Sequence[LossPeriod]) -> bool:
    return any(
        loss.process in {ALL, call.process} and call.begin <= loss.end and loss.begin <= call.end
        for loss in losses
    )


def _allowed(caps: Sequence[CapMove], at: float) -> int:
    """Return the largest cap under which a call at an instant may have been granted."""
    in_force = [caps[0].cap]
    for move in caps[1:]:
        if move.begin > at + SAME_INSTANT_SECONDS:
            break
        if move.end < at - LONGEST_CALL_SECONDS:
            in_force = []
        in_force.append(move.cap)
    return max(in_force)


def standstills(
    calls: Sequence[ProviderCall],
    faults: Sequence[tuple[float, float]],
    most_seconds: float,
    end: float,
) -> list[Difference]:
    """Return the instants from which the provider answered nothing for too long without a fault.

    Args:
        calls: all that the provider served.
        faults: begin and end of each, in any order.
        most_seconds: without a fault and without an answer.
        end: of the run.
    """
    answers = sorted(call.end for call in calls if call.status == 200)
    found = []
    for before, after in pairwise([*answers, end]):
        idle = after - before - _covered(faults, before, after)
        if idle > most_seconds:
            found.append(Difference(before, f"nothing was answered for {after - before:.1f} s"))
    return found


def _covered(faults: Sequence[tuple[float, float]], begin: float, end: float) -> float:
    """Return for how many seconds between two instants a fault was under way."""
    total, at = 0.0, begin
    for fault_begin, fault_end in sorted(faults):
        start, stop = max(fault_begin, at), min(fault_end, end)
        if stop > start:
            total, at = total + stop - start, stop
    return total


# -- jobs


@dataclass(kw_only=True, slots=True)
class JobStart:
    """One start of a job, in a process; it ends, or its process does."""

    job: str
    process: str
    begin: float
    end: float | None = None


@dataclass(kw_only=True, slots=True)
class Jobs:
    """The contents of the file into which the jobs write.

    Attributes:
        starts: of each job, in order.
    """

    starts: dict[str, list[JobStart]] = field(default_factory=dict)


def read_jobs(lines: Iterable[Sequence[Any]]) -> Jobs:
    """Return the starts and ends of jobs, from the lines of the job file."""
    jobs = Jobs()
    for at, word, job, pid in lines:
        starts = jobs.starts.setdefault(job, [])
        if word == "begin":
            starts.append(JobStart(job=job, process=str(pid), begin=at))
        else:
            for start in starts:
                if start.process == str(pid) and start.end is None:
                    start.end = at
    return jobs


def twice_at_once(
    jobs: Jobs, deaths: Mapping[str, float], losses: Sequence[LossPeriod], end: float
) -> list[Difference]:
    """Return the starts of jobs that were still running in a process that was a member.

    Args:
        jobs: what they wrote.
        deaths: when processes ended.
        losses: periods in which processes may lose their membership.
        end: of the run.
    """
    found = []
    for job, starts in jobs.starts.items():
        for before, after in pairwise(starts):
            until = before.end or deaths.get(before.process, end)
            was_member = not any(
                loss.process in {ALL, before.process}
                and before.begin <= loss.end
                and loss.begin <= until
                for loss in losses
            )
            if after.begin < until and was_member:
                found.append(
                    Difference(after.begin, f"job {job} began while it ran in {before.process}")
                )
    return found


# -- runs and callers


def wrong_output(
    run_id: str, output: Sequence[str], dropped: Sequence[str], asked: Sequence[str], end: float
) -> list[Difference]:
    """Return where a run did not write or drop each requested record exactly once."""
    found = []
    if len(output) != len(set(output)):
        found.append(Difference(end, f"run {run_id} wrote a record twice"))
    if missing := set(asked) - set(output) - set(dropped):
        found.append(Difference(end, f"run {run_id} neither wrote nor dropped {sorted(missing)}"))
    if unasked := set(output) - set(asked):
        found.append(Difference(end, f"run {run_id} wrote {sorted(unasked)}, which nobody asked"))
    return found


def hung_or_untyped(lines: Iterable[Sequence[Any]]) -> list[Difference]:
    """Return the calls that hung, or ended with an error that its caller can do nothing about.

    That is one of neither Forebay nor the SDK, and Forebay's that asks to be reported.
    """
    return [
        Difference(began, f"a call ended as {what!r} after {ended - began:.1f} s")
        for began, ended, what in lines
        if what in {"hung", TO_BE_REPORTED} or what.startswith("untyped")
    ]
