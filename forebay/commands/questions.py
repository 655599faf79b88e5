"""`forebay shards`, `who`, `members`, `waiters` and `shares`: an operator's questions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from forebay.commands.server_option import url_option
from forebay.commands.showing import EXIT_CODES, Look, looking_options, show, terminal_columns
from forebay.coordinator.operator_questions import ask_question, find_shard
from forebay.coordinator.server_connection import ServerConnection
from forebay.runtime import run_async


def _question(name: str, says: str, *rows: str) -> Callable[..., Any]:
    """Return the command of a question; `rows` are the rows of its JSON."""
    of_one = name != "shards"
    of = "Of SHARD, as `forebay shards` lists it, or of all. " if of_one else ""
    given = " rq:openai/gpt-5" if of_one else ""
    help_text = (
        f"{says}\n\n{of}The lines are those of the server's function fb_{name}, which redis-cli"
        f" calls too (docs/redis-cli.md). Rows of --json: {', '.join(rows)}. Changes nothing."
        f"\n\n\b\nExamples:\n  forebay {name}\n  forebay {name}{given} --watch\n"
        f"  forebay {name} --rows 50 --json | jq '.rows[] | select(.row == \"{rows[-1]}\")'"
        f"\n\n{EXIT_CODES}"
    )

    @click.command(name, help=help_text)
    @url_option("Server: redis://, rediss:// or unix://.", required=True)
    @click.option("--rows", type=click.IntRange(1, 100), help="Most rows of each list.")
    @looking_options
    def command(url: str, rows: int | None, shard: str | None = None, **options: bool) -> None:
        run_async(_ask(url, name, shard, rows, **options))

    return click.argument("shard", required=False)(command) if of_one else command


async def _ask(url: str, question: str, shard: str | None, rows: int | None, **how: bool) -> None:
    async with await ServerConnection.open(url, only_reads=True) as connection:
        tag = await find_shard(connection, shard) if shard else ""

        async def look() -> Look:
            found = await ask_question(
                connection, question, tag, rows=rows, columns=terminal_columns()
            )
            return Look(lines=found.lines, rows=found.rows, is_whole=found.is_whole)

        await show(question, look, **how)


shards_command = _question("shards", "List the shards and pools that are in use.", "shard")
who_command = _question(
    "who", "Print which members hold leases, and for how long.", "totals", "member", "lease"
)
members_command = _question(
    "members",
    "Print who is a member: which process, since when, its last heartbeat, what it holds.",
    *("totals", "member"),
)
waiters_command = _question(
    "waiters",
    "Print what waits, in which order, and since when.",
    *("totals", "domain", "aside", "task_beside_line", "task", "waiter"),
)
shares_command = _question(
    "shares", "Print what each group got, against its weight.", "tenant", "group"
)
