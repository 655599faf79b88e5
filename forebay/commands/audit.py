"""`forebay audit`: compares the counts of provider/models and task pools, and repairs them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

import click

from forebay.commands.reset import rebuild_line
from forebay.commands.server_option import url_option
from forebay.commands.shard_argument import check_shard
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.snapshots import AuditReport
from forebay.coordinator.evicting import evict as evict_lease
from forebay.coordinator.evicting import find_lease
from forebay.coordinator.requests.administration import rebuild
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard.administration import Rebuilding
from forebay.coordinator.tasks.administration import rebuild_pool, require_pool
from forebay.coordinator.tasks.snapshots import audit_pool, used_pools
from forebay.runtime import run_async

LOOK_AGAIN_SECONDS: Final = 0.1
MORE_SECONDS: Final = 2.0
"""Longest time of a rebuild beyond the interval in which members state their leases."""


class Audited:
    """One shard whose counts are compared.

    Args:
        name: as it is printed.
        audit: compares.
        rebuild: begins a rebuild.
    """

    def __init__(
        self,
        name: str,
        audit: Callable[[], Awaitable[AuditReport]],
        rebuild: Callable[[], Awaitable[Rebuilding]],
    ) -> None:
        self._name = name
        self._audit = audit
        self._rebuild = rebuild

    async def agrees(self, *, repair: bool) -> bool:
        """Print the audit; where counts differ, rebuild on request and print the second audit."""
        report = await self._audit()
        click.echo("\n".join(audit_lines(self._name, report)))
        if repair and not report.ok:
            report = await self._repair()
        return report.ok

    async def _repair(self) -> AuditReport:
        """Rebuild the shard; return its audit once it agrees, or when the rebuild must be over."""
        begun = await self._rebuild()
        click.echo(f"{self._name}  {rebuild_line(begun)}")
        ends_at = time.monotonic() + begun.most_seconds + MORE_SECONDS
        while True:
            report = await self._audit()
            if report.ok or time.monotonic() > ends_at:
                break
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        click.echo("\n".join(audit_lines(self._name, report)))
        return report


@click.command("audit")
@click.argument("provider", required=False)
@click.argument("model", required=False)
@click.option("--pool", help="This task pool alone.")
@url_option("Server: redis://, rediss:// or unix://.", required=True)
@click.option(
    "--repair", is_flag=True, help="Rebuild what differs, after saying what would change."
)
@click.option(
    "--evict", metavar="LEASE", help="Instead, end this lease of a request or a task; asks first."
)
@click.option("--yes", is_flag=True, help="With --evict, do not ask.")
def audit_command(
    provider: str | None,
    model: str | None,
    pool: str | None,
    url: str,
    evict: str | None,
    *,
    repair: bool,
    yes: bool,
) -> None:
    """Work out the counts of provider/models and task pools again and print each difference.

    Of all that were used, or of PROVIDER and MODEL as `forebay snapshot` shows them, or of a pool.
    Each line names a key, what is expected there and what is found: --repair sets the first for
    the second. Exits with 1 where something differs at the end.

    --evict ends one lease that its holder does not give back: what it holds is free at once, a
    task goes back to its group, and the holder gets a notice. The holder's own work may go on for a
    while, and its later release is answered with `stale_lease`.

    \b
    Examples:
      forebay audit --pool images
      forebay audit --evict resize-17~203 --yes
    """  # noqa: D301 - click reads that character
    if evict is not None:
        if repair or provider is not None or pool is not None:
            raise ConfigurationError(
                "forebay audit was given --evict and what to audit, expected one of the two; a"
                " lease is found by its id alone."
            )
        run_async(_evict(url, evict, asks=not yes))
        return
    one = check_shard("audit", provider, model, pool)
    if not run_async(_audit(url, one, pool, repair=repair)):
        sys.exit(1)


async def _evict(url: str, lease_id: str, *, asks: bool) -> None:
    async with await ServerConnection.open(url) as connection:
        lease = await find_lease(connection, lease_id)
        if asks:
            click.confirm(f"end {lease}?", abort=True)
        has_ended = await evict_lease(connection, lease)
    click.echo(f"ended {lease}" if has_ended else f"{lease}: had ended by itself meanwhile")


async def _audit(url: str, one: ProviderModelKey | None, pool: str | None, *, repair: bool) -> bool:
    """Print the audit of each shard; return whether all agree at the end."""
    async with await ServerConnection.open(url, only_reads=not repair) as connection:
        if pool is not None:
            await require_pool(connection, pool)
            shards = [_of_pool(connection, pool)]
        elif one is not None:
            shards = [_of_model(connection, one)]
        else:
            models = await RequestPressureSnapshotProvider(connection).used()
            shards = [_of_model(connection, key) for key in models]
            shards += [_of_pool(connection, name) for name in await used_pools(connection)]
        if not shards:
            click.echo("no provider/model and no pool has been used on this server yet")
        return all([await shard.agrees(repair=repair) for shard in shards])


def _of_model(connection: ServerConnection, key: ProviderModelKey) -> Audited:
    pressure = RequestPressureSnapshotProvider(connection)
    return Audited(str(key), lambda: pressure.audit(key), lambda: rebuild(connection, key))


def _of_pool(connection: ServerConnection, pool: str) -> Audited:
    return Audited(
        f"pool {pool}",
        lambda: audit_pool(connection, pool),
        lambda: rebuild_pool(connection, pool),
    )


def audit_lines(name: str, report: AuditReport) -> list[str]:
    """Return a report as text: how many differences there are, then one a line."""
    if report.ok:
        return [f"{name}  ok"]
    count = report.difference_count
    return [
        f"{name}  {count} difference{'' if count == 1 else 's'}",
        *(f"  {difference}" for difference in report.differences),
    ]
