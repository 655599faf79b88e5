"""Values of a run: its specification, progress and stop (design 05)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from forebay.contracts.checks import MAX_WEIGHT, MIN_WEIGHT
from forebay.contracts.settings import Settings
from forebay.contracts.workflow import Workflow
from forebay.contracts.workflow_columns import Name, RunName

RUN_NUMBER_DIGITS: Final = 8
"""Hexadecimal digits that a run's id has behind the name of its workflow and a dash."""


class RunSpec(Settings):
    """A run: a workflow, with the tenant and weight of its tasks and requests.

    Attributes:
        run_id: names the run and the folder of its parts; made by who submits it.
        tenant: whose share of tasks and requests it takes.
        weight: that share relative to other tenants.
        workflow: as loaded and checked.
    """

    run_id: RunName
    tenant: Name
    weight: Annotated[float, Field(ge=MIN_WEIGHT, le=MAX_WEIGHT)] = 1.0
    workflow: Workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class CoolingResource:
    """A resource of a run whose provider takes nothing for now.

    Attributes:
        resource: as in the pool's limits, such as ``request:openai/gpt-4.1``.
        until_at: server time in seconds at which the cooldown is over.
        times: cooldowns in a row, without a cell that was made between them.
    """

    resource: str
    until_at: float
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTrouble:
    """The failures of a model's calls in a run; refusals for want of capacity do not count.

    Attributes:
        model: provider and model, such as ``openai/gpt-4.1``.
        status: HTTP status, or the kind of error: ``timeout``, ``tls``, ``connection``,
            ``no_lease``, ``other``.
        count: failed tries of cells.
    """

    model: str
    status: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStop:
    """Why a run stopped itself.

    Attributes:
        column: the column of which too many cells failed.
        failed: how many of them.
        finished: how many of them there were, failed ones included.
        reason: of the last one.
        tasks_running: tasks that have not ended yet.
    """

    column: str
    failed: int
    finished: int
    reason: str
    tasks_running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """The progress of a run.

    Attributes:
        records_done: whole records, all columns there.
        records_dropped: records given up with a reason.
        row_groups_open: row groups that have records missing.
        row_groups_written: row groups whose records are on disk.
        ready_to_write: row groups that are through and wait to be written out, in order.
        cooling: resources for whose cooldown cells wait.
        troubles: what calls of models failed with.
        stop: why it stopped itself; None while it goes on.
    """

    records_done: int
    records_dropped: int
    row_groups_open: int
    row_groups_written: int
    ready_to_write: tuple[int, ...]
    cooling: tuple[CoolingResource, ...] = ()
    troubles: tuple[ModelTrouble, ...] = ()
    stop: RunStop | None = None
