"""Parses the header of an entry point, which names KEYS, ARGV and reply (design 09, *Scripts*).

From the header's KEYS and ARGV sections come the lines that bind ``K.<name>`` and the argument
names, so that an index can never drift from the documented order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

BIND: Final = "-- @bind"
_BOUND_PER_LINE: Final = 6
SECTIONS: Final = ("KEYS", "ARGV", "Reply", "Errors", "Cost", "Invariant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The parsed header of an entry point.

    Attributes:
        purpose: its first line.
        keys: name and type of each key, in order; a type ``rest`` stands for any further keys.
        arguments: name and type of each argument, in order; ``rest`` for all that follow.
        sections: the text of every section, by name.
    """

    purpose: str
    keys: tuple[tuple[str, str], ...]
    arguments: tuple[tuple[str, str], ...]
    sections: Mapping[str, str]

    def binding(self) -> str:
        """Return the Lua lines that give KEYS and ARGV their names."""
        keys = [
            f"  {name} = KEYS[{i}],"
            for i, (name, kind) in enumerate(self.keys, 1)
            if kind != "rest"
        ]
        fixed = [name for name, kind in self.arguments if kind != "rest"]
        lines = ["local K = {", *keys, "}"]
        for at in range(0, len(fixed), _BOUND_PER_LINE):
            names = fixed[at : at + _BOUND_PER_LINE]
            values = ", ".join(f"ARGV[{at + i}]" for i in range(1, len(names) + 1))
            lines.append(f"local {', '.join(names)} = {values}")
        lines += [
            f"local {name} = {i}"
            for i, (name, kind) in enumerate(self.arguments, 1)
            if kind == "rest"
        ]
        return "\n".join(lines)


def parse_header(text: str) -> Header:
    """Parse the header of an entry point.

    Raises:
        ValueError: a section is missing or a line has no name and type.
    """
    lines = []
    for line in text.splitlines():
        if not line.startswith("--") or line == BIND:
            break
        lines.append(line[2:])
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    purpose = lines[0].strip() if lines else ""
    for line in lines[1:]:
        word = line.strip()
        if word in SECTIONS:
            current = sections.setdefault(word, [])
        elif word:
            current.append(line)
    if missing := [name for name in SECTIONS if name not in sections]:
        raise ValueError(f"header lacks the section {missing[0]}")
    return Header(
        purpose=purpose,
        keys=_names(sections["KEYS"]),
        arguments=_names(sections["ARGV"]),
        sections={name: "\n".join(body) for name, body in sections.items()},
    )


def _names(lines: list[str]) -> tuple[tuple[str, str], ...]:
    """Return name and type of each entry; deeper indented lines continue a meaning."""
    entries = []
    for line in lines:
        if line.startswith(" " * 4):
            continue
        name, kind, _meaning = line.split(maxsplit=2)
        entries.append((name, kind))
    return tuple(entries)
