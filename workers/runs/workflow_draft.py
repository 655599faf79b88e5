"""The valid parts of a workflow file, so that checks between parts can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from forebay.contracts.workflow import ModelSpec, OutputSpec, ProviderSpec, WorkflowSpec
from forebay.contracts.workflow_column_kinds import ColumnSpec
from forebay.workers.runs.workflow_places import Mistakes

Part = TypeVar("Part")

_PROVIDER: Final[TypeAdapter[ProviderSpec]] = TypeAdapter(ProviderSpec)
_MODEL: Final[TypeAdapter[ModelSpec]] = TypeAdapter(ModelSpec)
_COLUMN: Final[TypeAdapter[ColumnSpec]] = TypeAdapter(ColumnSpec)
_OUTPUT: Final[TypeAdapter[OutputSpec]] = TypeAdapter(OutputSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The parts of a workflow file; None for a part of a wrong form.

    Attributes:
        spec: the whole file; None where any part has a wrong form.
        providers: by name.
        models: by alias.
        columns: in the order of the file.
        outputs: names that each column makes, in the same order.
        output: where the records go.
        name: of the workflow; empty where it has none.
    """

    spec: WorkflowSpec | None
    providers: Mapping[str, ProviderSpec | None]
    models: Mapping[str, ModelSpec | None]
    columns: Sequence[ColumnSpec | None]
    outputs: Sequence[tuple[str, ...]]
    output: OutputSpec | None
    name: str


def read_draft(mistakes: Mistakes) -> Draft:
    """Return the parts of a workflow file; notes what has a wrong form."""
    document = mistakes.file.document
    spec = None
    try:
        # Strict and by way of JSON: no text is taken for a number, and lists become tuples.
        spec = WorkflowSpec.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        mistakes.add_form(error)
    providers = _table(document.get("providers"), _PROVIDER)
    models = _table(document.get("models"), _MODEL)
    columns = document.get("columns")
    name = document.get("name")
    listed = columns if isinstance(columns, list) else []
    return Draft(
        spec=spec,
        providers=providers,
        models=models,
        columns=[_valid(_COLUMN, column) for column in listed],
        outputs=[_names_of(column) for column in listed],
        output=_valid(_OUTPUT, document.get("output")),
        name=name if isinstance(name, str) else "",
    )


def _table(table: Any, adapter: TypeAdapter[Part]) -> Mapping[str, Part | None]:
    if not isinstance(table, dict):
        return {}
    return {name: _valid(adapter, part) for name, part in table.items()}


def _valid(adapter: TypeAdapter[Part], part: Any) -> Part | None:
    try:
        return adapter.validate_json(json.dumps(part), strict=True)
    except ValidationError:
        return None  # which the check of the whole file has noted


def _names_of(column: Any) -> tuple[str, ...]:
    match column:
        case {"name": str(name)}:
            return (name,)
        case {"names": [*names]}:
            return tuple(name for name in names if isinstance(name, str))
        case _:
            return ()
