"""Batches as they travel: known by their operations' words, whatever command carries them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

ARGUMENT_COUNTS: Final = {
    "acquire": 6,
    "release": 6,
    "cancel": 1,
    "state": 1,
    "register": 3,
    "learn": 4,
    "leave": 0,
    "sweep": 0,
    "share": 1,
}
Reply = Any
"""What hiredis makes of a reply; an error reply is a value too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A numbered batch of one member's operations, as it stood on the wire."""

    command: tuple[bytes, ...] = field(repr=False)
    member_id: str
    number: int
    operations: tuple[tuple[str, ...], ...]

    @property
    def words(self) -> list[str]:
        return [operation[0] for operation in self.operations]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A batch that reached the server, and what the server answered."""

    batch: Batch
    reply: Reply


def read_batch(command: list[bytes]) -> Batch | None:
    """Return the batch that a command carries, or None: it is a script call of another kind."""
    if len(command) < 4 or not command[2].isdigit():
        return None
    arguments = [part.decode(errors="replace") for part in command[3 + int(command[2]) :]]
    if len(arguments) < 3 or not arguments[1].isdigit():
        return None
    read = _read_counted if command[3].startswith(b"fb:{pool:") else _read_known
    operations = read(arguments[2:])
    if not operations:
        return None
    return Batch(
        command=tuple(command),
        member_id=arguments[0],
        number=int(arguments[1]),
        operations=operations,
    )


def _read_known(arguments: list[str]) -> tuple[tuple[str, ...], ...]:
    """Read a request shard's operations, each of which has as many arguments as its kind has."""
    operations, at = [], 0
    while at < len(arguments) and arguments[at] in ARGUMENT_COUNTS:
        end = at + 1 + ARGUMENT_COUNTS[arguments[at]]
        operations.append(tuple(arguments[at:end]))
        at = end
    return tuple(operations)


def _read_counted(arguments: list[str]) -> tuple[tuple[str, ...], ...]:
    """Read a pool's operations, each of which says how many arguments it has."""
    operations, at = [], 0
    while at + 1 < len(arguments) and arguments[at].isidentifier() and arguments[at + 1].isdigit():
        end = at + 2 + int(arguments[at + 1])
        operations.append((arguments[at], *arguments[at + 2 : end]))
        at = end
    return tuple(operations)
