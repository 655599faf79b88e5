"""Common options and output of commands that read a server: ``--json``, ``--watch``."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from forebay.commands.lines import WIDTH, is_printed

EVERY_SECONDS: Final = 1.0
EXIT_CODES: Final = (
    "\b\nExit codes:\n  0    answered\n  1    a shard could not be read, which is told in its"
    " place; or the server\n       cannot be used, or the name is not known there\n"
    "  2    wrong usage\n  130  ended by Ctrl-C"
)
"""The exit codes of a question, for its help."""
Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The result of one read of a server.

    Attributes:
        lines: for people.
        rows: the same as JSON objects; the field ``row`` says what a row is of.
        is_whole: whether all could be read that was asked about.
    """

    lines: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    is_whole: bool = True


def looking_options(command: Command) -> Command:
    """Add ``--json`` and ``--watch`` to a command."""
    watch = click.option("--watch", is_flag=True, help="Again every second until stopped.")
    as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document a look.")
    return as_json(watch(command))


def terminal_columns() -> int:
    """Return how wide lines may be: as the terminal or COLUMNS says, else 80."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


async def show(
    question: str, look: Callable[[], Awaitable[Look]], *, as_json: bool, watch: bool
) -> None:
    """Print the result of a read, once, or every second until the output is closed.

    A document is ``{"question": ..., "rows": [...]}`` on one line. Ends the program with 1 where
    the last look was not whole.

    Args:
        question: name of the command.
        look: looks.
        as_json: print documents.
        watch: look again, until the program is stopped.
    """
    while True:
        found = await look()
        document = {"question": question, "rows": found.rows}
        is_read = is_printed(
            json.dumps(document, ensure_ascii=False) if as_json else "\n".join(found.lines)
        )
        if not (watch and is_read):
            break
        await asyncio.sleep(EVERY_SECONDS)
        if not as_json and not is_printed(""):  # between two looks
            break
    if not found.is_whole:
        sys.exit(1)
