"""Composing, checking and naming the Lua scripts (spec 09, *Scripts*).

An entry point's header is its contract. From its KEYS and ARGV sections the composer generates the
lines that bind ``K.<name>`` and the argument names, so that an index can never drift from the
documented order. ``python -m forebay.coordinator.scripts check`` runs luacheck on each of them.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from forebay.coordinator.script_library import as_library

INCLUDE = re.compile(r"^-- @include (\S+)$")
BIND: Final = "-- @bind"
SECTIONS: Final = ("KEYS", "ARGV", "Reply", "Errors", "Cost", "Invariant")
FUNCTION_NOT_FOUND: Final = "Function not found"
"""A server's answer to a call of a function that it was not given yet."""
ENTRY_POINTS: Final = (
    "member/join",
    "member/heartbeat",
    "requests/batch",
    "requests/operate",
    "requests/snapshot",
    "requests/audit",
    "requests/show",
    "operator/shards",
    "tasks/batch",
    "tasks/snapshot",
    "tasks/show",
    "tasks/audit",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The contract at the top of an entry point.

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
        if fixed:
            values = ", ".join(f"ARGV[{i}]" for i in range(1, len(fixed) + 1))
            lines.append(f"local {', '.join(fixed)} = {values}")
        lines += [
            f"local {name} = {i}"
            for i, (name, kind) in enumerate(self.arguments, 1)
            if kind == "rest"
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A composed script.

    Attributes:
        name: the entry point, such as ``requests/batch``.
        text: the fragments put together.
        sha: its SHA-1, the name under which a server caches what it evaluates.
        header: its contract.
        origins: file and line of each line of ``text``.
        body_at: the line, from 0, at which the entry point's own statements begin.
    """

    name: str
    text: str = field(repr=False)
    sha: str
    header: Header
    origins: tuple[str, ...] = field(repr=False)
    body_at: int

    @property
    def function(self) -> str:
        """The name under which a server keeps it as a function; another text has another."""
        return f"forebay_{self.sha}"

    @property
    def freeing_function(self) -> str:
        """The same function for a server that is out of memory: for what only gives back."""
        return f"{self.function}_freeing"

    @property
    def library(self) -> str:
        """The text that makes it a function of a server."""
        return as_library(self.text, self.body_at, self.function)

    def locate(self, message: str) -> str:
        """Return a server's error message with its line mapped back to the source file."""

        def origin(match: re.Match[str]) -> str:
            line = int(match.group(1))
            return self.origins[line - 1] if 0 < line <= len(self.origins) else match.group(0)

        return re.sub(r"user_(?:script|function):(\d+)", origin, message)


def parse_header(text: str) -> Header:
    """Read the contract at the top of an entry point.

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


def _source(path: str, fragments: Mapping[str, str]) -> str:
    return fragments.get(path) or (files("forebay.lua") / f"{path}.lua").read_text()


def compose(name: str, fragments: Mapping[str, str] | None = None) -> Script:
    """Compose an entry point with the fragments that it includes, each once.

    Args:
        name: path below ``lua/`` without its ending.
        fragments: texts that stand in for files, by path: tests put another clock in.

    Raises:
        ValueError: an include cycle, or a header that is not whole.
    """
    replaced = fragments or {}
    entry_point = _source(name, replaced)
    header = parse_header(entry_point)
    out: list[str] = []
    origins: list[str] = []
    body_at = 0  # where the includes of the entry point end
    done: set[str] = set()

    def inline(path: str, body: str, above: tuple[str, ...]) -> None:
        chain = (*above, path)
        for number, line in enumerate(body.splitlines(), 1):
            match = INCLUDE.match(line)
            if match is None:
                bound = header.binding().splitlines() if line == BIND else [line]
                out.extend(bound)
                origins.extend([f"lua/{path}.lua:{number}"] * len(bound))
                continue
            included = match.group(1)
            if included in chain:
                raise ValueError(f"include cycle: {' -> '.join((*chain, included))}")
            if included not in done:
                done.add(included)
                inline(included, _source(included, replaced), chain)
            if not above:
                nonlocal body_at
                body_at = len(out)

    inline(name, entry_point, ())
    text = "\n".join(out) + "\n"
    return Script(
        name=name,
        text=text,
        sha=hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(),
        header=header,
        origins=tuple(origins),
        body_at=body_at,
    )


@lru_cache(maxsize=64)
def script(name: str) -> Script:
    """Return a production script, composed once per process."""
    return compose(name)


def luacheck() -> int:
    """Run luacheck over every composed entry point; return its exit status."""
    program = shutil.which("luacheck")
    if program is None:
        sys.stderr.write("luacheck is not installed: apt-get install lua-check\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        for name in ENTRY_POINTS:
            (Path(folder) / (name.replace("/", "_") + ".lua")).write_text(compose(name).text)
        return subprocess.run(
            [program, "--std", "lua51", "--globals", "redis", "KEYS", "ARGV", "cjson",
             "--max-line-length", "140", "--quiet", folder],
            check=False,
        ).returncode  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:] == ["check"]:
        sys.exit(luacheck())
    sys.exit("usage: python -m forebay.coordinator.scripts check")
