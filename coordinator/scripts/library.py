"""Making a function library of a composed script (ADR 0006).

A script that is evaluated declares all its functions in each call; a library declares them once,
when it is loaded. What is UPPER_CASE at the top level of a script is a constant; every other
variable there is declared in place and set anew at the start of each call, so that no call sees
anything of another. Lines keep their numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_VARIABLES: Final = re.compile(r"local (?P<names>\w+(?:, \w+)*)(?: = (?P<values>.*))?$")
_BOUND: Final = "K"
"""The table of KEYS: named like a constant, yet set in each call that has another first key than
the call before, as the keys of one shard are always the same."""
_INPUTS_LINE: Final = 1
"""The line of an entry point's header that a declaration replaces."""


def as_library(source: str, body_at: int, name: str) -> str:
    """Return a composed script as a library of two functions.

    ``<name>`` is the script; ``<name>_freeing`` is the same, and runs where the server is out of
    memory, so it is called with what frees alone (design 06, *When Redis is away*).

    Args:
        source: a composed script; two lines of its header come first.
        body_at: the line, from 0, at which the entry point's own statements begin.
        name: of the library, different for each text.

    Raises:
        ValueError: it includes nothing, or a variable of the top level is declared in a way that
            this cannot read.
    """
    if body_at <= _INPUTS_LINE:
        raise ValueError(f"{name} includes nothing, so it is no function")
    lines = source.split("\n")
    assignments = _declare_once(lines, body_at)
    lines[0] = f"#!lua name={name}"
    lines[_INPUTS_LINE] = "local KEYS, ARGV"
    lines[body_at] = " ".join(
        [
            "local function main(keys, arguments) KEYS, ARGV = keys, arguments",
            *assignments,
            lines[body_at],
        ]
    )
    lines += [
        "end",
        f"redis.register_function('{name}', main)",
        f"redis.register_function{{function_name='{name}_freeing',",
        "  callback=main, flags={'allow-oom'}}",
    ]
    return "\n".join(lines) + "\n"


def _declare_once(lines: list[str], end: int) -> list[str]:
    """Turn top-level variables into declarations; return the lines that set them in a call."""
    assignments = []
    for start in range(end):
        if not lines[start].startswith("local ") or lines[start].startswith("local function "):
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
        assignment, initial = f"{match['names']} = {values};", ""
        if match["names"] == _BOUND:
            _, first, *_ = values.split()  # { meta = KEYS[1], ...
            assignment, initial = f"if K.{first} ~= KEYS[1] then {assignment} end", " = {}"
        assignments.append(assignment)
        lines[start:stop] = [f"local {match['names']}{initial}", *[""] * (stop - start - 1)]
    return assignments


def _is_constant(names: str) -> bool:
    return names != _BOUND and names.replace(", ", "").isupper()


def _without_comments(lines: Sequence[str]) -> str:
    return " ".join(line.partition(" --")[0].strip() for line in lines)
