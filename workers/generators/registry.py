"""From a column of a workflow to its generator."""

from __future__ import annotations

from typing import assert_never

from forebay.contracts.workflow import PlannedColumn, Workflow
from forebay.contracts.workflow_columns import (
    ConditionColumn,
    ExpressionColumn,
    LlmStructuredColumn,
    LlmTextColumn,
    SeedColumn,
)
from forebay.workers.generators.base import RecordGenerator, RowGroupGenerator
from forebay.workers.generators.condition import ConditionGenerator
from forebay.workers.generators.expression import ExpressionGenerator
from forebay.workers.generators.llm_structured import LlmStructuredGenerator
from forebay.workers.generators.llm_text import LlmTextGenerator
from forebay.workers.generators.seed import SeedGenerator


def build_generator(
    column: PlannedColumn, workflow: Workflow
) -> RecordGenerator | RowGroupGenerator:
    """Return the generator of a column; build it once per run in a worker, it caches what it can.

    Args:
        column: one of ``workflow.columns``.
        workflow: as loaded, so templates and schemas are known to compile.
    """
    match column.spec:
        case SeedColumn() as spec:
            return SeedGenerator(spec, workflow)
        case ExpressionColumn() as spec:
            return ExpressionGenerator(spec)
        case ConditionColumn() as spec:
            return ConditionGenerator(spec)
        case LlmTextColumn() as spec:
            return LlmTextGenerator(spec, workflow)
        case LlmStructuredColumn() as spec:
            return LlmStructuredGenerator(spec, workflow)
        case unknown:
            assert_never(unknown)
