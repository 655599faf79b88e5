"""The outcomes of a run's task, and the interface of its maker (design 05); knows no generator."""

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
"""Delay before a cell that this worker cannot make is admitted again."""

log = Logger("forebay.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellsMade:
    """The cells were made: values by record and column, as JSON text."""

    values: Mapping[int, Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellsDropped:
    """The records are dropped, as another try would not help."""

    failure: TaskFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class CellsDeferred:
    """The cells failed, and another try may succeed.

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
        """Make one task's cells and return the outcome; raises only a cancellation."""
        ...

    async def aclose(self) -> None:
        """Wait for releases under way and close the provider clients."""
        ...


def this_worker() -> str:
    """Return the name of this process for people: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


class NoCells:
    """The cell maker of a worker without cells; returns every cell to the queue."""

    async def make(self, cell: RunCell, job_try: int) -> CellsOutcome:  # noqa: ARG002
        """Put the cell back, at no cost of a try."""
        log.warning("cell_put_back", run_id=cell.run_id, reason="this worker makes no cells")
        return CellsDeferred(delay_seconds=PUT_BACK_SECONDS, gives_back_try=True)

    async def aclose(self) -> None:
        """Do nothing: there is nothing to close."""


MakeCellMaker = Callable[[CompletionTracker, AdaptiveRequestAdmissionController], CellMaker]
"""Makes the `CellMaker` of a worker's pool and request admission."""
