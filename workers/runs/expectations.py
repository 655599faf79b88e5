"""Expected calls, tokens, time and cost of a run, judged by a sample (design 05; design 02)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay.contracts.capacity import (
    AsyncCapacityPlan,
    CapacitySource,
    CapacityValue,
    known,
    missing,
)
from forebay.contracts.run_use import ModelUse, cost_of
from forebay.contracts.workflow import Workflow
from forebay.workers.runs.preview import PreviewedCell

NO_SAMPLE = "no call was made to measure it; --sample 3 makes 3 records, at their cost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """The expected calls, tokens, time and cost of a run, judged by a sample of its records.

    Attributes:
        calls: of models; without a sample one a record and column, the fewest there can be.
        input_tokens: as the provider counts them.
        output_tokens: as the provider counts them.
        seconds: as far as the caps bound it: of the model that takes the longest at its cap.
        cost: in the workflow's currency.
    """

    calls: CapacityValue[int]
    input_tokens: CapacityValue[int]
    output_tokens: CapacityValue[int]
    seconds: CapacityValue[float]
    cost: CapacityValue[float]


def expect(
    workflow: Workflow, plan: AsyncCapacityPlan, sample: Sequence[Sequence[PreviewedCell]]
) -> Expectation:
    """Return the expectation for a run; pure.

    Args:
        workflow: as loaded.
        plan: its static caps.
        sample: the cells of some records; empty where none were made.
    """
    source = CapacitySource.RUNTIME_SNAPSHOT if sample else CapacitySource.RUN_CONFIG
    if not sample:
        fewest = sum(getattr(column.spec, "model", None) is not None for column in workflow.columns)
        return Expectation(
            calls=known(fewest * workflow.record_count, source),
            input_tokens=missing(NO_SAMPLE, source),
            output_tokens=missing(NO_SAMPLE, source),
            seconds=missing(NO_SAMPLE, source),
            cost=missing(NO_SAMPLE, source),
        )
    scale = workflow.record_count / len(sample)
    used, busy = _measured(workflow, sample)
    whole = {name: _scaled(use, scale) for name, use in used.items()}
    cost = cost_of(workflow, whole)
    caps = plan.configured.static_caps
    longest = max(
        (seconds * scale / (caps[name].cap.value or 1) for name, seconds in busy.items()),
        default=0.0,
    )
    return Expectation(
        calls=known(sum(use.calls for use in whole.values()), source),
        input_tokens=known(sum(use.input_tokens for use in whole.values()), source),
        output_tokens=known(sum(use.output_tokens for use in whole.values()), source),
        seconds=known(longest, source),
        cost=missing("a model has no input_price and output_price", CapacitySource.RUN_CONFIG)
        if cost is None
        else known(cost, source),
    )


def _measured(
    workflow: Workflow, sample: Sequence[Sequence[PreviewedCell]]
) -> tuple[dict[str, ModelUse], dict[str, float]]:
    """Return use, and seconds that calls were under way, by ``provider/model``."""
    used: dict[str, ModelUse] = {}
    busy: dict[str, float] = {}
    for call in (call for cells in sample for cell in cells for call in cell.calls):
        model = workflow.models[call.alias]
        name = f"{model.provider.lower()}/{model.model}"
        tokens = (call.answer.input_tokens, call.answer.output_tokens) if call.answer else (0, 0)
        use = ModelUse(calls=1, input_tokens=tokens[0], output_tokens=tokens[1])
        used[name] = used.get(name, ModelUse()) + use
        busy[name] = busy.get(name, 0.0) + call.seconds
    return used, busy


def _scaled(use: ModelUse, scale: float) -> ModelUse:
    fields: Mapping[str, int] = {
        "calls": use.calls,
        "input_tokens": use.input_tokens,
        "output_tokens": use.output_tokens,
    }
    return ModelUse(**{name: round(value * scale) for name, value in fields.items()})
