"""Cells of a reference table, from a pydantic model: a field's type, default and meaning."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

_TYPES: Final[Mapping[str, str]] = {
    "boolean": "`true` or `false`",
    "date": "date",
    "integer": "whole number",
    "number": "number",
    "object": "table",
    "string": "text",
}


def meanings_of(model: type[BaseModel]) -> dict[str, str]:
    """Return the meaning of each attribute, from the docstrings of a model and its bases."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        section = (inspect.getdoc(base) or "").partition("Attributes:\n")[2]
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            found[name] = re.sub(r"\s+", " ", text)
    return found


def cell(text: str) -> str:
    """Return a text in reStructuredText as a cell of a table in Markdown."""
    return text.replace("``", "`").replace("|", "\\|")


def default_of(value: Mapping[str, Any]) -> str:
    """Return the default of a property of a JSON schema; ``none`` where it is empty."""
    default = value.get("default")
    if default is None or default in ([], {}):
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def type_of(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return the type of a property of a JSON schema in words, with its bounds."""
    if "$ref" in value:
        value = schema["$defs"][value["$ref"].rpartition("/")[2]]
    if kinds := [one for one in value.get("anyOf", ()) if one.get("type") != "null"]:
        return " or ".join(dict.fromkeys(type_of(one, schema) for one in kinds))
    if choices := value.get("enum") or [value[name] for name in ("const",) if name in value]:
        return ", ".join(f"`{choice}`" for choice in choices)
    if "oneOf" in value.get("items", ()):
        return "list of tables"
    if value["type"] == "array":
        return f"list of {type_of(value['items'], schema)}"
    return _TYPES[value.get("format", value["type"])] + _bounds_of(value)


def _bounds_of(value: Mapping[str, Any]) -> str:
    low, above = value.get("minimum"), value.get("exclusiveMinimum")
    high, below = value.get("maximum"), value.get("exclusiveMaximum")
    words = [
        *([f"from {low:,.15g}"] if low is not None else ()),
        *([f"above {above:g}"] if above is not None else ()),
        *([f"to {high:,.15g}"] if high is not None else ()),
        *([f"below {below:g}"] if below is not None else ()),
    ]
    return " " + " ".join(words) if words else ""
