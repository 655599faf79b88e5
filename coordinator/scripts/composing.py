"""Composing and naming the Lua scripts: an entry point with its fragments.

Rules: design 09, *Scripts*.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Final

from forebay.coordinator.scripts.headers import BIND, Header, parse_header
from forebay.coordinator.scripts.library import as_library

INCLUDE = re.compile(r"^-- @include (\S+)$")
FUNCTION_NOT_FOUND: Final = "Function not found"
"""The error text of a server that has not loaded a function."""
ENTRY_POINTS: Final = (
    "member/join",
    "member/heartbeat",
    "member/rebuild",
    "requests/batch",
    "requests/administer",
    "requests/snapshot",
    "requests/audit",
    "requests/look",
    "requests/explain",
    "operator/ask",
    "tasks/batch",
    "tasks/snapshot",
    "tasks/look",
    "tasks/explain",
    "tasks/audit",
)
FUNCTIONS: Final = ("member/join", "member/heartbeat", "requests/batch", "tasks/batch")
"""The entry points that members call as functions (ADR 0006); the others are evaluated."""
ON_CLUSTERS: Final = {"lib/channels": "lib/sharded_channels"}
"""Fragments that stand in for others where the server is a node of a cluster (ADR 0037)."""


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
        function: the name under which a server keeps it as a function: a hash of its library, so
            that another version's is another name. Others may take it: see ``server/libraries.py``.
    """

    name: str
    text: str = field(repr=False)
    sha: str
    header: Header
    origins: tuple[str, ...] = field(repr=False)
    body_at: int
    function: str

    @property
    def library(self) -> str:
        """The script as a function library."""
        return self.library_named(self.function)

    def library_named(self, name: str) -> str:
        """Return the script as a function library of another name."""
        return as_library(self.text, self.body_at, name)

    def locate(self, message: str) -> str:
        """Return a server's error message with its line mapped back to the source file."""

        def origin(match: re.Match[str]) -> str:
            line = int(match.group(1))
            return self.origins[line - 1] if 0 < line <= len(self.origins) else match.group(0)

        return re.sub(r"user_(?:script|function):(\d+)", origin, message)


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _source(path: str, fragments: Mapping[str, str]) -> str:
    return fragments.get(path) or (files("forebay.lua") / f"{path}.lua").read_text()


def _header(entry_point: str, fragments: Mapping[str, str]) -> Header:
    """Parse an entry point's header, which may include the list of its shard's keys."""
    lines: list[str] = []
    for line in entry_point.partition(f"\n{BIND}\n")[0].splitlines():
        included = INCLUDE.match(line)
        lines += [line] if included is None else _source(included[1], fragments).splitlines()
    return parse_header("\n".join(lines))


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
    header = _header(entry_point, replaced)
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
    content = as_library(text, body_at, "forebay") if name in FUNCTIONS else text
    return Script(
        name=name,
        text=text,
        sha=_sha1(text),
        function=f"forebay_{_sha1(content)}",
        header=header,
        origins=tuple(origins),
        body_at=body_at,
    )


@lru_cache(maxsize=64)
def script(name: str, *, on_cluster: bool = False) -> Script:
    """Return a production script, composed once per process.

    Args:
        name: path below ``lua/`` without its ending.
        on_cluster: whether it runs on a node of a cluster.
    """
    stand_ins = ON_CLUSTERS.items() if on_cluster else ()
    return compose(name, {path: _source(other, {}) for path, other in stand_ins})
