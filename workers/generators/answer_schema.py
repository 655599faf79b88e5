"""JSON Schemas that answers are checked by: compiled once, offline, and discreet about values."""

from __future__ import annotations

from typing import Any, cast

from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY, Schema


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


class AnswerSchema:
    """A JSON Schema; it never loads anything from the network."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Compile ``schema``; without ``$schema`` it is of draft 2020-12.

        Raises:
            ValueError: it is no JSON Schema, or refers to something that is not in it.
        """
        dialect_id = schema.get("$schema", "")
        if not isinstance(dialect_id, str):
            raise ValueError("at $.$schema: expected the address of a dialect")  # noqa: TRY004
        dialect = validator_for(schema, default=Draft202012Validator)
        try:
            dialect.check_schema(schema)
            _check_references(schema)
        except SchemaError as error:
            raise ValueError(f"at {error.json_path}: {error.message[:200]}") from error
        except Unresolvable as error:
            raise ValueError(f"the reference {error.ref!r} leads nowhere in it") from error
        # The registry is named because the library's default one fetches what it does not know.
        self._validator = dialect(schema, registry=EMPTY_REGISTRY)

    def check(self, value: Any) -> None:
        """Accept ``value`` or raise AnswerRefused."""
        try:
            error = best_match(self._validator.iter_errors(value))
        except RecursionError:
            raise AnswerRefused("nested too deep", "it is nested too deep") from None
        if error is not None:
            raise AnswerRefused(
                f"at {_place(error)}: {_expectation(error)}",
                f"at {error.json_path}: {error.message[:500]}",
            )


def _check_references(schema: dict[str, Any]) -> None:
    root: Resource[Schema] = Resource.from_contents(schema, default_specification=DRAFT202012)
    registry: Registry[Schema] = EMPTY_REGISTRY
    unseen = [(registry.resolver_with_root(root), root)]
    while unseen:
        resolver, resource = unseen.pop()
        if isinstance(resource.contents, dict):
            for keyword in ("$ref", "$dynamicRef"):
                if keyword in resource.contents:
                    resolver.lookup(resource.contents[keyword])
        unseen += [(resolver.in_subresource(part), part) for part in resource.subresources()]


def _place(error: ValidationError) -> str:
    """Return the path in the value; keys that the schema does not name are the model's: ``*``."""
    named = set(error.absolute_schema_path)
    parts = (
        f"[{part}]" if isinstance(part, int) else f".{part}" if part in named else ".*"
        for part in error.absolute_path
    )
    return "$" + "".join(parts)


def _expectation(error: ValidationError) -> str:
    """Say what the schema wanted, without the value."""
    match error.validator:
        case "enum":
            return "expected one of the enum"
        case "type":
            return f"expected type {error.validator_value}"
        case "required" if isinstance(error.validator_value, list):
            missing = set(error.validator_value) - set(cast("dict[str, Any]", error.instance))
            return f"expected the property {min(missing)!r}"
        case "additionalProperties" | "unevaluatedProperties":
            return "expected no other properties"
        case keyword:
            return f"{keyword or 'the schema'} does not hold"
