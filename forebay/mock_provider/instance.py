"""Makes a JSON instance of a JSON Schema, drawn from a repeatable stream of numbers.

It knows the part of JSON Schema that structured answers of models use: object, array, the scalars,
enum, const, anyOf, oneOf (taken as anyOf), allOf, local $ref, bounds and common formats. A schema
with a constraint beyond that is refused rather than answered wrongly.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forebay.mock_provider.draws import below, pick

_NOT_KNOWN = (
    "pattern",
    "not",
    "if",
    "contains",
    "patternProperties",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
)
_ANNOTATIONS = ("title", "description", "default", "examples", "$defs", "definitions", "$schema")
_DEPTH_OF_EXTRAS = 5
_DEPTH_OF_ALL = 40
_LARGEST_ARRAY = 1_000
_MOST_VALUES = 20_000
_LARGEST_STRING = 100_000
_FORMATS = {
    "date": "2024-05-{day:02d}",
    "time": "12:{day:02d}:00Z",
    "date-time": "2024-05-{day:02d}T12:00:00Z",
    "duration": "P{day}D",
    "email": "reader{day}@example.com",
    "hostname": "host{day}.example.com",
    "ipv4": "192.0.2.{day}",
    "ipv6": "2001:db8::{day}",
    "uri": "https://example.com/{day}",
    "uuid": "00000000-0000-4000-8000-0000000000{day:02d}",
}


class SchemaNotSupportedError(ValueError):
    """The schema asks for something that the mock cannot make, or that nothing satisfies."""


def make_instance(schema: Mapping[str, Any], rng: random.Random, words: Sequence[str]) -> Any:
    """Return a JSON value that satisfies the schema.

    Args:
        schema: a JSON Schema, as in ``response_format.json_schema.schema``.
        rng: where the choices come from.
        words: what strings are made of; at least one.

    Raises:
        SchemaNotSupportedError: names the keyword and what to do.
    """
    try:
        return _Maker(schema, rng, words).make(schema, 0)
    except (TypeError, ValueError, AttributeError, OverflowError) as exc:
        if isinstance(exc, SchemaNotSupportedError):
            raise
        raise SchemaNotSupportedError(f"not a JSON Schema: {exc}; correct the keyword") from exc


class _Maker:
    def __init__(self, root: Mapping[str, Any], rng: random.Random, words: Sequence[str]) -> None:
        self._root = root
        self._rng = rng
        self._words = words
        self._values_left = _MOST_VALUES
        self._by_type: dict[str, Callable[[Mapping[str, Any], int], Any]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "boolean": lambda _schema, _depth: below(self._rng, 2) == 1,
            "null": lambda _schema, _depth: None,
        }

    def make(self, schema: Any, depth: int) -> Any:
        self._values_left -= 1
        if self._values_left < 0:
            raise SchemaNotSupportedError(f"an instance would have over {_MOST_VALUES} values")
        schema = self._flatten(schema, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return pick(self._rng, _non_empty(schema["enum"], "enum"))
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self.make(self._alternative(schema, keyword, depth), depth + 1)
        kind = self._type_of(schema, depth)
        if kind not in self._by_type:
            raise SchemaNotSupportedError(f"type {kind!r} is not one of {', '.join(self._by_type)}")
        return self._by_type[kind](schema, depth)

    def _flatten(self, schema: Any, depth: int) -> Mapping[str, Any]:
        """Resolve $ref and allOf into one table, and refuse what is not known."""
        if depth > _DEPTH_OF_ALL:
            raise SchemaNotSupportedError("the schema requires itself without an end")
        if schema is True:
            schema = {}
        if not isinstance(schema, Mapping):
            raise SchemaNotSupportedError(f"expected a schema, got {schema!r}")
        for keyword in _NOT_KNOWN:
            if keyword in schema:
                raise SchemaNotSupportedError(f"the mock provider cannot satisfy {keyword!r}")
        parts: list[Any] = []
        if "$ref" in schema:
            parts.append(self._resolve(schema["$ref"]))
        parts.extend(schema.get("allOf", ()))
        own = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        for part in parts:
            own = _both(self._flatten(part, depth + 1), own)
        return own

    def _resolve(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaNotSupportedError(f"$ref {reference!r}: expected one that begins with #")
        found: Any = self._root
        for raw in reference[1:].split("/")[1:]:
            name = raw.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or name not in found:
                raise SchemaNotSupportedError(f"$ref {reference!r} leads nowhere")
            found = found[name]
        return found

    def _alternative(
        self, schema: Mapping[str, Any], keyword: str, depth: int
    ) -> Mapping[str, Any]:
        options = [self._flatten(option, depth) for option in _non_empty(schema[keyword], keyword)]
        if depth >= _DEPTH_OF_EXTRAS:
            # A recursive schema must come to an end: prefer what has nothing below it.
            flat = [option for option in options if not {"properties", "items"} & set(option)]
            options = flat or options
        rest = {key: value for key, value in schema.items() if key != keyword}
        return _both(pick(self._rng, options), rest)

    def _type_of(self, schema: Mapping[str, Any], depth: int) -> str:
        named = schema.get("type")
        if isinstance(named, list):
            kinds = _non_empty(named, "type")
            if depth >= _DEPTH_OF_EXTRAS:
                kinds = [kind for kind in kinds if kind not in ("object", "array")] or kinds
            return str(pick(self._rng, kinds))
        if named is not None:
            return str(named)
        if {"properties", "required", "additionalProperties"} & set(schema):
            return "object"
        if {"items", "prefixItems", "minItems"} & set(schema):
            return "array"
        return "number" if {"minimum", "maximum"} & set(schema) else "string"

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", ())
        other = schema.get("additionalProperties", True)
        if depth < _DEPTH_OF_EXTRAS:
            names = list(dict.fromkeys([*properties, *required]))
        else:
            names = list(required)
        made = {name: self.make(properties.get(name, other), depth + 1) for name in names}
        wanted = schema.get("minProperties", 0)
        if not properties and isinstance(other, Mapping) and depth < _DEPTH_OF_EXTRAS:
            wanted = max(wanted, min(2, schema.get("maxProperties", 2)))
        for name in [*properties, *(f"key{number}" for number in range(1, _LARGEST_ARRAY))]:
            if len(made) >= wanted:
                break
            if name not in made:
                made[name] = self.make(properties.get(name, other), depth + 1)
        for name in list(made):
            if len(made) > schema.get("maxProperties", math.inf) and name not in required:
                del made[name]
        if not wanted <= len(made) <= schema.get("maxProperties", math.inf):
            raise SchemaNotSupportedError("minProperties and maxProperties cannot both be met")
        return made

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        first = schema.get("prefixItems", [])
        items = schema.get("items", True)
        low = schema.get("minItems", len(first))
        high = schema.get("maxItems", max(low, len(first)) + 2)
        if low > high or low > _LARGEST_ARRAY:
            raise SchemaNotSupportedError(f"minItems {low} is above {min(high, _LARGEST_ARRAY)}")
        if items is False:
            high = min(high, len(first))
        if depth >= _DEPTH_OF_EXTRAS or high < low:
            count = low
        else:
            count = max(low, min(high, max(low, 1) + below(self._rng, 3)))
        made: list[Any] = []
        for index in range(count):
            item_schema = first[index] if index < len(first) else items
            item = self.make(item_schema, depth + 1)
            if schema.get("uniqueItems"):
                tries = 0
                while _is_in(item, made) and tries < _LARGEST_ARRAY:
                    item, tries = self.make(item_schema, depth + 1), tries + 1
                if _is_in(item, made):
                    break
            made.append(item)
        if len(made) < low:
            raise SchemaNotSupportedError(f"found only {len(made)} different items of {low}")
        return made

    def _string(self, schema: Mapping[str, Any], depth: int) -> str:
        del depth
        low, high = schema.get("minLength", 0), schema.get("maxLength", math.inf)
        if low > high or low > _LARGEST_STRING:
            raise SchemaNotSupportedError(f"minLength {low} is above {min(high, _LARGEST_STRING)}")
        if "format" in schema:
            if schema["format"] not in _FORMATS:
                raise SchemaNotSupportedError(
                    f"format {schema['format']!r} is not one of {', '.join(_FORMATS)}"
                )
            text = _FORMATS[schema["format"]].format(day=1 + below(self._rng, 28))
            if not low <= len(text) <= high:
                raise SchemaNotSupportedError("a length cannot be chosen for a format")
            return text
        text = " ".join(pick(self._rng, self._words) for _ in range(1 + below(self._rng, 3)))
        while len(text) < low:
            text += " " + pick(self._rng, self._words)
        return text if len(text) <= high else text[: int(high)]

    def _integer(self, schema: Mapping[str, Any], depth: int) -> int:
        del depth
        step = schema.get("multipleOf", 1)
        if step != int(step) or step < 1:
            raise SchemaNotSupportedError(f"multipleOf {step}: expected a whole number")
        low, high, open_low, open_high = _bounds(schema)
        first, last = int(-(-low // step)), int(high // step)
        first += open_low and first * step == low
        last -= open_high and last * step == high
        if first > last:
            raise SchemaNotSupportedError(f"no multiple of {step} between {low} and {high}")
        return int((first + below(self._rng, last - first + 1)) * step)

    def _number(self, schema: Mapping[str, Any], depth: int) -> float:
        if "multipleOf" in schema:
            return self._integer(schema, depth)
        low, high, open_low, open_high = _bounds(schema)
        exact = low + self._rng.random() * (high - low)
        for value in (round(exact, 2), exact, (low + high) / 2):
            above = value > low if open_low else value >= low
            if above and (value < high if open_high else value <= high):
                return float(value)
        raise SchemaNotSupportedError(f"no number between {low} and {high}")


def _bounds(schema: Mapping[str, Any]) -> tuple[float, float, bool, bool]:
    """Return lower and upper bound, each with whether it is itself excluded."""
    lows = [(schema[key], key != "minimum") for key in _LOWS if key in schema]
    highs = [(schema[key], key == "maximum") for key in _HIGHS if key in schema]
    if any(isinstance(value, bool) for value, _ in [*lows, *highs]):
        raise SchemaNotSupportedError("exclusiveMinimum and exclusiveMaximum: expected a number")
    low, open_low = max(lows) if lows else (None, False)
    high, closed_high = min(highs) if highs else (None, True)
    if low is None:
        low = 0 if high is None or high >= 0 else high - 100
    if high is None:
        high = low + 100
    return low, high, open_low, not closed_high


_LOWS = ("minimum", "exclusiveMinimum")
_HIGHS = ("maximum", "exclusiveMaximum")


def _both(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Join two tables whose constraints hold together."""
    joined = {**first, **second}
    for key in set(first) & set(second):
        if key == "properties":
            joined[key] = {**first[key], **second[key]}
            for name in set(first[key]) & set(second[key]):
                joined[key][name] = {"allOf": [first[key][name], second[key][name]]}
        elif key == "required":
            joined[key] = list(dict.fromkeys([*first[key], *second[key]]))
        elif first[key] != second[key] and key not in _ANNOTATIONS:
            raise SchemaNotSupportedError(f"the mock provider cannot join two different {key!r}")
    return joined


def _non_empty(options: Any, keyword: str) -> list[Any]:
    if not isinstance(options, list) or not options:
        raise SchemaNotSupportedError(f"{keyword}: expected a list with at least one entry")
    return options


def _is_in(item: Any, made: Sequence[Any]) -> bool:
    """Tell whether JSON would call the item equal to one of these: true is not 1."""
    return any(item == other and type(item) is type(other) for other in made)
