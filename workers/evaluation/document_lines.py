"""Line numbers of a workflow file's keys, for messages; in the evaluating process.

TOML was accepted by ``tomllib`` before, so that its syntax is known to be right here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

Entry = tuple[tuple[str | int, ...], int, int]
"""Place, line of the key, and the line on which the text of a multi-line value begins, else 0."""

MOST_LINES: Final = 5_000
"""Most keys with a line of their own; later keys have the line of their parent."""

_PART: Final = r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)"""
_KEY: Final = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=[ \t]*")
_TABLE: Final = re.compile(rf"\s*(\[\[?)\s*({_PART}(?:\s*\.\s*{_PART})*)\s*\]\]?")
_PARTS: Final = re.compile(_PART)
_STRING: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'",
    re.DOTALL,
)


def toml_lines(text: str) -> list[Entry]:
    """Return the lines of a TOML text's tables and keys; keys of inline tables are left out."""
    return [entry for _, entry in zip(range(MOST_LINES), _toml_entries(text), strict=False)]


def _toml_entries(text: str) -> Iterator[Entry]:
    text = text.replace("\r\n", "\n")
    at, line = 0, 1
    table: tuple[str | int, ...] = ()
    last: dict[tuple[str | int, ...], int] = {}
    while at < len(text):
        begun = at
        if match := _TABLE.match(text, at):
            table = _resolved(_keys(match[2]), (), last)
            if match[1] == "[[":
                table = _next_of(_resolved(_keys(match[2])[:-1], (), last), match[2], last)
            at = match.end()
            yield table, line + text.count("\n", begun, match.start(1)), 0
        elif match := _KEY.match(text, at):
            place = _resolved(_keys(match[1]), table, last)
            key_line = line + text.count("\n", begun, match.start(1))
            at = _end_of_value(text, match.end())
            yield place, key_line, key_line + 1 if _is_block(text[match.end() : at]) else 0
        end = text.find("\n", at)
        at = len(text) if end < 0 else end + 1
        line += text.count("\n", begun, at)


def _keys(dotted: str) -> list[str]:
    return [part.strip("\"'") for part in _PARTS.findall(dotted)]


def _resolved(
    keys: list[str], table: tuple[str | int, ...], last: dict[tuple[str | int, ...], int]
) -> tuple[str | int, ...]:
    place = table
    for key in keys:
        place = (*place, key)
        if place in last:
            place = (*place, last[place])
    return place


def _next_of(
    parent: tuple[str | int, ...], dotted: str, last: dict[tuple[str | int, ...], int]
) -> tuple[str | int, ...]:
    array = (*parent, _keys(dotted)[-1])
    last[array] = last.get(array, -1) + 1
    return (*array, last[array])


def _end_of_value(text: str, at: int) -> int:
    """Return where a value ends: behind its string, its closing bracket, or with its line."""
    depth = 0
    while at < len(text):
        if match := _STRING.match(text, at):
            at = match.end()
        elif text[at] == "#":
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
            continue
        elif text[at] in "[{":
            depth += 1
            at += 1
        elif text[at] in "]}":
            depth -= 1
            at += 1
        elif text[at] == "\n" and depth == 0:
            return at
        else:
            at += 1
    return at


def _is_block(value: str) -> bool:
    """Whether each line of the file is a line of the text: nothing joins lines."""
    return value.startswith(('"""\n', "'''\n")) and "\\\n" not in value


def yaml_lines(root: Any) -> list[Entry]:
    """Return the lines of a YAML document's keys and items; each node behind an alias once.

    Args:
        root: what ``yaml.compose`` returned.
    """
    import yaml  # noqa: PLC0415 - an extra

    found: list[Entry] = []
    seen: set[int] = set()
    left: list[tuple[tuple[str | int, ...], Any, int]] = [((), root, 1)]
    while left and len(found) < MOST_LINES:
        place, node, line = left.pop()
        if place:
            is_block = isinstance(node, yaml.ScalarNode) and node.style == "|"
            found.append((place, line, node.start_mark.line + 2 if is_block else 0))
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            left += [
                ((*place, str(key.value)), value, key.start_mark.line + 1)
                for key, value in node.value
            ]
        elif isinstance(node, yaml.SequenceNode):
            left += [
                ((*place, index), item, item.start_mark.line + 1)
                for index, item in enumerate(node.value)
            ]
    return found
