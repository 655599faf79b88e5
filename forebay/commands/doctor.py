"""`forebay doctor`: checks that a server is fit to be shared, with a member's rights."""

from __future__ import annotations

import sys

import click

from forebay.commands.lines import fitted
from forebay.commands.server_option import url_option
from forebay.coordinator.server.examination import Check, examine
from forebay.coordinator.server_connection import ServerConnection
from forebay.runtime import run_async

SOMETHING_WRONG = 5


@click.command("doctor")
@url_option("Server: redis://, rediss:// or unix://.", required=True)
def doctor_command(url: str) -> None:
    """Check a server's settings, and print what to change; changes nothing.

    It needs the rights of a member alone, and none to CONFIG: it reads INFO (version, role,
    policy, persistence, memory), TIME and FUNCTION LIST, and tries on keys that do not exist what
    this user may do. What a host hides is said to be hidden.

    \b
    Exit codes:
      0    nothing is wrong
      1    the server cannot be used, for the reason that is said
      2    wrong usage
      5    something is wrong; its line says what to do
    """  # noqa: D301 - click reads that character
    checks = run_async(_examine(url))
    click.echo("\n".join(line for check in checks for line in _lines(check)))
    if any(check.state == "wrong" for check in checks):
        sys.exit(SOMETHING_WRONG)


async def _examine(url: str) -> list[Check]:
    async with await ServerConnection.open(url, only_reads=True) as connection:
        return await examine(connection.client, connection.address)


def _lines(check: Check) -> list[str]:
    first, indent = f"{check.state:<7}{check.name:<13}", " " * 20
    found = fitted([check.said], first=first, indent=indent)
    return found + fitted([check.remedy], first=indent, indent=indent) if check.remedy else found
