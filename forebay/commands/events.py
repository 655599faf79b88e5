"""`forebay events`: what happened last on shards, and what happens from now on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import click

from forebay.commands.lines import fitted, is_printed
from forebay.commands.server_option import url_option
from forebay.commands.showing import Look, looking_options, show, terminal_columns
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.explanations import span
from forebay.coordinator.operator_questions import find_shard
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard_events import EventFilter, EventReader, Row
from forebay.runtime import run_async

LOOK_AGAIN_SECONDS: Final = 0.5
_HIDDEN: Final = frozenset({"sequence"})


@click.command("events")
@click.argument("shard", required=False)
@url_option("Server: redis://, rediss:// or unix://.", required=True)
@click.option(
    "--rows",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="Most events, the newest.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="This kind alone, or those that match, such as 'request_limit_*'; may be repeated.",
)
@click.option("--tenant", help="Of this tenant's groups and runs alone.")
@click.option("--follow", is_flag=True, help="Then each event as it happens, until stopped.")
@looking_options
def events_command(
    *,
    shard: str | None,
    url: str,
    rows: int,
    kinds: tuple[str, ...],
    tenant: str | None,
    follow: bool,
    as_json: bool,
    watch: bool,
) -> None:
    """Print the last events of SHARD, or of all shards, the newest first; change nothing.

    With --follow the oldest comes first, and each new event when it happens. docs/events.md says
    what each kind means. The rows of --json are `event` and, of a stream that cannot be read,
    `problem`; with --follow each event is a document.

    \b
    Examples:
      forebay events
      forebay events rq:openai/gpt-5 --kind 'request_limit_*' --follow
      forebay events --kind member_expired --kind task_lease_expired
      forebay events pool:default --tenant atlas --json | jq '.rows[] | .at, .kind'

    \b
    Exit codes:
      0    shown
      1    a stream could not be read, which is told in its place; or the server
           cannot be used, or the shard is not known there
      2    wrong usage
      130  ended by Ctrl-C
    """  # noqa: D301 - click reads that character
    if follow and watch:
        raise ConfigurationError(
            "forebay events was given --follow and --watch, expected one of the two; --follow"
            " prints each event once, --watch the last events again and again."
        )
    wanted = EventFilter(kinds=kinds, tenant=tenant)
    if follow:
        run_async(_follow(url, shard, wanted, rows, as_json=as_json))
    else:
        run_async(_show(url, shard, wanted, rows, as_json=as_json, watch=watch))


async def _show(
    url: str, shard: str | None, wanted: EventFilter, rows: int, *, as_json: bool, watch: bool
) -> None:
    async with await ServerConnection.open(url, only_reads=True) as connection:
        one = await find_shard(connection, shard) if shard else None

        async def look() -> Look:
            tags = [one] if one else await connection.shards()
            found = await EventReader(connection, wanted).read(tags, rows)
            found.reverse()
            when = partial(_ago, now=await connection.time())
            lines = [line for row in found for line in event_lines(row, when, names_shard=not one)]
            is_whole = all(row["row"] == "event" for row in found)
            return Look(lines=lines or ["no event"], rows=found, is_whole=is_whole)

        await show("events", look, as_json=as_json, watch=watch)


async def _follow(
    url: str, shard: str | None, wanted: EventFilter, rows: int, *, as_json: bool
) -> None:
    """Print the last events and then each new one, until the reader closes the pipe."""
    async with await ServerConnection.open(url, only_reads=True) as connection:
        one = await find_shard(connection, shard) if shard else None
        reader, told = EventReader(connection, wanted), set[str]()
        most: int | None = rows
        while True:
            for row in await reader.read([one] if one else await connection.shards(), most):
                if row["row"] == "problem" and row["shard"] in told:
                    continue
                told |= {row["shard"]} if row["row"] == "problem" else set()
                document = json.dumps({"question": "events", "rows": [row]}, ensure_ascii=False)
                text = "\n".join(event_lines(row, _clock, names_shard=not one))
                if not is_printed(document if as_json else text):
                    return
            most = None
            await asyncio.sleep(LOOK_AGAIN_SECONDS)


def event_lines(row: Row, when: Callable[[float], str], *, names_shard: bool) -> Sequence[str]:
    """Return an event as lines: when, its kind, and its fields.

    Args:
        row: of an event, or of a stream that could not be read.
        when: makes a text of an instant in seconds of server time.
        names_shard: whether the line names the shard.
    """
    shard = [_printable(row["shard"])] if names_shard else []
    if row["row"] == "problem":
        return fitted([*shard, _printable(row["says"])])
    fields = [
        _printable(f"{name} {value}")
        for name, value in row["fields"].items()
        if name not in _HIDDEN
    ]
    first = f"{when(row['at']):<11} {_printable(row['kind'])}"
    return fitted([first, *shard, *fields], width=terminal_columns())


def _printable(text: str) -> str:
    """Return a text without what would move the cursor."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _ago(at: float, *, now: float) -> str:
    return f"{span(now - at)} ago"


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S} UTC"
