"""`forebay top`: windows, pools, members and runs of the whole fleet, once a second."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import click

from forebay.commands.lines import say
from forebay.commands.server_option import url_option
from forebay.commands.top_rows import SORTS
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import require_extra
from forebay.runtime import run_async, stoppable

EVERY_SECONDS = 1.0
"""Interval between two reads; a rate needs two."""


@click.command("top")
@url_option("Server: redis://, rediss:// or unix://.", required=True)
@click.option(
    "--sort",
    type=click.Choice(tuple(SORTS)),
    default="waiting",
    show_default=True,
    help="What the windows are sorted by; the largest first.",
)
@click.option(
    "--only", metavar="NAME", help="One alone, in detail: PROVIDER/MODEL, or pool:NAME of a pool."
)
@click.option("--once", is_flag=True, help="Print one look, in a terminal too.")
@click.option("--json", "as_json", is_flag=True, help="Print one look as a JSON document.")
def top_command(*, url: str, sort: str, only: str | None, once: bool, as_json: bool) -> None:
    """Show windows, pools, members and runs, redrawn every second; change nothing.

    A window stands as its limit and its ceiling. calls/s are those of the last 5 seconds, 429s/min
    those of the last minute, or of the time looked at where that is shorter. Beside a group of a
    pool stand its share of the running tasks and, in brackets, its share of the weights; members
    are the processes that use a provider/model (`forebay who` lists a pool's, too).

    In a terminal: up and down choose a window or a pool, Enter opens it, Esc goes back, s sorts by
    the next column, q quits. Without a terminal, and with --once or --json, two looks a second
    apart are printed as one. Colours obey NO_COLOR. It needs rich (extra `run`), --json does not.

    \b
    Examples:
      forebay top
      forebay top --sort 429s --url redis://127.0.0.1:6379/0
      forebay top --only openai/gpt-5
      forebay top --json | jq '.windows[] | select(.waiting > 0)'

    \b
    Exit codes:
      0    shown
      1    the server cannot be used, or nothing bears the NAME
      2    wrong usage
    """  # noqa: D301 - click's mark for "do not wrap" is the character, not its escape
    if as_json:
        run_async(_print(url, sort, only, as_json=True))
        return
    require_extra("run", "forebay top")
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if once or not is_terminal:
        run_async(_print(url, sort, only, as_json=False))
        return
    from forebay.commands.top_live import watch

    with stoppable():
        run_async(watch(url, sort=sort, only=only, every_seconds=EVERY_SECONDS))


async def _print(url: str, sort: str, only: str | None, *, as_json: bool) -> None:
    from forebay.commands.top_looks import Looks

    async with Looks.open(url, sort=sort, only=only) as looks:
        await looks.look()
        await asyncio.sleep(EVERY_SECONDS)
        await looks.look()
        rows = looks.rows
        if only is not None and not (rows["windows"] or rows["pools"] or looks.shard):
            there = ", ".join(looks.names) or "none, as nobody has used the server"
            raise ConfigurationError(
                f"nothing is called {only!r} on this server, expected PROVIDER/MODEL or pool:NAME"
                f" of: {there}; correct --only."
            )
        if as_json:
            say(json.dumps(rows, ensure_ascii=False))
            return
        say(await _plain(looks))


async def _plain(looks: Any) -> str:
    """Return the picture as text, without colours, as wide as COLUMNS says, else 80."""
    from rich.console import Console

    console = Console(color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as captured:
        console.print(await looks.picture(width=console.width))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
