"""What must hold of columns that run code of the user's, or check other columns (spec 05)."""

from __future__ import annotations

from jinja2 import TemplateSyntaxError

from forebay.contracts.errors import WorkflowError
from forebay.contracts.workflow_column_kinds import ColumnSpec
from forebay.contracts.workflow_columns import SeedColumn
from forebay.contracts.workflow_local_columns import PythonColumn, SamplerColumn, ValidatorColumn
from forebay.workers.generators.code import load_target
from forebay.workers.generators.templates import check_template
from forebay.workers.runs.workflow_draft import Draft
from forebay.workers.runs.workflow_places import Mistakes, suggestion


def check_code(mistakes: Mistakes, index: int, column: PythonColumn) -> None:
    """Note code that cannot be imported here."""
    try:
        load_target(column.function, mistakes.file.path.absolute().parent)
    except WorkflowError as error:
        mistakes.add(("columns", index, "function"), str(error))


def check_validator(mistakes: Mistakes, draft: Draft, index: int, column: ValidatorColumn) -> None:
    """Note a checked column that there is not, or that cannot be made again.

    To make a column again while it is made, its validator may read it and what it reads, no more.
    """
    place = ("columns", index, "checks")
    names = [name for outputs in draft.outputs for name in outputs]
    if column.checks not in names:
        mistakes.add(
            place, f"no column makes {column.checks!r}; {suggestion(column.checks, names)}"
        )
        return
    checked = next((spec for spec in draft.columns if spec and column.checks in spec.outputs), None)
    if column.on_invalid != "retry" or checked is None:
        return
    if isinstance(checked, SeedColumn | SamplerColumn):
        problem = f"{column.checks!r} is the same each time it is made; use 'drop' or 'mark'"
        mistakes.add(("columns", index, "on_invalid"), problem)
        return
    beyond = sorted(_used(column) - _used(checked) - set(checked.needs) - {column.checks})
    if beyond:
        mistakes.add(
            ("columns", index, "expression"),
            f"it reads {beyond[0]!r}, which {column.checks!r} is made without, so that it cannot be"
            f" judged while it is made; add {beyond[0]!r} to needs of {column.checks!r}, or use"
            " 'drop'",
        )


def _used(column: ColumnSpec) -> set[str]:
    found: set[str] = set()
    for source in column.templates.values():
        try:
            found |= set(check_template(source))
        except TemplateSyntaxError:
            continue  # which is noted with its own place
    return found
