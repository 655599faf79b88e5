"""What a run is submitted with (spec 05)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from contracts.identity import MAX_WEIGHT, MIN_WEIGHT
from contracts.settings import Settings
from contracts.workflow import Workflow
from contracts.workflow_columns import Name


class RunSpec(Settings):
    """A run: a workflow, and for whom it is made.

    Attributes:
        run_id: names the run; made by who submits it.
        tenant: whose share of tasks and requests it takes.
        weight: that share relative to other tenants.
        workflow: as loaded and checked.
    """

    run_id: Name
    tenant: Name
    weight: Annotated[float, Field(ge=MIN_WEIGHT, le=MAX_WEIGHT)] = 1.0
    workflow: Workflow
