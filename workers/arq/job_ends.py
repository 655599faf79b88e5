"""Decides whether a job that returns to the queue counts a try, a loss or neither."""

from __future__ import annotations

from typing import Literal

from arq.utils import timestamp_ms

from forebay.contracts.outcomes import TaskDeferred, TaskOutcome
from forebay.contracts.tasks import TaskAdmissionLease
from forebay.workers.arq.cell_jobs import lease_of_job
from forebay.workers.runs.cells import CellsDeferred, CellsOutcome


class JobEnds:
    """Notes how the jobs of one worker end.

    Attributes:
        is_stopping: whether the worker was told to stop: what it cancels counts nothing.
        was_cut_off: whether a job of this process cancelled the worker: what is cut off is lost.
        drained: ids of the tasks that ended since the stop began, by how: ``finished``,
            ``given_back``.
    """

    def __init__(self) -> None:
        self.is_stopping = False
        self.was_cut_off = False
        self.drained: dict[str, list[str]] = {"finished": [], "given_back": []}
        self._begun: set[str] = set()
        self._cancelled: set[str] = set()

    def note_begun(self) -> None:
        """Note that the running job takes its first step."""
        self._begun.add(lease_of_job.get().lease_id)

    def note_cancelled(self) -> None:
        """Note that the running job was cancelled from outside."""
        self._cancelled.add(lease_of_job.get().lease_id)

    def put_off(
        self, lease: TaskAdmissionLease, incr_score: int | None, cells: CellsOutcome | None
    ) -> TaskDeferred:
        """Return the outcome of a job that is retried after its try has ended.

        Args:
            lease: of the job.
            incr_score: milliseconds by which arq raises its score; None for at once.
            cells: of a task of a run, what came of it: when and why its cells are made later.
        """
        if isinstance(cells, CellsDeferred):
            return TaskDeferred(
                delay_seconds=cells.delay_seconds,
                counts=self._counts_of(lease, is_no_try=cells.gives_back_try),
                cooling=cells.cooling,
                failure=cells.failure,
            )
        delay_ms = lease.item.available_ms + incr_score - timestamp_ms() if incr_score else 0
        return TaskDeferred(
            delay_seconds=delay_ms / 1000, counts=self._counts_of(lease, is_no_try=False)
        )

    def cut_off(self) -> TaskDeferred:
        """Return the outcome of a job that was cancelled before its end, or in a hook."""
        return TaskDeferred(counts=self._cut_off_counts)

    def note(self, lease: TaskAdmissionLease, outcome: TaskOutcome) -> None:
        """Note how a task ended."""
        if self.is_stopping:
            how = "given_back" if isinstance(outcome, TaskDeferred) else "finished"
            self.drained[how].append(lease.item.task_id)

    def forget(self, lease: TaskAdmissionLease) -> None:
        """Forget a lease whose job is over."""
        self._begun.discard(lease.lease_id)
        self._cancelled.discard(lease.lease_id)

    def _counts_of(
        self, lease: TaskAdmissionLease, *, is_no_try: bool
    ) -> Literal["try", "nothing", "loss"]:
        if lease.lease_id not in self._begun:  # cancelled before it began (design 04, *Losses*)
            return "nothing"
        if lease.lease_id in self._cancelled:
            return self._cut_off_counts
        return "nothing" if is_no_try or self.is_stopping else "try"

    @property
    def _cut_off_counts(self) -> Literal["nothing", "loss"]:
        """Return what a cut off job counts; nothing if the worker is stopping.

        Else a job of this process cancelled it, and nobody knows which.
        """
        return "nothing" if self.is_stopping and not self.was_cut_off else "loss"
