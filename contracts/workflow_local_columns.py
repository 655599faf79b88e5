"""Columns that need no model: samplers, the user's functions, validators.

Rules: design 05, *Generators*.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from forebay.contracts.workflow_columns import CellColumn, Name, WorkflowPart, condition_template

Number = Annotated[float, Field(allow_inf_nan=False)]
Scalar = str | int | float | bool

_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "category": ("values",),
    "uniform": ("low", "high"),
    "integer": ("low", "high"),
    "normal": ("mean", "stddev"),
    "date": ("start", "end"),
    "uuid": (),
}
_MAY_HAVE: Final[Mapping[str, tuple[str, ...]]] = {"category": ("weights",)}
_OF_KINDS: Final = ("values", "weights", "low", "high", "mean", "stddev", "start", "end")


def _target(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w.-]*|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", text):
        raise ValueError(
            "expected module:name, such as my_package.enrich:run, or an installed plugin's name"
        )
    return text


CodeTarget = Annotated[str, AfterValidator(_target)]


class SamplerColumn(WorkflowPart):
    """A column of drawn values; a seed and the record's place decide each, in every run alike.

    Attributes:
        name: the one column it makes.
        kind: ``category`` draws one of ``values`` (by ``weights``), ``uniform`` a number and
            ``integer`` a whole one from ``low`` to ``high``, ``normal`` one around ``mean``,
            ``date`` a day from ``start`` to ``end``, ``uuid`` an identifier.
        seed: of the draws.
    """

    generator: Literal["sampler"]
    name: Name
    kind: Literal["category", "uniform", "integer", "normal", "date", "uuid"]
    seed: int = 0
    values: Annotated[tuple[Scalar, ...], Field(min_length=1)] | None = None
    weights: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] | None = None
    low: Number | None = None
    high: Number | None = None
    mean: Number | None = None
    stddev: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    start: date | None = None
    end: date | None = None

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> SamplerColumn:
        needed = _NEEDED[self.kind]
        given = [name for name in _OF_KINDS if getattr(self, name) is not None]
        if lacking := [name for name in needed if name not in given]:
            raise ValueError(f"kind {self.kind!r} needs {', '.join(lacking)}; add it")
        if more := [name for name in given if name not in (*needed, *_MAY_HAVE.get(self.kind, ()))]:
            raise ValueError(f"kind {self.kind!r} has no {', '.join(more)}; take it out")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("low is above high, expected at most that; exchange them")
        if self.start is not None and self.end is not None and self.start > self.end:
            raise ValueError("start is behind end, expected at most that; exchange them")
        if self.weights is not None and (
            len(self.weights) != len(self.values or ()) or not sum(self.weights)
        ):
            raise ValueError("weights has another length than values, or only zeros; give one each")
        return self

    @property
    def outputs(self) -> tuple[str, ...]:
        """Name of the column that this column makes."""
        return (self.name,)

    @property
    def needs(self) -> tuple[str, ...]:
        """No columns: a sampler has no inputs."""
        return ()

    @property
    def templates(self) -> Mapping[str, str]:
        """No templates."""
        return {}


class PythonColumn(CellColumn):
    """A column that the user's function or generator class makes.

    Attributes:
        function: ``module:name`` of a function ``(record, models)``, or of a class with
            ``generate(record, models)`` and, if it likes, ``get_scheduling_metadata()``; or the
            name of an entry point in the group ``forebay.generators``. The function may be async,
            and may call the models any number of times, also none. Code with the attribute
            ``task_type`` is called as that says: ``cell``, ``batch``, or ``from_scratch`` with a
            list of record numbers.
        models: aliases that it may call.
        params: given to a class when it is made, and to a function as keyword arguments.
        exclusive: whether the whole fleet runs one at a time.
        batch: whether it is called once a row group, with a list of records, and returns a list of
            as many values.
    """

    generator: Literal["python"]
    function: CodeTarget
    models: tuple[Name, ...] = ()
    params: dict[str, Any] = Field(default_factory=dict)
    exclusive: bool = False
    batch: bool = False

    @model_validator(mode="after")
    def _skips_no_batch(self) -> PythonColumn:
        if self.batch and self.skip_when is not None:
            raise ValueError(
                "skip_when is said of a record, expected none with batch = true, which makes a"
                " whole row group; take one of the two out"
            )
        return self

    @property
    def templates(self) -> Mapping[str, str]:
        """No templates: the function gets the columns that it ``needs``."""
        return {}


class ValidatorColumn(CellColumn):
    """A column that says whether an expression holds for another column.

    Attributes:
        checks: the column that is checked.
        expression: over the columns of the record, as inside ``{{ }}``; true where it is good.
        on_invalid: ``mark`` writes false, ``drop`` drops the record, ``retry`` has the checked
            column made again before its value is used, and drops the record after ``tries``.
        tries: how often the checked column is made in all.
    """

    generator: Literal["validator"]
    checks: Name
    expression: Annotated[str, Field(min_length=1, max_length=4096)]
    on_invalid: Literal["mark", "drop", "retry"] = "mark"
    tries: Annotated[int, Field(ge=2, le=20)] = 3

    @property
    def templates(self) -> Mapping[str, str]:
        """The expression as a template whose text is ``true`` or ``false``."""
        return {"expression": condition_template(self.expression)}
