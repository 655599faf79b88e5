"""`forebay apply FILE`: sets operators' settings from a file, after it has shown the difference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from forebay.commands.server_option import url_option
from forebay.contracts.errors import ConfigurationError, WorkflowError
from forebay.contracts.extras import require_extra
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.wanted_settings import Setting, digest_of, put, read_now
from forebay.runtime import run_async

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@click.command("apply")
@click.argument("file", type=click.Path(path_type=Path))
@url_option("Server: redis://, rediss:// or unix://.", required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--expect",
    metavar="DIGEST",
    help="Refuse unless what the file names is now as it was when this digest was shown.",
)
def apply_command(file: Path, url: str, expect: str | None, *, yes: bool) -> None:
    """Set caps, pools' limits and pools' states as FILE says, TOML or YAML.

    The difference is shown first, with the digest of what is set now; what FILE does not name stays
    as it is, and a second time there is nothing to do. Settings are made one after another: one
    that fails leaves those before it set. Quotas, tuning and a pool's policy come from members and
    cannot stand in FILE.

    \b
    A file may hold:
      [caps]                     # an operator's bound, or "none"
      "openai/gpt-5" = 40
      [pools.images]
      state = "open"             # or "paused", "draining"
      limits = { gpu = 2 }       # claims of the holder operator, or "none"

    \b
    Examples:
      forebay apply night.toml
      forebay apply night.toml --yes --expect 5f2d1c0a9b3e

    \b
    Exit codes:
      0    all is set as FILE says
      1    mistakes in FILE, a changed setting, a refusal, or no server
      2    wrong usage
    """  # noqa: D301 - click reads that character
    require_extra("run", "forebay apply")
    from forebay.workers.runs.settings_file import read_settings_file

    try:
        wanted = read_settings_file(file)
    except WorkflowError as error:
        raise ConfigurationError("\n".join(error.sentences)) from error
    run_async(_apply(url, wanted, expect, asks=not yes))


async def _apply(
    url: str, wanted: Mapping[Setting, str], expect: str | None, *, asks: bool
) -> None:
    async with await ServerConnection.open(url) as connection:
        now = await read_now(connection, wanted)
        _check_digest(now, expect)
        changes = [setting for setting in wanted if now[setting] != wanted[setting]]
        click.echo("\n".join(_lines_of(now, wanted, changes)))
        if not changes:
            return
        if asks:
            click.confirm("set this?", abort=True)
            _check_digest(await read_now(connection, wanted), digest_of(now))
        for setting in changes:
            await put(connection, setting, wanted[setting])
            click.echo(f"set {setting}: {wanted[setting]}")


def _check_digest(now: Mapping[Setting, str], expect: str | None) -> None:
    found = digest_of(now)
    if expect is not None and found != expect:
        raise ConfigurationError(
            f"what the file names has digest {found} on the server, expected {expect}: somebody has"
            " changed a setting since that was shown, and nothing was set; look at the difference"
            " again."
        )


def _lines_of(
    now: Mapping[Setting, str], wanted: Mapping[Setting, str], changes: Sequence[Setting]
) -> list[str]:
    lines = [f"  {setting}: {now[setting]} -> {wanted[setting]}" for setting in changes]
    head = f"{len(changes)} of {len(wanted)} settings differ; digest of now {digest_of(now)}"
    return [head, *lines]
