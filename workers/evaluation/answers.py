"""Answers of models: read as JSON and checked by a JSON Schema, in the process that evaluates.

Imports jsonschema-rs, whose regular expressions take time in proportion to the text, and nothing of
the project but its strict JSON.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Final

from jsonschema_rs import (
    RegexOptions,
    ValidationError,
    ValidationErrorKind,
    Validator,
    validator_for,
)

from forebay.workers.evaluation.strict_json import parse_json

_FENCE: Final = "```"
_LOOK_AROUND: Final = ("(?=", "(?!", "(?<=", "(?<!", "(?>")
_REGEX_BYTES: Final = 2**20
"""Size of one compiled regular expression."""


class AnswerRefused(Exception):  # noqa: N818 - an outcome that asks for a repair, always caught
    """A value that its schema refuses.

    Attributes:
        reason: what was wrong, in words of the schema alone.
        detail: the same with the value, for the model that made it.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def read_answer(schema_text: str, answer: str) -> Any:
    """Return the value of an answer that its schema accepts.

    Raises:
        AnswerRefused: it is no JSON, or its schema refuses it.
        ValueError: the schema cannot be used.
    """
    schema = compile_schema(schema_text)
    try:
        value = parse_json(without_fence(answer))
    except ValueError as error:
        raise AnswerRefused(str(error), str(error)) from None
    try:
        schema.validate(value)  # stops at the first error: all of them could fill the memory
    except ValidationError as error:
        raise AnswerRefused(
            f"at {_place(error)}: {_expectation(error)}",
            f"at {_path(error.instance_path)}: {error.message[:500]}",
        ) from None
    return value


@lru_cache(maxsize=32)
def compile_schema(schema_text: str) -> Validator:
    """Compile a JSON Schema; without ``$schema`` it is of draft 2020-12.

    Nothing is loaded from elsewhere: what it refers to must be within it.

    Raises:
        ValueError: it is no JSON Schema, refers to something that is not in it, or holds a regular
            expression that cannot be matched in linear time.
    """
    schema = json.loads(schema_text)
    try:
        return validator_for(
            schema,
            pattern_options=RegexOptions(size_limit=_REGEX_BYTES, dfa_size_limit=_REGEX_BYTES),
            validate_formats=False,
            offline=True,
        )
    except ValidationError as error:
        raise ValueError(_fault_of_schema(error)) from None
    except ValueError as error:  # as of a schema that is nested too deep
        raise ValueError(str(error)[:200]) from None


def without_fence(text: str) -> str:
    """Return a text without the code fences that models put around JSON."""
    stripped = text.strip()
    if not (stripped.startswith(_FENCE) and stripped.endswith(_FENCE)):
        return text
    opening, newline, rest = stripped.partition("\n")
    if not newline or opening[len(_FENCE) :].strip().lower() not in {"", "json"}:
        return text
    body, newline, closing = rest.rpartition("\n")
    return body if newline and closing.strip() == _FENCE else text


def _fault_of_schema(error: ValidationError) -> str:
    place = f"at {_path(error.instance_path)}: "
    if isinstance(error.kind, ValidationErrorKind.Referencing):
        return f"a reference leads nowhere in it: {error.message[:200]}"
    instance = error.instance
    if '"regex"' in error.message and isinstance(instance, str):
        if any(part in instance for part in _LOOK_AROUND):
            return f"{place}a pattern cannot look ahead or behind here"
        return (
            f"{place}not a regular expression that can be matched in linear time (without"
            " back-references, and small enough)"
        )
    return place + error.message[:200]


def _place(error: ValidationError) -> str:
    """Return the path in the value; keys that the schema does not name are the model's: ``*``."""
    named = {*error.schema_path, *error.evaluation_path}
    return _path(
        [part if isinstance(part, int) or part in named else "*" for part in error.instance_path]
    )


def _path(parts: list[str | int]) -> str:
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def _expectation(error: ValidationError) -> str:
    """Return what the schema expected, without the value."""
    kind: Any = error.kind
    match kind.name:
        case "enum":
            return "expected one of the enum"
        case "type":
            return f"expected type {' or '.join(kind.types)}"
        case "required":
            return f"expected the property {kind.property!r}"
        case "additionalProperties" | "unevaluatedProperties":
            return "expected no other properties"
        case keyword:
            return f"{keyword or 'the schema'} does not hold"
