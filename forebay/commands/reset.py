"""`forebay reset`: forget what was learned of a provider/model, or end a cooldown."""

from __future__ import annotations

import click

from forebay.commands.server_option import url_option
from forebay.contracts.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.requests.operating import (
    Rebuilding,
    rebuild,
    reset_cooldown,
    reset_window,
)
from forebay.runtime import run_async


@click.command("reset")
@click.argument("provider")
@click.argument("model")
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
    help="The shard of all domains instead: its counts are made anew of what is left of it and of"
    " what its members hold.",
)
def reset_command(provider: str, model: str, url: str, domain: str, what: str | None) -> None:
    """Let a window be born anew and end its cooldown, or one of the two, or rebuild a shard.

    PROVIDER and MODEL are as `forebay snapshot` shows them. Leases stay out; a rate limit of one
    that is out now cuts nothing, but it cools down again.
    """
    resource = RequestResourceKey(
        provider_model=ProviderModelKey(provider_name=provider, model_id=model),
        domain=RequestDomain(domain),
    )
    run_async(_reset(url, resource, what))


def rebuild_line(begun: Rebuilding) -> str:
    """Return a sentence that says for whom a begun rebuild waits."""
    if not begun.awaited:
        return "rebuilt; no member was there to state what it holds"
    members = "1 member states" if begun.awaited == 1 else f"{begun.awaited} members state"
    return f"rebuild begun: {members} leases and waiters, within {begun.most_seconds:.1f} s"


async def _reset(url: str, resource: RequestResourceKey, what: str | None) -> None:
    async with await Coordinator.open(url) as coordinator:
        if what == "rebuild":
            begun = await rebuild(coordinator, resource.provider_model)
            click.echo(f"{resource.provider_model}  {rebuild_line(begun)}")
            return
        # The window first: what the end of the cooldown grants is granted under the new one.
        if what != "cooldown":
            limit = await reset_window(coordinator, resource)
            now = f"now {limit}" if limit else "never used, nothing to reset"
            click.echo(f"{resource}  window {now}")
        if what != "window":
            seconds = await reset_cooldown(coordinator, resource)
            ended = f"ended {seconds:.1f} s early" if seconds else "none"
            click.echo(f"{resource}  cooldown {ended}")
