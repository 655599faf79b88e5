"""`forebay acl`: the server's users, as lines to paste."""

from __future__ import annotations

import click

from forebay.coordinator.server.rights import USERS, acl_lines


@click.command("acl")
@click.argument("kind", nargs=-1, type=click.Choice(list(USERS)))
def acl_command(kind: tuple[str, ...]) -> None:
    """Print the ACL rules of each KIND of user, as lines to paste into redis-cli.

    Without a KIND, print all: requests, a member of request shards that reaches nothing of a pool;
    pool, a member of task pools; reader, who asks with redis-cli and changes nothing; operator. It
    asks no server. Put a password in the place of PASSWORD; a URL with another database than 0
    needs +select too.

    \b
    Example:
      forebay acl requests reader

    \b
    Exit codes:
      0    done
      2    wrong usage
    """  # noqa: D301 - click reads that character
    click.echo("\n".join(acl_lines(kind or tuple(USERS))))
