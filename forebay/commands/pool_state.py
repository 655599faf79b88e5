"""`forebay pause`, `open` (also `resume-pool`) and `drain`: what a pool takes and starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from forebay.commands.server_option import url_option
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.administration import set_pool_state
from forebay.coordinator.tasks.pool_settings import PoolState
from forebay.runtime import run_async


def _of_a_pool(command: Callable[..., None]) -> Callable[..., None]:
    command = url_option("Server: redis://, rediss:// or unix://.", required=True)(command)
    command = click.option(
        "--pool", default="default", show_default=True, help="Which task pool, instead of POOL."
    )(command)
    return click.argument("named", metavar="[POOL]", required=False)(command)


@click.command("pause")
@_of_a_pool
def pause_command(**which: Any) -> None:
    """Start no more tasks of a pool; what runs goes on, what is submitted waits."""
    run_async(_set_state("paused", **which))


@click.command("open")
@_of_a_pool
def open_command(**which: Any) -> None:
    """Let a paused or draining pool go on."""
    run_async(_set_state("open", **which))


@click.command("resume-pool")
@_of_a_pool
def resume_command(**which: Any) -> None:
    """Let a paused or draining pool go on: the older name of `forebay open`."""
    run_async(_set_state("open", **which))


@click.command("drain")
@_of_a_pool
def drain_command(**which: Any) -> None:
    """Take no new tasks into a pool; those that it has are still run."""
    run_async(_set_state("draining", **which))


async def _set_state(state: PoolState, url: str, pool: str, named: str | None) -> None:
    pool = named or pool
    async with await ServerConnection.open(url) as connection:
        found = await set_pool_state(connection, pool, state)
    click.echo(
        f"pool {pool} is {found.state}: {found.running} running, {found.queue.queued_total} queued,"
        f" {found.delayed} delayed, {found.parked} parked"
    )
