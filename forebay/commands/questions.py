"""`forebay shards`, `who`, `waiters`, `shares` and `events`: an operator's questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from forebay.commands.server_option import url_option
from forebay.commands.showing import looking_options, show
from forebay.coordinator.operator_questions import ask_question
from forebay.coordinator.server_connection import ServerConnection
from forebay.runtime import run_async


def _question(name: str, says: str) -> Callable[..., Any]:
    help_text = (
        f"{says}\n\nOf SHARD, as `forebay shards` lists it, or of all. The lines are those of the"
        f" server's function fb_{name}, which redis-cli calls too (docs/redis-cli.md). Changes"
        " nothing.\n\n\b\nExamples:\n"
        f"  forebay {name}\n  forebay {name} rq:openai/gpt-5 --watch\n"
        f"  forebay {name} pool:default --rows 50 --json\n\n"
        "\b\nExit codes:\n  0    answered\n  1    the server cannot be used, or no member has"
        " joined there yet\n  2    wrong usage"
    )

    @click.command(name, help=help_text)
    @click.argument("shard", required=False)
    @url_option("Server: redis://, rediss:// or unix://.", required=True)
    @click.option("--rows", type=click.IntRange(1, 1000), help="Most rows of a list.")
    @looking_options
    def command(shard: str | None, url: str, rows: int | None, **options: bool) -> None:
        given = [*([shard] if shard else []), *([str(rows)] if rows else [])]
        run_async(_ask(url, name, given, **options))

    return command


async def _ask(url: str, question: str, given: Sequence[str], **options: bool) -> None:
    async with await ServerConnection.open(url, only_reads=True) as connection:

        async def look() -> tuple[Sequence[str], Any]:
            lines = await ask_question(connection, question, *given)
            return lines, {"question": question, "lines": lines}

        await show(look, **options)


shards_command = _question("shards", "List the shards and pools that are in use.")
who_command = _question("who", "Print which members hold leases, and for how long.")
waiters_command = _question("waiters", "Print what waits, in which order, and since when.")
shares_command = _question("shares", "Print what each group got, against its weight.")
events_command = _question("events", "Print the last events of a shard, the newest first.")
