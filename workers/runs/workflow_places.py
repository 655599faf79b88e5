"""Mistakes of a workflow file: each a sentence with its place.

Rules: design 05, *Workflow files*.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from forebay.contracts.checks import shown
from forebay.contracts.errors import WorkflowError
from forebay.contracts.settings import RequestAdmissionTuningConfig, RequestQuotas, Settings
from forebay.contracts.workflow import ModelSpec, OutputSpec, ProviderSpec, WorkflowSpec
from forebay.contracts.workflow_column_kinds import COLUMN_TYPES
from forebay.workers.evaluation.evaluator import EvaluationFailed, evaluator
from forebay.workers.evaluation.limits import DOCUMENT_CPU_SECONDS

Place = tuple[str | int, ...]
"""Keys and indices from the top of the document: ``("columns", 2, "prompt")``."""

_MOST_OPTIONS: Final = 12
_MOST_COMPARED: Final = 200

_SENTENCES: Final[Mapping[str, str]] = {
    "missing": "is missing; add it",
    "too_short": "is empty; write at least one",
    "string_too_short": "is empty; write something",
}

_REMEDIES: Final[Mapping[str, str]] = {
    "string_type": "put it in quotes",
    "string_too_long": "shorten it",
    "int_type": "write a whole number without quotes",
    "float_type": "write a number without quotes",
    "tuple_type": "write a list in square brackets",
    "dict_type": "write a table of keys and values",
    "model_type": "write a table of keys and values",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowFile:
    """A workflow file that was read.

    Attributes:
        path: as it was given.
        document: what it says.
        kind: ``toml`` or ``yaml``.
        text: the file, in which lines are found.
    """

    path: Path
    document: Mapping[str, Any]
    kind: str = "toml"
    text: str = ""

    def lines(self) -> Mapping[Place, tuple[int, int]]:
        """Return the line of each key, and that on which a multi-line text begins, else 0.

        Empty where they cannot be found within their bounds.
        """
        if not self.text:
            return {}
        try:
            entries = evaluator().evaluate_blocking(
                "lines", cpu_seconds=DOCUMENT_CPU_SECONDS, kind=self.kind, text=self.text
            )
        except EvaluationFailed:
            return {}
        return {tuple(place): (line, first) for place, line, first in entries}

    def describe(self, place: Place) -> str:
        """Return a place as messages name it: its path, and the name of its column."""
        path = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in place
        ).removeprefix(".")
        match place:
            case ("columns", int(index), *_):
                name = self._column_name(index)
                return f"{path} (column {shown(name)}): " if name else f"{path}: "
            case ():
                return ""
            case _:
                return f"{path}: "

    def _column_name(self, index: int) -> str | None:
        match self.document:
            case {"columns": [*columns]} if index < len(columns):
                match columns[index]:
                    case {"name": str(name)}:
                        return name
        return None


class Mistakes:
    """The mistakes of a workflow file, collected to be shown at once.

    Args:
        file: the workflow file.
    """

    def __init__(self, file: WorkflowFile) -> None:
        self.file = file
        self._found: list[tuple[Place, int, str]] = []

    def add(self, place: Place, problem: str, *, text_line: int = 0) -> None:
        """Note a mistake.

        Args:
            place: keys and indices that lead to it.
            problem: what is wrong, what was expected, and the remedy; without a last full stop.
            text_line: the line within the text at that place, from 1; 0 for no text.
        """
        self._found.append((place, text_line, problem))

    def add_form(self, error: ValidationError) -> None:
        """Note each of pydantic's errors; a misspelt key is not noted as missing, too."""
        found = [_form_fault(fault) for fault in error.errors(include_url=False)]
        misspelt = {
            (*place[:-1], match[1])
            for place, problem in found
            if (match := re.fullmatch(r"unknown key; did you mean '(.*)'\?", problem))
        }
        for place, problem in found:
            if place not in misspelt or problem != _SENTENCES["missing"]:
                self.add(place, problem)

    def __bool__(self) -> bool:
        return bool(self._found)

    def raise_any(self) -> None:
        """Raise an error with all mistakes, if there are any.

        Raises:
            WorkflowError: each with file, line, place, and what is wrong.
        """
        if not self._found:
            return
        lines = self.file.lines()
        told = sorted(
            (self._line_of(lines, place, text_line), number, self._sentence(place, problem))
            for number, (place, text_line, problem) in enumerate(self._found)
        )
        raise WorkflowError(
            *dict.fromkeys(
                f"{self.file.path}:{line}: {text}" if line else f"{self.file.path}: {text}"
                for line, _, text in told
            )
        )

    def _sentence(self, place: Place, problem: str) -> str:
        end = "" if problem.endswith((".", "?")) else "."
        return f"{self.file.describe(place)}{problem}{end}"

    def _line_of(self, lines: Mapping[Place, tuple[int, int]], place: Place, text_line: int) -> int:
        if text_line and lines.get(place, (0, 0))[1]:
            return lines[place][1] + text_line - 1
        while place and place not in lines:
            place = place[:-1]
        return lines[place][0] if place else 0


def suggestion(name: str, options: Iterable[str]) -> str:
    """Return a suggestion for an unknown ``name``, or the known names."""
    known = list(options)[:_MOST_COMPARED]
    close = get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if not known:
        return "there is none yet, define it first"
    rest = ", ..." if len(known) > _MOST_OPTIONS else ""
    return f"use one of {', '.join(known[:_MOST_OPTIONS])}{rest}"


def _form_fault(fault: ErrorDetails) -> tuple[Place, str]:
    """Return the place and the message of a form error, without the written value."""
    place, context = _without_tag(fault["loc"]), fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            remedy = suggestion(str(place[-1]), _known_keys(fault["loc"][:-1]))
            return place, f"unknown key; {remedy}"
        case "union_tag_not_found":
            return (*place, "generator"), f"is missing; use one of {', '.join(COLUMN_TYPES)}"
        case "union_tag_invalid":
            tag = str(context["tag"])
            remedy = suggestion(tag, COLUMN_TYPES)
            return (*place, "generator"), f"unknown generator {tag!r}; {remedy}"
        case "value_error":
            return place, f"{context['error']}"
        case kind if kind in _SENTENCES:
            return place, _SENTENCES[kind]
        case kind:
            message = fault["msg"].replace("Input should be", "expected")
            remedy = _REMEDIES.get(kind, "correct it")
            return place, f"{message}, not {_found(fault['input'])}; {remedy}"


def _found(value: Any) -> str:
    """Name a found value: a number itself, else its kind, as it may be a secret."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str():
            return "text" if value else "empty text"
        case list():
            return "a list" if value else "an empty list"
        case dict():
            return "a table"
        case _:
            return "nothing"


def _without_tag(location: Place) -> Place:
    """Drop the generator's name, which pydantic puts behind the index of a column."""
    match location:
        case ("columns", int(index), str(), *rest):
            return ("columns", index, *rest)
        case _:
            return tuple(location)


def _known_keys(location: Place) -> list[str]:
    """Return the keys that the table at pydantic's location may have."""
    known: type[Settings]
    match location:
        case ():
            known = WorkflowSpec
        case ("output",):
            known = OutputSpec
        case ("providers", _):
            known = ProviderSpec
        case ("models", _):
            known = ModelSpec
        case ("models", _, "tuning"):
            known = RequestAdmissionTuningConfig
        case ("models", _, "quotas"):
            known = RequestQuotas
        case ("columns", int(), str(generator)):
            known = COLUMN_TYPES[generator]
        case _:
            return []
    return [field.alias or name for name, field in known.model_fields.items()]
