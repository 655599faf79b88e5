"""Judges jobs, caps and calls around losses of the server's state. Pure.

After a loss the shards count what is told by the keys that are left and by the members' statements
(design 06), so each observer asks for what either of them knew, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from tests.chaos.observers import ALL, CapMove, Difference, Jobs, LossPeriod

REBUILD_SECONDS: Final = 3.0
"""After a loss: a pause before connecting again, an interval for the statements, a busy machine."""
UNHEARD_SECONDS: Final = 2.0
"""A change of settings reaches every member with its next sweep, an interval later at most."""
LATE_SECONDS: Final = 2.0
"""After a process is reachable again, until it has stated what it holds."""


class Stored(NamedTuple):
    """The jobs whose results and payloads the server had at the instant before it was emptied."""

    results: frozenset[str]
    payloads: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLoss:
    """A fault by which the server lost state.

    Attributes:
        begin: of the loss.
        end: the server answers again, without what it lost.
        since: writes that it took from this instant on are lost; None where none is.
        had: what an emptied server had; None where it was not emptied.
    """

    begin: float
    end: float
    since: float | None = None
    had: Stored | None = None


class Enqueued(NamedTuple):
    """A job that was submitted, and the instants between which the server took it."""

    job: str
    began: float
    ended: float


def silent(losses: Sequence[StateLoss], away: Sequence[LossPeriod]) -> list[LossPeriod]:
    """Return the periods in which calls and jobs of a process may not be known to the server.

    A process that is stopped, blocked or cut off while a shard is rebuilt states its leases late:
    until then others may get what it holds (docs/reliability.md).

    Args:
        losses: of state.
        away: periods in which a process cannot state.
    """
    return [
        LossPeriod(loss.begin, absence.end + LATE_SECONDS, absence.process)
        for loss in losses
        for absence in away
        if _is_away(absence, absence.process, loss)
    ]


def _is_away(absence: LossPeriod, process: str, loss: StateLoss) -> bool:
    return (
        absence.process in {ALL, process}
        and absence.begin <= loss.end + REBUILD_SECONDS
        and absence.end >= loss.begin
    )


def with_unheard(caps: Sequence[CapMove], losses: Sequence[StateLoss]) -> list[CapMove]:
    """Return the changes of the cap, and those that a loss may have undone.

    Settings are those that a member heard last, so a change of less than an interval may be gone.
    """
    found = list(caps)
    for loss in losses:
        before = [move for move in caps if move.begin <= loss.end]
        heard = [move for move in before if move.end < loss.begin - UNHEARD_SECONDS]
        unheard = before[len(heard) :]
        if unheard:
            largest = max(move.cap for move in [*heard[-1:], *unheard])
            found.append(CapMove(loss.begin, loss.end, largest))
    return sorted(found)


# -- jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFates:
    """Everything that decides about the fate of jobs.

    Attributes:
        jobs: what they wrote.
        results: whether the job succeeded, by id, of all results that were ever seen.
        losses: of state, in order of time.
        away: periods in which a process cannot state what it runs.
        deaths: when processes ended.
        without_payload: jobs whose payload was deleted; they may end as lost, but must end.
    """

    jobs: Jobs
    results: Mapping[str, bool]
    losses: Sequence[StateLoss] = ()
    away: Sequence[LossPeriod] = ()
    deaths: Mapping[str, float]
    without_payload: frozenset[str] = frozenset()

    def unfinished(self, submitted: Iterable[Enqueued], end: float) -> list[Difference]:
        """Return the submitted jobs that neither ran to their end with a result nor may be gone.

        Of a server that was emptied, jobs that waited are gone, and jobs that run go on; of a
        failover, the jobs whose submission the replica missed.

        Args:
            submitted: jobs, each once.
            end: of the run.
        """
        found = []
        for enqueued in submitted:
            what = self._after_losses(enqueued)
            if what is not None:
                found.append(Difference(end, f"job {enqueued.job} {what}"))
        return found

    def _after_losses(self, enqueued: Enqueued) -> str | None:
        job = enqueued.job
        for loss in self.losses:
            if enqueued.began >= loss.end:
                continue
            if loss.had is not None:
                if job in loss.had.results:
                    return self._fault_of_result(job)
                if enqueued.ended < loss.begin and job not in loss.had.payloads:
                    return None if job in self.without_payload else self._without_result(job)
            elif loss.since is None or enqueued.ended < loss.since:
                continue
            if not self._runs_through(job, loss):
                return None
        return self._fault_of_result(job) if job in self.results else self._without_result(job)

    def _runs_through(self, job: str, loss: StateLoss) -> bool:
        """Whether a process ran the job during the whole loss, and could state it afterwards."""
        return any(
            start.begin < loss.begin
            and (start.end is None or start.end > loss.end)
            and self.deaths.get(start.process, loss.end + 2 * REBUILD_SECONDS)
            > loss.end + REBUILD_SECONDS
            and not any(_is_away(absence, start.process, loss) for absence in self.away)
            for start in self.jobs.starts.get(job, [])
        )

    def _has_ended(self, job: str) -> bool:
        return any(start.end is not None for start in self.jobs.starts.get(job, []))

    def _without_result(self, job: str) -> str:
        return (
            "ran to its end but has no result" if self._has_ended(job) else "never ran to its end"
        )

    def _fault_of_result(self, job: str) -> str | None:
        if job in self.without_payload:
            return None
        if not self.results.get(job, True):
            return "failed"
        return None if self._has_ended(job) else "has a result and never ran to its end"
