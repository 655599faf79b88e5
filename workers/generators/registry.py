"""Builds the generator of a workflow's column."""

from __future__ import annotations

from typing import assert_never

from forebay.contracts.workflow import PlannedColumn, Workflow
from forebay.contracts.workflow_columns import (
    ConditionColumn,
    EmbeddingColumn,
    ExpressionColumn,
    LlmStructuredColumn,
    LlmTextColumn,
    SeedColumn,
)
from forebay.contracts.workflow_local_columns import PythonColumn, SamplerColumn, ValidatorColumn
from forebay.workers.generators.base import RecordGenerator, RowGroupGenerator
from forebay.workers.generators.condition import ConditionGenerator
from forebay.workers.generators.embedding import EmbeddingGenerator
from forebay.workers.generators.expression import ExpressionGenerator
from forebay.workers.generators.llm_structured import LlmStructuredGenerator
from forebay.workers.generators.llm_text import LlmTextGenerator
from forebay.workers.generators.python import python_generator
from forebay.workers.generators.sampler import SamplerGenerator
from forebay.workers.generators.seed import SeedGenerator
from forebay.workers.generators.validator import ValidatedGenerator, ValidatorGenerator


def build_generator(
    column: PlannedColumn, workflow: Workflow
) -> RecordGenerator | RowGroupGenerator:
    """Return the generator of a column; build it once per run in a worker, it caches what it can.

    Args:
        column: one of ``workflow.columns``.
        workflow: as loaded, so templates and schemas are known to compile.
    """
    maker = _maker_of(column, workflow)
    validators = [
        ValidatorGenerator(other.spec)
        for other in workflow.columns
        if isinstance(other.spec, ValidatorColumn)
        and other.spec.on_invalid == "retry"
        and other.spec.checks in column.outputs
    ]
    if validators and isinstance(maker, RecordGenerator):
        return ValidatedGenerator(maker, validators)
    return maker


def _maker_of(  # noqa: PLR0911 - one for each kind
    column: PlannedColumn, workflow: Workflow
) -> RecordGenerator | RowGroupGenerator:
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
        case SamplerColumn() as spec:
            return SamplerGenerator(spec)
        case EmbeddingColumn() as spec:
            return EmbeddingGenerator(spec, workflow)
        case PythonColumn() as spec:
            return python_generator(spec, workflow, column.task_type)
        case ValidatorColumn() as spec:
            return ValidatorGenerator(spec)
        case unknown:
            assert_never(unknown)
