"""`forebay explain`: why a task, waiter, group, run or provider/model does not move."""

from __future__ import annotations

from collections.abc import Sequence

import click

from forebay.commands.lines import fitted
from forebay.commands.server_option import url_option
from forebay.commands.showing import Look, looking_options, show
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.explanations import Explanation
from forebay.coordinator.explaining import explain
from forebay.coordinator.operator_questions import nearest
from forebay.coordinator.server_connection import ServerConnection
from forebay.runtime import run_async

_TITLES = {
    "task_group": "group",
    "request_group": "group",
    "provider_model": "provider/model",
}


@click.command("explain")
@click.argument("name")
@url_option("Server: redis://, rediss:// or unix://.", required=True)
@looking_options
def explain_command(name: str, url: str, as_json: bool, watch: bool) -> None:
    """Say why NAME does not move: its place, what blocks it, who holds that, when it may change.

    NAME is a task, a waiter (an attempt's id), a lease, a group, a run, a pool or a provider/model,
    as it was given or as `forebay snapshot` shows it. It is looked for in every shard, and read in
    one instant from the keys that decide. Changes nothing.

    \b
    Examples:
      forebay explain mail-4711          # a task
      forebay explain openai/gpt-5       # a provider/model: windows, cooldowns, who waits
      forebay explain default            # a pool: what holds up each group that waits
      forebay explain run-7 --watch
      forebay explain atlas --json | jq '.rows[].reasons[]?.says'

    \b
    Exit codes:
      0    explained
      1    nothing of this name is known; or a shard that may know it cannot be
           read, which is told after the rest; or the server cannot be used
      2    wrong usage
      130  ended by Ctrl-C
    """  # noqa: D301 - click reads that character
    run_async(_explain(url, name, as_json=as_json, watch=watch))


async def _explain(url: str, name: str, *, as_json: bool, watch: bool) -> None:
    async with await ServerConnection.open(url, only_reads=True) as connection:

        async def look() -> Look:
            found = await explain(connection, name)
            if not found.explanations and not found.problems:
                raise ConfigurationError(_unknown(str(connection.address), name, found.names))
            lines = [line for one in found.explanations for line in explanation_lines(one)]
            for problem in found.problems:
                lines += fitted([f"{problem.shard}: not explained: {problem.says}"])
            rows = [
                {"row": row, **one.model_dump(mode="json")}
                for row, ones in (("explanation", found.explanations), ("problem", found.problems))
                for one in ones
            ]
            return Look(lines=lines, rows=rows, is_whole=not found.problems)

        await show("explain", look, as_json=as_json, watch=watch)


def _unknown(address: str, name: str, names: Sequence[str]) -> str:
    near = nearest(name, names)
    return (
        f"nothing on the server at {address} is called {name!r}, expected a task, waiter, lease,"
        f" group, run, pool or provider/model{near or '; correct the name, or the URL'} (a task"
        " that finished is known while its result is kept)."
    )


def explanation_lines(one: Explanation) -> list[str]:
    """Return an explanation as lines: what it is of, then a sentence each."""
    lines = fitted([f"{_TITLES.get(one.kind, one.kind)} {one.name}", f"in {one.shard}"])
    for reason in one.reasons:
        lines += fitted([reason.says], first="  - ", indent="    ")
    return lines
