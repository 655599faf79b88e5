"""Calls, tokens and tries of a run so far, by column and model (design 05)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from forebay.contracts.workflow import WorkflowSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """Calls, tokens and 429s of one provider's model.

    Attributes:
        calls: attempts that were sent.
        input_tokens: as the provider counted them.
        output_tokens: as the provider counted them.
        rate_limited: of the calls, those that the provider refused for want of capacity.
        failed: of the calls, those that ended in another error.
        busy_seconds: time in which calls were under way, summed over all of them.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    rate_limited: int = 0
    failed: int = 0
    busy_seconds: float = 0.0

    def __add__(self, other: ModelUse) -> ModelUse:
        return ModelUse(
            calls=self.calls + other.calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            rate_limited=self.rate_limited + other.rate_limited,
            failed=self.failed + other.failed,
            busy_seconds=self.busy_seconds + other.busy_seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnUse:
    """Cells, tries, time and calls of one column.

    Attributes:
        made: finished cells; a task of a row group counts each of its records.
        retried: tries after a failure that another try may mend.
        waited: how often a cell was put back for want of capacity, which is no try.
        busy_seconds: time that workers spent on its tasks, waits for leases included.
        models: by ``provider/model``.
    """

    made: int = 0
    retried: int = 0
    waited: int = 0
    busy_seconds: float = 0.0
    models: Mapping[str, ModelUse] = field(default_factory=dict)

    def __add__(self, other: ColumnUse) -> ColumnUse:
        return ColumnUse(
            made=self.made + other.made,
            retried=self.retried + other.retried,
            waited=self.waited + other.waited,
            busy_seconds=self.busy_seconds + other.busy_seconds,
            models=_joined(self.models, other.models),
        )


def sum_by_model(columns: Mapping[str, ColumnUse]) -> Mapping[str, ModelUse]:
    """Return the use of each model over all columns, by ``provider/model``."""
    return sum(columns.values(), ColumnUse()).models


def _joined(one: Mapping[str, ModelUse], other: Mapping[str, ModelUse]) -> Mapping[str, ModelUse]:
    names = dict.fromkeys((*one, *other))
    return {name: one.get(name, ModelUse()) + other.get(name, ModelUse()) for name in names}


def cost_of(workflow: WorkflowSettings, models: Mapping[str, ModelUse]) -> float | None:
    """Return what calls have cost, in the workflow's currency; None where a price is not known.

    Args:
        workflow: whose models have prices.
        models: use by ``provider/model``.
    """
    cost = 0.0
    for name, use in models.items():
        prices = workflow.prices_of(name)
        if prices is None:
            return None
        cost += (use.input_tokens * prices[0] + use.output_tokens * prices[1]) / 1e6
    return cost
