"""`forebay set-cap` and `set-limit`: bounds by an operator, at once and for all members."""

from __future__ import annotations

import click

from forebay.commands.server_option import url_option
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.requests.administration import set_override_cap
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.administration import set_pool_limit
from forebay.runtime import run_async

NONE = "none"


@click.command("set-cap")
@click.argument("provider")
@click.argument("model")
@click.argument("cap")
@url_option("Server: redis://, rediss:// or unix://.", required=True)
def set_cap_command(provider: str, model: str, cap: str, url: str) -> None:
    """Bound the cap of PROVIDER and MODEL by CAP from above; `none` takes the bound off.

    The cap in force is the smallest of what members registered and CAP. Lowering it lowers the
    windows at once and takes no lease back; raising it grants at once.

    \b
    Examples:
      forebay set-cap openai gpt-5 40
      forebay set-cap openai gpt-5 none

    \b
    Exit codes:
      0    set
      1    nobody has used the provider/model, CAP is no cap, or the server cannot be used
      2    wrong usage
    """  # noqa: D301 - click reads that character
    key = ProviderModelKey(provider_name=provider, model_id=model)
    run_async(_set_cap(url, key, _number_of("CAP", cap, 1)))


async def _set_cap(url: str, key: ProviderModelKey, cap: int | None) -> None:
    async with await ServerConnection.open(url) as connection:
        in_force = await set_override_cap(connection, key, cap)
    bound = "no bound of an operator" if cap is None else f"an operator's bound of {cap}"
    click.echo(f"{key}  cap now {in_force}, {bound}")


@click.command("set-limit")
@click.argument("resource")
@click.argument("limit")
@url_option("Server: redis://, rediss:// or unix://.", required=True)
@click.option("--pool", default="default", show_default=True, help="Which task pool.")
@click.option(
    "--holder",
    default="operator",
    show_default=True,
    help="Whose claim is set; `forebay explain` names the holder of the limit in force.",
)
def set_limit_command(resource: str, limit: str, url: str, pool: str, holder: str) -> None:
    """Claim LIMIT units of RESOURCE in a pool; `none` takes the holder's claim back.

    The limit in force is the smallest claim of all holders, so a limit that another holder claims
    rises with that holder's claim alone. Lowering it takes no lease back. At 0 no task that asks
    for RESOURCE starts; such tasks are still taken, wait, and `forebay explain` names the limit.

    \b
    Examples:
      forebay set-limit gpu 2 --pool images
      forebay set-limit gpu 4 --pool images --holder pool
      forebay set-limit gpu 0 --pool images
      forebay set-limit gpu none --pool images

    \b
    Exit codes:
      0    set
      1    nobody made the pool, LIMIT is no limit, or the server cannot be used
      2    wrong usage
    """  # noqa: D301 - click reads that character
    run_async(_set_limit(url, pool, resource, _number_of("LIMIT", limit, 0), holder))


async def _set_limit(url: str, pool: str, resource: str, limit: int | None, holder: str) -> None:
    async with await ServerConnection.open(url) as connection:
        in_force = await set_pool_limit(connection, pool, resource, limit, holder=holder)
    is_less = limit is not None and in_force is not None and in_force < limit
    other = ", as another holder claims less" if is_less else ""
    shown = NONE if in_force is None else in_force
    click.echo(f"pool {pool}: limit of {resource} now {shown}{other}")


def _number_of(what: str, text: str, least: int) -> int | None:
    """Return a bound as it was typed; None for ``none``."""
    if text == NONE:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ConfigurationError(
            f"{what} is {text!r}, expected a whole number from {least} on, or none."
        )
    return int(text)
