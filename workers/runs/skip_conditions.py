"""Conditions that skip cells: each ``skip_when`` becomes a column of its own.

Rules: design 05, *Readiness*.

So a condition is evaluated once a record, by a local task beside all others, and whether a cell is
skipped is a look at one value in the script that finds what became ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forebay.contracts.workflow_column_kinds import ColumnSpec
from forebay.contracts.workflow_columns import CellColumn, ConditionColumn


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedColumn:
    """A column of a run, and its place in the file.

    Attributes:
        column: as the file says it, or the condition of one; None where it has a wrong form.
        place: index into ``columns`` of the file.
        condition: name of the condition that skips its cells.
    """

    column: ColumnSpec | ConditionColumn | None
    place: int
    condition: str | None = None


def with_conditions(columns: Sequence[ColumnSpec | None]) -> list[PlacedColumn]:
    """Return the columns of a file, and behind them one for each condition that they state.

    Columns that state the same condition share it.
    """
    placed: list[PlacedColumn] = []
    names: dict[str, str] = {}
    conditions: list[PlacedColumn] = []
    for index, column in enumerate(columns):
        name = None
        if isinstance(column, CellColumn) and column.skip_when is not None:
            expression = _bare(column.skip_when)
            if expression not in names:
                names[expression] = f"skip_when {column.name}"
                made = ConditionColumn(name=names[expression], expression=expression)
                conditions.append(PlacedColumn(column=made, place=index))
            name = names[expression]
        placed.append(PlacedColumn(column=column, place=index, condition=name))
    return [*placed, *conditions]


def _bare(expression: str) -> str:
    """Return an expression without the braces that some write around it, as in templates."""
    text = expression.strip()
    if text.startswith("{{") and text.endswith("}}"):
        text = text[2:-2].strip()
    return text
