"""What a script may declare: few enough local variables, and tables of functions without state.

A server loads a script as a library once and sets its UPPER_CASE names then, not in each call
(ADR 0006). What a call wrote into them would be seen by every later call, on any shard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import pytest
from lupa import lua51

from forebay.coordinator.scripts.composing import ENTRY_POINTS, Script, compose

LUA_LIMIT = 200
"""Local variables that Lua 5.1 lets one function have at a time; the main chunk is one."""
MOST_LOCALS = 100
"""Fewer than these are declared, so that there is room for what is written next."""

COMMENT_OR_STRING = re.compile(r"--[^\n]*|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"")
WORD = re.compile(r"\b(?:function|do|if|repeat|end|until)\b")
INDEX = r"(?:\s*\.\s*\w+|\s*\[[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\])*"
CONSTANT = r"(?<![\w.:])[A-Z][A-Z0-9_]*\b"
TARGET = rf"[A-Za-z_][\w.]*{INDEX}"
ASSIGNMENT = re.compile(
    rf"(?:^|[;)]|\b(?:then|do|else|repeat|end)\b)\s*(?P<targets>{TARGET}(?:\s*,\s*{TARGET})*)\s*=(?!=)",
    re.MULTILINE,
)
OTHER_CHANGE = re.compile(
    rf"(?:table\.(?:insert|remove|sort)|rawset)\s*\(\s*({CONSTANT}{INDEX})"
    rf"|function\s+({CONSTANT}[.:]\w+)"
)
IN_A_BLOCK = re.compile(r"\blocal\s+(?!function\b)(?P<names>\w+(?:\s*,\s*\w+)*)")


@pytest.fixture(params=ENTRY_POINTS)
def script(request: pytest.FixtureRequest) -> Script:
    return compose(request.param)


# -- local variables


def free_locals(text: str) -> int:
    """Return how many more local variables the main chunk can have where it ends, by Lua itself."""
    compile_text = lua51.LuaRuntime().eval("function(text) return loadstring(text) ~= nil end")
    lines = text.split("\n")
    last = max(
        number
        for number, line in enumerate(lines)
        if line.startswith(("return", "redis.register_function"))
    )

    def compiles(more: int) -> bool:
        declared = "local " + ", ".join(f"more_{n}" for n in range(more)) if more else ""
        return bool(compile_text("\n".join([*lines[:last], declared, *lines[last:]])))

    assert compiles(0)
    return next(more for more in range(LUA_LIMIT + 1) if not compiles(more + 1))


def forms(script: Script) -> dict[str, str]:
    """Return what servers are given: the text, and the library without its first line."""
    if script.body_at < 2:
        return {"text": script.text}
    return {"text": script.text, "library": script.library.partition("\n")[2]}


def test_the_main_chunk_has_room_for_more_local_variables(script: Script) -> None:
    for form, text in forms(script).items():
        free = free_locals(text)
        assert LUA_LIMIT - free < MOST_LOCALS, (
            f"{script.name} as {form} has {LUA_LIMIT - free} local variables at its top level and"
            f" room for {free} more; expected fewer than {MOST_LOCALS}: make the functions of a"
            " fragment one table (docs/architecture.md, Lua)"
        )


def test_local_variables_are_counted_by_lua() -> None:
    names = "\n".join(f"local a{n} = {n}" for n in range(7))
    assert free_locals(f"{names}\nlocal function f() local inner end\nreturn a1\n") == 192


# -- state


def blocks(code: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield the blocks that are open from each place on where one begins or ends."""
    open_blocks: list[str] = []
    yield 0, ()
    for word in WORD.finditer(code):
        if word[0] in {"end", "until"}:
            open_blocks.pop()
        else:
            open_blocks.append(word[0])
        yield word.end(), tuple(open_blocks)
    assert open_blocks == []


def changes_of_constants(code: str) -> Iterator[tuple[int, str]]:
    """Yield place and target of each change of an UPPER_CASE name, or of what it holds."""
    for assignment in ASSIGNMENT.finditer(code):
        for target in re.finditer(rf"{CONSTANT}{INDEX}(?=\s*(?:,|$))", assignment["targets"]):
            yield assignment.start("targets"), target[0]
    for change in OTHER_CHANGE.finditer(code):
        yield change.start(), change[1] or change[2]


def state_kept(text: str, body_at: int) -> list[tuple[int, str]]:
    """Return line, from 0, and code of whatever keeps something from one call to the next."""
    code = COMMENT_OR_STRING.sub(lambda found: " " * len(found[0]), text)
    edges = list(blocks(code))
    body = sum(len(line) + 1 for line in code.split("\n")[:body_at])

    def open_at(place: int) -> tuple[str, ...]:
        return [names for start, names in edges if start <= place][-1]

    found = [
        (place, target)
        for place, target in changes_of_constants(code)
        if "function" in open_at(place) or place >= body
    ]
    for declared in IN_A_BLOCK.finditer(code, 0, body):
        around = open_at(declared.start())
        if around and set(around) == {"do"} and not declared["names"].isupper():
            found.append((declared.start(), f"local {declared['names']}"))
    return [(code.count("\n", 0, place), what) for place, what in sorted(found)]


KEEPS: Final = "lua/lib/shard/kept.lua:"
"""The one fragment that keeps something between calls, by the rules of ADR 0006."""


def test_no_call_changes_what_a_library_sets_once(script: Script) -> None:
    kept = [
        f"{script.origins[line]}: {what}"
        for line, what in state_kept(script.text, script.body_at)
        if not script.origins[line].startswith(KEEPS)
    ]
    assert kept == [], (
        "an UPPER_CASE name is set once, when a server loads the library, and so is a variable of"
        " a do block: expected calls to change neither; keep state in a variable of the top level"
        " (docs/architecture.md, Lua)"
    )


TABLE = "local PUSHES = {}\n"


@pytest.mark.parametrize(
    "source",
    [
        TABLE + "function PUSHES.push(id)\n  PUSHES.last = id\nend",
        TABLE + "function PUSHES.push(id)\n  PUSHES[id] = true\nend",
        TABLE + "function PUSHES.push(id)\n  PUSHES.of[names[1]].seen = true\nend",
        TABLE + "function PUSHES.push(id)\n  local n\n  n, PUSHES.last = 1, id\nend",
        TABLE + "function PUSHES.push(id)\n  PUSHES.last, PUSHES.n = id, 1\nend",
        TABLE + "local function push(id)\n  if id then PUSHES = {} end\nend",
        TABLE + "local function push(id)\n  table.insert(PUSHES.seen, id)\nend",
        TABLE + "local function push(id)\n  rawset(PUSHES, 'seen', id)\nend",
        TABLE + "local function begin()\n  function PUSHES.push() end\nend",
        TABLE + "PUSHES.push = function(id) PUSHES.last = id end",
        "do\n  local seen = {}\n  local function see(id) seen[id] = true end\nend",
    ],
)
def test_what_keeps_state_between_calls_is_found(source: str) -> None:
    assert state_kept(source, source.count("\n") + 1) != []


@pytest.mark.parametrize(
    "source",
    [
        TABLE + "function PUSHES.push(id)\n  return PUSHES.last == id\nend",
        TABLE + "for i = 1, 3 do\n  PUSHES[i] = i\nend\nPUSHES.push = push",
        TABLE + "local function push()\n  local MOST = 3 -- PUSHES.last = 1\n  return 'A = 1'\nend",
        TABLE + "local function push(n)\n  return { few = n < PUSHES.most, next = n }\nend",
        TABLE + "local function push(pushes)\n  pushes.last = PUSHES.of(1)\nend",
        "do\n  local MOST = 3\n  local function f() local n = MOST return n end\nend",
    ],
)
def test_what_is_set_once_or_within_a_call_is_allowed(source: str) -> None:
    assert state_kept(source, source.count("\n") + 1) == []


def test_the_entry_points_own_statements_are_a_call() -> None:
    assert state_kept("local DUE = {}\nDUE.first = 1\nDUE.last = 2", 2) == [(2, "DUE.last")]
