"""Checks of columns with the user's code and of validators (design 05)."""

from __future__ import annotations

from jinja2 import TemplateSyntaxError

from forebay.contracts.checks import shown
from forebay.contracts.errors import WorkflowError
from forebay.contracts.workflow import TaskType
from forebay.contracts.workflow_column_kinds import ColumnSpec
from forebay.contracts.workflow_columns import SeedColumn
from forebay.contracts.workflow_local_columns import PythonColumn, SamplerColumn, ValidatorColumn
from forebay.workers.generators.code import load_target
from forebay.workers.generators.templates import check_template
from forebay.workers.runs.workflow_draft import Draft
from forebay.workers.runs.workflow_places import Mistakes, Place, suggestion


def check_code(mistakes: Mistakes, index: int, column: PythonColumn) -> TaskType:
    """Return the task type of a column of the user's code, as the code or the file says it.

    Notes code that cannot be imported here, and what the file says that its task type excludes.
    """
    said = TaskType.BATCH if column.batch else TaskType.CELL
    place: Place = ("columns", index)
    try:
        target = load_target(column.function, mistakes.file.path.absolute().parent)
        task_type = TaskType(getattr(target, "task_type", said))
    except WorkflowError as error:
        mistakes.add((*place, "function"), str(error))
        return said
    except ValueError:
        problem = f"task_type of {column.function} is {shown(target.task_type)}, expected one of"
        mistakes.add((*place, "function"), f"{problem} {', '.join(TaskType)}; correct the code")
        return said
    if column.batch and task_type is not TaskType.BATCH:
        problem = f"the code says task_type = {task_type.value!r}, expected 'batch' as here"
        mistakes.add((*place, "batch"), f"{problem}; take batch out")
    if column.skip_when is not None and task_type is not TaskType.CELL:
        problem = f"{column.function} makes a whole row group, expected code that makes one record"
        mistakes.add((*place, "skip_when"), f"{problem}; take skip_when out")
    if column.needs and task_type is TaskType.FROM_SCRATCH:
        problem = f"{column.function} makes its values from scratch, expected no needs"
        mistakes.add((*place, "needs"), f"{problem}; take them out")
    return task_type


def check_retried(mistakes: Mistakes, index: int, column: ValidatorColumn, made: TaskType) -> None:
    """Note a validator that asks for another try of a column that is made a row group at a time."""
    if column.on_invalid == "retry" and made is not TaskType.CELL:
        problem = f"{column.checks!r} is made a row group at a time, so that no record's is made"
        mistakes.add(("columns", index, "on_invalid"), f"{problem} again; use 'drop' or 'mark'")


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
