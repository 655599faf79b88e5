"""What may come of one task of a run, and who makes it (design 05); knows no generator."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from forebay.contracts.identity import SchedulerResourceKey
from forebay.contracts.outcomes import TaskFailure
from forebay.contracts.tasks import RunCell
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.runs.tracker import CompletionTracker

PUT_BACK_SECONDS: Final = 30.0
"""After which a cell that this worker cannot make may be admitted again."""

log = Logger("forebay.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellsMade:
    """Values by record and column, as JSON text."""

    values: Mapping[int, Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellsDropped:
    """The records cannot be finished; trying again would not help."""

    failure: TaskFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class CellsDeferred:
    """Something went wrong that another try may mend.

    Attributes:
        delay_seconds: after which it may be tried again.
        gives_back_try: whether this was no try, as where the worker may not make such cells.
        cooling: the resource for which it waits, and with it all cells that ask for that one.
        failure: why this try failed, where it was one.
    """

    delay_seconds: float
    gives_back_try: bool = False
    cooling: SchedulerResourceKey | None = None
    failure: TaskFailure | None = None


CellsOutcome = CellsMade | CellsDropped | CellsDeferred


class CellMaker(Protocol):
    """Makes the cells of runs in one worker process."""

    async def make(self, cell: RunCell, job_try: int) -> CellsOutcome:
        """Make one task's cells and say how it went; only a cancellation is raised."""
        ...

    async def aclose(self) -> None:
        """Wait for releases under way and close the provider clients."""
        ...


def this_worker() -> str:
    """Return what names this process to people: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


class NoCells:
    """Stands in a worker that makes no cells, and so serves none: leaves each to other workers."""

    async def make(self, cell: RunCell, job_try: int) -> CellsOutcome:  # noqa: ARG002
        """Put the cell back, at no cost of a try."""
        log.warning("cell_put_back", run_id=cell.run_id, reason="this worker makes no cells")
        return CellsDeferred(delay_seconds=PUT_BACK_SECONDS, gives_back_try=True)

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""


MakeCellMaker = Callable[[CompletionTracker, AdaptiveRequestAdmissionController], CellMaker]
"""Makes one for a worker's pool and request admission."""
