"""Common options of commands that read a server: ``--json``, ``--watch``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import click

from forebay.commands.lines import say

EVERY_SECONDS: Final = 1.0
Command = TypeVar("Command", bound=Callable[..., Any])


def looking_options(command: Command) -> Command:
    """Add ``--json`` and ``--watch`` to a command."""
    watch = click.option("--watch", is_flag=True, help="Again every second until stopped.")
    as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document a look.")
    return as_json(watch(command))


async def show(
    look: Callable[[], Awaitable[tuple[Sequence[str], Any]]], *, as_json: bool, watch: bool
) -> None:
    """Print the result of a read, once or every second.

    Args:
        look: returns lines for people, and the same as a value that is JSON.
        as_json: print the value.
        watch: look again, until the program is stopped.
    """
    while True:
        lines, value = await look()
        say(json.dumps(value, ensure_ascii=False) if as_json else "\n".join(lines))
        if not watch:
            return
        await asyncio.sleep(EVERY_SECONDS)
