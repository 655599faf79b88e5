"""docs/workflow.md is what the models say, and each of its examples is a value of its key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, TypeAdapter

from forebay.contracts.workflow_column_kinds import COLUMN_TYPES
from forebay.workers.runs.workflow_page import EXAMPLES, PARTS, example_of, workflow_page

REPO = Path(__file__).resolve().parents[2]
MODELS = [*(model for _, _, model in PARTS), *COLUMN_TYPES.values()]


def keys_of(model: type[BaseModel]) -> dict[str, str]:
    """Return the name in the file of each field of a model."""
    return {name: field.alias or name for name, field in model.model_fields.items()}


def test_the_page_is_what_the_models_say() -> None:
    page = (REPO / "docs" / "workflow.md").read_text("utf-8")
    assert page == workflow_page(), (
        "run python -m forebay.workers.runs.workflow_page >docs/workflow.md"
    )


@pytest.mark.parametrize("model", MODELS)
def test_each_example_is_a_value_of_its_key(model: type[BaseModel]) -> None:
    for name, key in keys_of(model).items():
        field = model.model_fields[name]
        value = tomllib.loads(f"value = {example_of(model, key)}")["value"]
        TypeAdapter(Annotated[field.annotation, *field.metadata, key]).validate_python(value)


def test_no_example_is_left_of_a_key_that_is_gone() -> None:
    assert set(EXAMPLES) <= {key for model in MODELS for key in keys_of(model).values()}
