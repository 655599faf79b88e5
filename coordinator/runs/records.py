"""Records of a finished row group, as the store keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from forebay.contracts.outcomes import TaskFailure
from forebay.contracts.workflow import Workflow
from forebay.contracts.workflow_columns import SeedColumn
from forebay.coordinator.keys import encode

DROPPED: Final = "!"
"""Field of a record with the reason of its drop; never the encoded name of a column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedRecord:
    """Why a record was dropped.

    Attributes:
        column: the column that gave it up.
        failure: of its last try.
        tries: of that cell.
    """

    column: str
    failure: TaskFailure
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRecord:
    """A record of a finished row group.

    Attributes:
        number: its place in the run, from 0.
        values: column -> value, where it is whole.
        key: the seed's key columns by name, as far as they were read.
        dropped: why it was dropped, else None.
    """

    number: int
    values: Mapping[str, Any]
    key: Mapping[str, Any] = field(default_factory=dict)
    dropped: DroppedRecord | None = None


def fields_of(run_id: str, record: int, columns: Sequence[str]) -> list[str]:
    """Return the fields of a record's columns, and behind them the mark of a dropped one."""
    place = f"{encode(run_id)}\0{record}\0"
    return [*(place + encode(column) for column in columns), place + DROPPED]


def read_record(
    number: int, workflow: Workflow, row: Sequence[bytes | None]
) -> WrittenRecord | None:
    """Return a record from its `fields_of` values; None where a value is lost."""
    *values, dropped = row
    if dropped is None and None in values:
        return None
    found = {
        name: json.loads(value)
        for name, value in zip(workflow.output_names, values, strict=True)
        if value is not None
    }
    if dropped is None:
        return WrittenRecord(number=number, values=found)
    key = {name: found[name] for name in _key_names(workflow) if name in found}
    return WrittenRecord(
        number=number, values={}, key=key, dropped=_read_dropped(dropped, workflow)
    )


def _key_names(workflow: Workflow) -> tuple[str, ...]:
    seeds = (one.spec for one in workflow.columns if isinstance(one.spec, SeedColumn))
    return next((seed.key_names for seed in seeds), ())


def _read_dropped(mark: bytes, workflow: Workflow) -> DroppedRecord:
    """Return the reason of a record's drop, with the column's only model if no call failed."""
    name, tries, model, status, reason = mark.decode().split("\0", 4)
    column = unquote(name)
    failure = TaskFailure(reason=reason, model=model or _model_of(workflow, column), status=status)
    return DroppedRecord(column=column, failure=failure, tries=int(tries))


def _model_of(workflow: Workflow, name: str) -> str:
    specs = (one.spec for one in workflow.columns if name in one.outputs)
    model = workflow.models.get(getattr(next(specs, None), "model", ""))
    return "" if model is None else f"{model.provider.lower()}/{model.model}"
