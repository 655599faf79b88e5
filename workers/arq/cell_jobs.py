"""Tasks of runs as arq jobs: their common function, and the outcome of each (design 05)."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final

from arq.jobs import serialize_job
from arq.worker import Function, Retry, func

from forebay.contracts.outcomes import TaskCompleted, TaskDropped, TaskFailure
from forebay.contracts.tasks import AdmittedTask, TaskAdmissionLease
from forebay.coordinator.runs.plan import CELL_FUNCTION
from forebay.workers.arq.serialization import JobSerializer
from forebay.workers.runs.cells import (
    CellMaker,
    CellsDeferred,
    CellsDropped,
    CellsMade,
    CellsOutcome,
    this_worker,
)

CELL_TRIES: Final = 1_000_000
"""arq's bound of tries for cells, which never applies: a run has its own ``max_tries``."""

CELL_SECONDS: Final = 365 * 24 * 3600.0
"""arq's timeout for cells, which never applies: a cell may wait for its provider for long. What is
bounded is each call (``timeout_seconds`` of a model) and each evaluation."""

lease_of_job: ContextVar[TaskAdmissionLease] = ContextVar("forebay_lease_of_job")
"""The lease of the running job; its id may be admitted again before the job has ended."""


class CellJobs:
    """Runs the jobs of one worker that make cells of runs.

    Args:
        maker: makes the cells.
        serializer: of the pool's jobs.
    """

    def __init__(self, maker: CellMaker, serializer: JobSerializer) -> None:
        self._maker = maker
        self._serializer = serializer
        self._outcomes: dict[str, CellsOutcome] = {}

    @property
    def function(self) -> Function:
        """The arq function of all cell jobs."""
        return func(
            self.make, name=CELL_FUNCTION, keep_result=0, timeout=CELL_SECONDS, max_tries=CELL_TRIES
        )

    def payload(self, item: AdmittedTask) -> bytes:
        """Return the arq job of a task of a run, which carries no payload of its own."""
        return serialize_job(
            CELL_FUNCTION,
            (item.task_id,),
            {},
            None,
            item.available_ms,
            serializer=self._serializer.dump,
        )

    async def make(self, ctx: dict[str, Any], *_place: Any) -> None:
        """Make one task's cells, as the arq function; keep the outcome until arq ends the job.

        Raises:
            Retry: the cells are to be made later, or elsewhere.
        """
        lease = lease_of_job.get()
        if lease.item.cell is None:
            return
        outcome = await self._maker.make(lease.item.cell, ctx["job_try"])
        self._outcomes[lease.lease_id] = outcome
        if isinstance(outcome, CellsDeferred):
            raise Retry(defer=outcome.delay_seconds)

    def take(self, lease: TaskAdmissionLease) -> CellsOutcome | None:
        """Remove and return the outcome of a task's cells; None where there is none."""
        return self._outcomes.pop(lease.lease_id, None)

    async def aclose(self) -> None:
        """Wait for releases under way and close the provider clients."""
        await self._maker.aclose()


def outcome_of_cells(
    cells: CellsOutcome | None, completed: TaskCompleted
) -> TaskCompleted | TaskDropped:
    """Return the outcome of a run's task whose job has ended; dropped without cells."""
    match cells:
        case CellsMade():
            return replace(completed, cells=cells.values)
        case CellsDropped():
            return TaskDropped(failure=cells.failure)
        case CellsDeferred() | None:
            reason = f"aborted: its job ended without cells in worker {this_worker()}"
            return TaskDropped(failure=TaskFailure(reason=reason))
