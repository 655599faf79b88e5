"""Batches as they travel: known by their operations' words, whatever command carries them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

ARGUMENT_COUNTS: Final = {
    "acquire": 6,
    "release": 5,
    "cancel": 1,
    "state": 1,
    "register": 3,
    "learn": 4,
    "leave": 0,
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
    if len(command) < 3 or not command[2].isdigit():
        return None
    arguments = [argument.decode() for argument in command[3 + int(command[2]) :]]
    if len(arguments) < 3 or not arguments[1].isdigit() or arguments[2] not in ARGUMENT_COUNTS:
        return None
    operations, at = [], 2
    while at < len(arguments):
        end = at + 1 + ARGUMENT_COUNTS[arguments[at]]
        operations.append(tuple(arguments[at:end]))
        at = end
    return Batch(
        command=tuple(command),
        member_id=arguments[0],
        number=int(arguments[1]),
        operations=tuple(operations),
    )
