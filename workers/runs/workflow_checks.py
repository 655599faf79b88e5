"""What must hold between the parts of a workflow, and what follows from it (spec 05)."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Final

from jinja2 import TemplateSyntaxError

from forebay.contracts.workflow import ColumnScope, PlannedColumn, WorkflowSpec
from forebay.contracts.workflow_columns import ChatColumn, LlmStructuredColumn, SeedColumn
from forebay.workers.evaluation.evaluator import EvaluationFailed
from forebay.workers.generators.llm_structured import check_schema
from forebay.workers.generators.templates import check_template, is_template_word
from forebay.workers.runs.workflow_places import Place, WorkflowFile, suggestion

OF_ONE_WINDOW: Final = ("quotas", "tuning", "initial_limit")
"""Settings of a model that belong to its provider's model, so that aliases share them."""


def check_models(file: WorkflowFile, spec: WorkflowSpec) -> None:
    """Refuse a model of an unknown provider, a column of an unknown model, and settings at odds.

    Raises:
        WorkflowError: with the place.
    """
    for alias, model in spec.models.items():
        if model.provider not in spec.providers:
            remedy = suggestion(model.provider, spec.providers)
            raise file.refuse(
                ("models", alias, "provider"), f"unknown provider {model.provider!r}; {remedy}"
            )
        for name in OF_ONE_WINDOW:
            _check_shared(file, spec, alias, name)
    for index, column in enumerate(spec.columns):
        if isinstance(column, ChatColumn) and column.model not in spec.models:
            remedy = suggestion(column.model, spec.models)
            raise file.refuse(
                ("columns", index, "model"), f"unknown model alias {column.model!r}; {remedy}"
            )


def _check_shared(file: WorkflowFile, spec: WorkflowSpec, alias: str, name: str) -> None:
    """Refuse a setting that another alias of the same provider's model gives otherwise."""
    model = spec.models[alias]
    given = getattr(model, name)
    for other, earlier in spec.models.items():
        if other == alias or given is None:
            return
        is_same = (earlier.provider, earlier.model) == (model.provider, model.model)
        if is_same and getattr(earlier, name) not in (None, given):
            raise file.refuse(
                ("models", alias, name),
                f"models.{other} gives other {name} to the same provider's model; give both the"
                " same, or one of them none",
            )


def find_seed(file: WorkflowFile, spec: WorkflowSpec) -> tuple[int, SeedColumn]:
    """Return the one seed column and its index.

    Raises:
        WorkflowError: none, so that nothing says how many records there are, or several.
    """
    seeds = [
        (index, column)
        for index, column in enumerate(spec.columns)
        if isinstance(column, SeedColumn)
    ]
    if not seeds:
        raise file.refuse(
            ("columns",), "no column can be made first; add one with generator = 'seed'"
        )
    if len(seeds) > 1:
        raise file.refuse(
            ("columns", seeds[1][0], "generator"),
            f"a second seed, columns[{seeds[0][0]}] is one already; join the files into one",
        )
    return seeds[0]


def plan_columns(file: WorkflowFile, spec: WorkflowSpec) -> tuple[PlannedColumn, ...]:
    """Compile templates and schemas, and find what each column needs.

    Raises:
        WorkflowError: two columns of one name, a name that templates cannot use, a template or
            schema that does not compile, an unknown column, or columns that wait for each other.
    """
    makers = _makers(file, spec)
    _, seed = find_seed(file, spec)
    planned = []
    for index, column in enumerate(spec.columns):
        if isinstance(column, LlmStructuredColumn):
            _check_schema(file, index, column)
        used = _used_columns(file, spec, index, makers)
        inputs = tuple(name for name in makers if name in used)
        is_root = isinstance(column, SeedColumn)
        if not inputs and not is_root:
            inputs = seed.names[:1]
        planned.append(
            PlannedColumn(
                spec=column,
                inputs=inputs,
                depends_on=tuple(sorted({makers[name] for name in inputs})),
                scope=ColumnScope.ROW_GROUP if is_root else ColumnScope.RECORD,
            )
        )
    _check_cycles(file, planned)
    return tuple(planned)


def _makers(file: WorkflowFile, spec: WorkflowSpec) -> dict[str, int]:
    """Return the index of the column that makes each name, in the order of the output."""
    makers: dict[str, int] = {}
    for index, column in enumerate(spec.columns):
        for position, name in enumerate(column.outputs):
            last = ("names", position) if isinstance(column, SeedColumn) else ("name",)
            place: Place = ("columns", index, *last)
            if name in makers:
                raise file.refuse(
                    place, f"columns[{makers[name]}] makes a column {name!r} already; rename one"
                )
            if is_template_word(name):
                raise file.refuse(place, f"templates read {name!r} as their own word; rename it")
            makers[name] = index
    return makers


def _used_columns(
    file: WorkflowFile, spec: WorkflowSpec, index: int, makers: dict[str, int]
) -> set[str]:
    column = spec.columns[index]
    used: set[str] = set()
    for position, name in enumerate(column.needs):
        if name not in makers:
            remedy = suggestion(name, makers)
            raise file.refuse(
                ("columns", index, "needs", position), f"no column makes {name!r}; {remedy}"
            )
        used.add(name)
    for field, source in column.templates.items():
        place: Place = ("columns", index, field)
        try:
            variables = check_template(source)
        except TemplateSyntaxError as error:
            problem = (error.message or "").rstrip(".")
            raise file.refuse(
                place, f"template line {error.lineno}: {problem}; correct it there"
            ) from error
        for name in sorted(variables):
            if name not in makers:
                remedy = suggestion(name, makers)
                raise file.refuse(place, f"no column makes {name!r}; {remedy}")
            used.add(name)
    return used


def _check_schema(file: WorkflowFile, index: int, column: LlmStructuredColumn) -> None:
    try:
        check_schema(column.json_schema)
    except EvaluationFailed as error:
        raise file.refuse(
            ("columns", index, "schema"), f"not a usable JSON Schema: {error}; correct it there"
        ) from error


def _check_cycles(file: WorkflowFile, planned: list[PlannedColumn]) -> None:
    graph = {index: column.depends_on for index, column in enumerate(planned)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = " -> ".join(planned[index].outputs[0] for index in error.args[1])
        raise file.refuse(
            ("columns",), f"these wait for each other: {cycle}; take one of the uses out"
        ) from error
