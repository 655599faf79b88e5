"""Every kind of column that a workflow file may have, by the name of its generator.

Rules: design 05, *Generators*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from forebay.contracts.workflow_columns import (
    EmbeddingColumn,
    ExpressionColumn,
    LlmStructuredColumn,
    LlmTextColumn,
    SeedColumn,
    WorkflowPart,
)
from forebay.contracts.workflow_local_columns import PythonColumn, SamplerColumn, ValidatorColumn

ColumnSpec = Annotated[
    SeedColumn
    | SamplerColumn
    | ExpressionColumn
    | LlmTextColumn
    | LlmStructuredColumn
    | EmbeddingColumn
    | PythonColumn
    | ValidatorColumn,
    Field(discriminator="generator"),
]

COLUMN_TYPES: Final[Mapping[str, type[WorkflowPart]]] = {
    "seed": SeedColumn,
    "sampler": SamplerColumn,
    "expression": ExpressionColumn,
    "llm_text": LlmTextColumn,
    "llm_structured": LlmStructuredColumn,
    "embedding": EmbeddingColumn,
    "python": PythonColumn,
    "validator": ValidatorColumn,
}
"""Generator name to the type of its column."""
