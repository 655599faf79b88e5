"""Linking a composed script: as one text that the server evaluates, and as a function library.

A text declares all its functions in each call, and Lua 5.1 finds each variable that a closure
captures by walking the list of those captured before it, so the functions become fields of one
table `F`. A library declares them once, when it is loaded (ADR 0006): there, what is UPPER_CASE is
a constant, and every other variable of the top level is set anew at the start of each call.

Sources stay plain Lua; lines keep their numbers; luacheck sees the script before this step and
refuses shadowed names, on which the renaming relies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_DEFINITION: Final = re.compile(r"^local function (\w+)\(", re.MULTILINE)
_VARIABLES: Final = re.compile(r"local (?P<names>\w+(?:, \w+)*)(?: = (?P<values>.*))?$")
_TOKEN: Final = re.compile(
    r"--[^\n]*|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"|[A-Za-z_]\w*|\.\.\.?|==|\s+|.", re.DOTALL
)
_TABLE: Final = "F"
_BOUND: Final = "K"
"""The table of KEYS: named like a constant, yet set in each call."""
_TABLE_LINE, _INPUTS_LINE = 1, 2
"""Lines of an entry point's header, which comes first, that give way to declarations."""


def link(text: str) -> str:
    """Return a composed script with its top-level functions moved into one table."""
    functions = set(_DEFINITION.findall(text))
    if not functions:
        return text
    text = _DEFINITION.sub(rf"function {_TABLE}.\1(", text)
    tokens = _TOKEN.findall(text)
    solid = [place for place, token in enumerate(tokens) if not token.isspace()]
    out = list(tokens)
    for order, place in enumerate(solid):
        before = tokens[solid[order - 1]] if order else ""
        after = tokens[solid[order + 1]] if order + 1 < len(solid) else ""
        is_field, is_table_key = before in {".", ":"}, after == "="
        if tokens[place] in functions and not is_field and not is_table_key:
            out[place] = f"{_TABLE}.{tokens[place]}"
    lines = "".join(out).split("\n")
    lines[_TABLE_LINE] = f"local {_TABLE} = {{}}"
    return "\n".join(lines)


def as_library(linked: str, body_at: int, name: str) -> str:
    """Return a linked script as a library of two functions.

    ``<name>`` is the script; ``<name>_freeing`` is the same, and runs where the server is out of
    memory, so it is called with what frees alone (spec 06, *When Redis is away*).

    Args:
        linked: what `link` returned.
        body_at: the line, from 0, at which the entry point's own statements begin.
        name: of the library, different for each text.

    Raises:
        ValueError: a variable of the top level is declared in a way that this cannot read.
    """
    lines = linked.split("\n")
    assignments = _declare_once(lines, body_at)
    lines[0] = f"#!lua name={name}"
    lines[_INPUTS_LINE] = "local KEYS, ARGV"
    lines[body_at] = " ".join(
        [
            f"function {_TABLE}.main(keys, arguments) KEYS, ARGV = keys, arguments",
            *assignments,
            lines[body_at],
        ]
    )
    lines += [
        "end",
        f"redis.register_function('{name}', {_TABLE}.main)",
        f"redis.register_function{{function_name='{name}_freeing',",
        f"  callback={_TABLE}.main, flags={{'allow-oom'}}}}",
    ]
    return "\n".join(lines) + "\n"


def _declare_once(lines: list[str], end: int) -> list[str]:
    """Turn variables of the top level into bare declarations; return what sets them in a call."""
    assignments = []
    for start in range(end):
        if not lines[start].startswith("local "):
            continue
        match = _VARIABLES.match(_without_comments([lines[start]]))
        if match is None:
            raise ValueError(f"not a declaration that a library can make anew: {lines[start]}")
        if _is_constant(match["names"]):
            continue
        stop = start + 1
        while stop < end and lines[stop][:1] in {" ", "}"}:
            stop += 1
        values = _without_comments([match["values"] or "nil", *lines[start + 1 : stop]])
        assignments.append(f"{match['names']} = {values};")
        lines[start:stop] = [f"local {match['names']}", *[""] * (stop - start - 1)]
    return assignments


def _is_constant(names: str) -> bool:
    return names == _TABLE or (names != _BOUND and names.replace(", ", "").isupper())


def _without_comments(lines: Sequence[str]) -> str:
    return " ".join(line.partition(" --")[0].strip() for line in lines)
