"""`forebay reset`: resets a provider/model's window, ends a cooldown, or rebuilds a shard."""

from __future__ import annotations

import click

from forebay.commands.server_option import url_option
from forebay.commands.shard_argument import check_shard
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import RequestDomain, RequestResourceKey
from forebay.coordinator.requests.administration import rebuild, reset_cooldown, reset_window
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard.administration import Rebuilding
from forebay.coordinator.tasks.administration import rebuild_pool
from forebay.runtime import run_async


@click.command("reset")
@click.argument("provider", required=False)
@click.argument("model", required=False)
@click.option("--pool", help="A task pool instead, with --rebuild.")
@url_option("Server: redis://, rediss:// or unix://.", required=True)
@click.option(
    "--domain",
    type=click.Choice([domain.value for domain in RequestDomain]),
    default=RequestDomain.CHAT.value,
    show_default=True,
    help="Whose window or cooldown.",
)
@click.option("--window", "what", flag_value="window", help="The window alone: it is born anew.")
@click.option("--cooldown", "what", flag_value="cooldown", help="The cooldown alone: it ends now.")
@click.option(
    "--rebuild",
    "what",
    flag_value="rebuild",
    help="The shard of all domains, or the pool, instead: its counts are made anew of what is left"
    " of it and of what its members hold.",
)
def reset_command(
    provider: str | None,
    model: str | None,
    pool: str | None,
    url: str,
    domain: str,
    what: str | None,
) -> None:
    """Reset a window and end its cooldown, or one of the two, or rebuild a shard.

    PROVIDER and MODEL are as `forebay snapshot` shows them. Leases stay out; a rate limit of one
    that is out now cuts nothing, but it cools down again.
    """
    key = check_shard("reset", provider, model, pool)
    if key is not None:
        resource = RequestResourceKey(provider_model=key, domain=RequestDomain(domain))
        run_async(_reset(url, resource, what))
    elif pool is not None and what == "rebuild":
        run_async(_rebuild_pool(url, pool))
    else:
        given = "nothing" if pool is None else f"--pool {pool} without --rebuild"
        raise ConfigurationError(
            f"forebay reset was given {given}, expected PROVIDER and MODEL, or --pool NAME"
            " --rebuild: a pool has no window; name one of the two."
        )


def rebuild_line(begun: Rebuilding) -> str:
    """Return a sentence with the number of members that a rebuild waits for."""
    if not begun.awaited:
        return "rebuilt; no member was there to state what it holds"
    members = "1 member states" if begun.awaited == 1 else f"{begun.awaited} members state"
    return f"rebuild begun: {members} leases and waiters, within {begun.most_seconds:.1f} s"


async def _rebuild_pool(url: str, pool: str) -> None:
    async with await ServerConnection.open(url) as connection:
        click.echo(f"pool {pool}  {rebuild_line(await rebuild_pool(connection, pool))}")


async def _reset(url: str, resource: RequestResourceKey, what: str | None) -> None:
    async with await ServerConnection.open(url) as connection:
        if what == "rebuild":
            begun = await rebuild(connection, resource.provider_model)
            click.echo(f"{resource.provider_model}  {rebuild_line(begun)}")
            return
        # The window first: what the end of the cooldown grants is granted under the new one.
        if what != "cooldown":
            limit = await reset_window(connection, resource)
            now = f"now {limit}" if limit else "never used, nothing to reset"
            click.echo(f"{resource}  window {now}")
        if what != "window":
            seconds = await reset_cooldown(connection, resource)
            ended = f"ended {seconds:.1f} s early" if seconds else "none"
            click.echo(f"{resource}  cooldown {ended}")
