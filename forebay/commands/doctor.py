"""`forebay doctor`: checks that a server is fit to be shared, with a member's rights."""

from __future__ import annotations

import sys

import click

from forebay.commands.lines import fitted
from forebay.commands.server_option import url_option
from forebay.commands.showing import Look, looking_options, show
from forebay.coordinator.server.examination import Check, examine
from forebay.coordinator.server_connection import ServerConnection
from forebay.runtime import run_async

SOMETHING_WRONG = 5


@click.command("doctor")
@url_option("Server: redis://, rediss:// or unix://.", required=True)
@looking_options
def doctor_command(url: str, as_json: bool, watch: bool) -> None:
    """Look at a server, change nothing, and say what to set.

    It needs the rights of a member alone, and none to CONFIG: it reads INFO (version, role,
    policy, persistence, memory), TIME and FUNCTION LIST, and tries on keys that do not exist what
    this user may do. What a host hides is said to be hidden. The rows of --json are `check`.

    \b
    Examples:
      forebay doctor
      forebay doctor --json | jq '.rows[] | select(.state == "wrong") | .remedy'

    \b
    Exit codes:
      0    nothing is wrong
      1    the server cannot be used, for the reason that is said
      2    wrong usage
      5    something is wrong; its line says what to do
      130  ended by Ctrl-C
    """  # noqa: D301 - click reads that character
    if run_async(_examine(url, as_json=as_json, watch=watch)):
        sys.exit(SOMETHING_WRONG)


async def _examine(url: str, *, as_json: bool, watch: bool) -> bool:
    """Print what the examination finds; return whether something was wrong at last."""
    found: list[Check] = []
    async with await ServerConnection.open(url, only_reads=True) as connection:

        async def look() -> Look:
            found[:] = await _examine_all(connection)
            rows = [
                {
                    "row": "check",
                    "name": check.name,
                    "state": check.state,
                    "says": check.said,
                    "remedy": check.remedy or None,
                }
                for check in found
            ]
            return Look(lines=[line for check in found for line in _lines(check)], rows=rows)

        await show("doctor", look, as_json=as_json, watch=watch)
    return any(check.state == "wrong" for check in found)


async def _examine_all(connection: ServerConnection) -> list[Check]:
    """Return the checks of the server, or of each master of a cluster behind its address."""
    nodes, found = connection.nodes(), []
    for node in nodes:
        if len(nodes) > 1:
            found.append(Check(name="node", state="ok", said=str(node.address)))
        found += await examine(node.client, node.address)
    return found


def _lines(check: Check) -> list[str]:
    first, indent = f"{check.state:<7}{check.name:<13}", " " * 20
    found = fitted([check.said], first=first, indent=indent)
    return found + fitted([check.remedy], first=indent, indent=indent) if check.remedy else found
