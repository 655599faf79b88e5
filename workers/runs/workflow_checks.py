"""Checks between the parts of a workflow, and the plan that follows from them.

Rules: design 05, *Workflow files*.

Each check notes its mistakes and goes on, so that all mistakes are shown at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Final

from jinja2 import TemplateSyntaxError

from forebay.contracts.workflow import PlannedColumn, TaskType
from forebay.contracts.workflow_column_kinds import ColumnSpec
from forebay.contracts.workflow_columns import (
    ChatColumn,
    ConditionColumn,
    EmbeddingColumn,
    LlmStructuredColumn,
    SeedColumn,
)
from forebay.contracts.workflow_local_columns import PythonColumn, SamplerColumn, ValidatorColumn
from forebay.workers.evaluation.evaluator import EvaluationFailed
from forebay.workers.generators.llm_structured import check_schema
from forebay.workers.generators.templates import check_template, is_template_word
from forebay.workers.runs.code_checks import check_code, check_retried, check_validator
from forebay.workers.runs.skip_conditions import with_conditions
from forebay.workers.runs.workflow_draft import Draft
from forebay.workers.runs.workflow_places import Mistakes, Place, suggestion

OF_ONE_WINDOW: Final = ("quotas", "tuning", "initial_limit", "input_price", "output_price")
"""Settings of a model that belong to its provider's model, so that aliases share them."""


def check_models(mistakes: Mistakes, draft: Draft) -> None:
    """Note models of unknown providers, columns of unknown models, and settings at odds."""
    for alias, model in draft.models.items():
        if model is None:
            continue
        if model.provider not in draft.providers:
            remedy = suggestion(model.provider, draft.providers)
            problem = f"unknown provider {model.provider!r}; {remedy}"
            mistakes.add(("models", alias, "provider"), problem)
        for name in OF_ONE_WINDOW:
            _check_shared(mistakes, draft, alias, name)
    for index, column in enumerate(draft.columns):
        for place, alias in _aliases_of(column):
            if alias not in draft.models:
                problem = f"unknown model alias {alias!r}; {suggestion(alias, draft.models)}"
                mistakes.add(("columns", index, *place), problem)


def _aliases_of(column: ColumnSpec | None) -> list[tuple[Place, str]]:
    """Return the models that a column names, each with its place in the column."""
    if isinstance(column, ChatColumn | EmbeddingColumn):
        return [(("model",), column.model)]
    if isinstance(column, PythonColumn):
        return [(("models", place), alias) for place, alias in enumerate(column.models)]
    return []


def _check_shared(mistakes: Mistakes, draft: Draft, alias: str, name: str) -> None:
    """Note a setting that another alias of the same provider's model gives otherwise."""
    model = draft.models[alias]
    given = getattr(model, name)
    for other, earlier in draft.models.items():
        if other == alias or given is None or model is None:
            return
        is_same = earlier and (earlier.provider, earlier.model) == (model.provider, model.model)
        if is_same and getattr(earlier, name) not in (None, given):
            mistakes.add(
                ("models", alias, name),
                f"models.{other} gives other {name} to the same provider's model; give both the"
                " same, or one of them none",
            )
            return


def find_seed(mistakes: Mistakes, draft: Draft) -> tuple[int, SeedColumn] | None:
    """Return the one seed column and its index; None where there is none of the right form.

    Notes where nothing says how many records there are, or several columns do.
    """
    seeds = [
        (index, column)
        for index, column in enumerate(draft.columns)
        if isinstance(column, SeedColumn)
    ]
    says_records = "records" in mistakes.file.document
    if not seeds and not says_records and all(draft.columns):  # one of a wrong form may be a seed
        problem = "nothing says how many records there are"
        mistakes.add(("columns",), f"{problem}; add one with generator = 'seed', or records = N")
    if seeds and says_records:
        problem = f"columns[{seeds[0][0]}] is a seed, whose file says how many records there are"
        mistakes.add(("records",), f"{problem}; take one of the two out")
    for index, _ in seeds[1:]:
        mistakes.add(
            ("columns", index, "generator"),
            f"a second seed, columns[{seeds[0][0]}] is one already; join the files into one",
        )
    return seeds[0] if seeds else None


def plan_columns(mistakes: Mistakes, draft: Draft) -> list[PlannedColumn | None]:
    """Compile templates and schemas, and find what each column needs.

    Notes two columns of one name, a name that templates cannot use, a template or schema that does
    not compile, an unknown column, and columns that wait for each other.

    Returns:
        Each column in order, None for one of a wrong form; behind them the conditions that skip
        cells.
    """
    makers = _makers(mistakes, draft)
    seed = next((column for column in draft.columns if isinstance(column, SeedColumn)), None)
    placed = with_conditions(draft.columns)
    conditions = {
        one.column.name: index
        for index, one in enumerate(placed)
        if isinstance(one.column, ConditionColumn)
    }
    makers_of_all = makers | conditions
    planned: list[PlannedColumn | None] = []
    for one in placed:
        column = one.column
        if column is None:
            planned.append(None)
            continue
        if isinstance(column, LlmStructuredColumn):
            _check_schema(mistakes, one.place, column)
        if isinstance(column, ValidatorColumn):
            check_validator(mistakes, draft, one.place, column)
        task_type = _task_type(mistakes, one.place, column)
        used = _used_columns(mistakes, one.place, column, makers) | {one.condition}
        inputs = tuple(name for name in makers_of_all if name in used)
        if not inputs and task_type is not TaskType.FROM_SCRATCH and seed is not None:
            inputs = seed.names[:1]
        planned.append(
            PlannedColumn(
                spec=column,
                condition=one.condition,
                inputs=inputs,
                depends_on=tuple(sorted({makers_of_all[name] for name in inputs})),
                task_type=task_type,
            )
        )
    _check_cycles(mistakes, planned)
    for index, validator in enumerate(draft.columns):
        if isinstance(validator, ValidatorColumn) and validator.checks in makers:
            checked = planned[makers[validator.checks]]
            if checked is not None and isinstance(checked.spec, PythonColumn):
                check_retried(mistakes, index, validator, checked.task_type)
    return planned


def _task_type(mistakes: Mistakes, place: int, column: ColumnSpec | ConditionColumn) -> TaskType:
    if isinstance(column, SeedColumn | SamplerColumn):
        return TaskType.FROM_SCRATCH
    if isinstance(column, PythonColumn):
        return check_code(mistakes, place, column)
    return TaskType.CELL


def _makers(mistakes: Mistakes, draft: Draft) -> dict[str, int]:
    """Return the index of the column that makes each name, in the order of the output."""
    makers: dict[str, int] = {}
    for index, names in enumerate(draft.outputs):
        for position, name in enumerate(names):
            last = ("name",) if "name" in _keys(mistakes, index) else ("names", position)
            place: Place = ("columns", index, *last)
            if name in makers:
                problem = f"columns[{makers[name]}] makes a column {name!r} already; rename one"
                mistakes.add(place, problem)
                continue
            if is_template_word(name):
                mistakes.add(place, f"templates read {name!r} as their own word; rename it")
            makers[name] = index
    return makers


def _keys(mistakes: Mistakes, index: int) -> Mapping[str, object]:
    match mistakes.file.document["columns"][index]:
        case dict() as column:
            return column
    return {}


def _used_columns(
    mistakes: Mistakes,
    index: int,
    column: ColumnSpec | ConditionColumn,
    makers: Mapping[str, int],
) -> set[str | None]:
    used: set[str | None] = set()
    for position, name in enumerate(column.needs):
        if name in makers:
            used.add(name)
        else:
            place: Place = ("columns", index, "needs", position)
            mistakes.add(place, f"no column makes {name!r}; {suggestion(name, makers)}")
    if isinstance(column, ValidatorColumn) and column.checks in makers:
        used.add(column.checks)
    for field, source in column.templates.items():
        place = ("columns", index, field)
        try:
            variables = check_template(source)
        except TemplateSyntaxError as error:
            problem = f"template line {error.lineno}: {(error.message or '').rstrip('.')}"
            mistakes.add(place, f"{problem}; correct it there", text_line=error.lineno)
            continue
        for name, line in sorted(variables.items()):
            if name in makers:
                used.add(name)
            else:
                where = f"template line {line}: " if "\n" in source.strip() else ""
                problem = f"{where}no column makes {name!r}; {suggestion(name, makers)}"
                mistakes.add(place, problem, text_line=line)
    return used


def _check_schema(mistakes: Mistakes, index: int, column: LlmStructuredColumn) -> None:
    try:
        check_schema(column.json_schema)
    except EvaluationFailed as error:
        mistakes.add(
            ("columns", index, "schema"), f"not a usable JSON Schema: {error}; correct it there"
        )


def _check_cycles(mistakes: Mistakes, planned: list[PlannedColumn | None]) -> None:
    graph = {index: column.depends_on for index, column in enumerate(planned) if column}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        waiting = (planned[index] for index in error.args[1])
        cycle = " -> ".join(column.outputs[0] for column in waiting if column)
        mistakes.add(("columns",), f"these wait for each other: {cycle}; take one of the uses out")
