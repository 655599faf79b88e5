"""Workflow files: from text to plain JSON values, in the process that evaluates.

TOML and YAML have forms whose cost grows faster than the text, so they are read where CPU time is
bounded. Imports nothing of the project but limits.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from forebay.workers.evaluation.limits import MOST_DOCUMENT_VALUES

_LARGEST_INTEGER: Final = 2**63 - 1


@dataclass(slots=True)
class Document:
    """The parsed content of a file.

    Attributes:
        value: plain JSON values; of no use where there is a problem.
        problem: what is wrong, with the remedy; None if nothing is.
        place: keys and indices that lead to what is wrong.
    """

    value: Any = None
    problem: str | None = None
    place: list[str | int] = field(default_factory=list)


def read_document(kind: str, text: str) -> Document:
    """Return the values of a TOML or YAML text, or its first error.

    Args:
        kind: ``toml`` or ``yaml``.
        text: the file.
    """
    try:
        return _PlainCopy().of(_parse(kind, text))
    except RecursionError:
        return Document(problem="nested too deep; make it flatter")
    except _Refused as refused:
        return Document(problem=str(refused))


class _Refused(Exception):  # noqa: N818 - becomes a `Document`
    pass


def _parse(kind: str, text: str) -> Any:
    try:
        if kind == "yaml":
            from forebay.workers.evaluation.yaml_loader import (  # noqa: PLC0415 - an extra
                parse_yaml,
            )

            return parse_yaml(text)
        return tomllib.loads(text)
    except ValueError as error:  # also what int() raises for a number of thousands of digits
        raise _Refused(f"{kind.upper()} syntax: {error}; correct it there") from None


class _PlainCopy:
    """Copies a document to plain JSON values; notes the first value that JSON cannot hold."""

    def __init__(self) -> None:
        self._document = Document()
        self._values = 0

    def of(self, value: Any) -> Document:
        self._document.value = self._copy([], value)
        return self._document

    def _copy(self, place: list[str | int], value: Any) -> Any:
        self._values += 1
        if self._values > MOST_DOCUMENT_VALUES:
            raise _Refused(
                f"it holds more than {MOST_DOCUMENT_VALUES:,} values, those behind a YAML alias"
                " counted as often as it is used; make it smaller"
            )
        match value:
            case list():
                return [self._copy([*place, index], item) for index, item in enumerate(value)]
            case Mapping():
                return self._table(place, value)
            case int() | float():
                return self._number(place, value)
            case None | str():
                return value
            case _:
                kind = type(value).__name__
                self._refuse(place, f"expected text or a number, not a {kind}; put it in quotes")
                return None

    def _number(self, place: list[str | int], value: float) -> float:
        is_whole = isinstance(value, int)
        if not (abs(value) <= _LARGEST_INTEGER if is_whole else math.isfinite(value)):
            self._refuse(place, "the number is too large or not finite; use a smaller one")
            return 0  # JSON has no other, and this document goes no further
        return value

    def _table(self, place: list[str | int], table: Mapping[Any, Any]) -> dict[str, Any]:
        copied = {}
        for key, item in table.items():
            if isinstance(key, str):
                copied[key] = self._copy([*place, key], item)
            else:
                self._refuse([*place, str(key)], "the key is not text; put it in quotes")
        return copied

    def _refuse(self, place: list[str | int], problem: str) -> None:
        if self._document.problem is None:
            self._document.place, self._document.problem = place, problem
