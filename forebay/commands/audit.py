"""`forebay audit`: whether the counts of provider/models agree, and their repair."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Final

import click

from forebay.commands.reset import rebuild_line
from forebay.commands.server_option import url_option
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.snapshots import AuditReport
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.requests.operating import rebuild
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.runtime import run_async

LOOK_AGAIN_SECONDS: Final = 0.1
MORE_SECONDS: Final = 2.0
"""Longest time of a rebuild beyond the interval in which members state their leases."""


@click.command("audit")
@click.argument("provider", required=False)
@click.argument("model", required=False)
@url_option("Server: redis://, rediss:// or unix://.", required=True)
@click.option(
    "--repair", is_flag=True, help="Rebuild what differs, after saying what would change."
)
def audit_command(provider: str | None, model: str | None, url: str, *, repair: bool) -> None:
    """Work out the counts of provider/models again and print each difference.

    Of all that were used, or of PROVIDER and MODEL as `forebay snapshot` shows them. Each line
    names a key, what is expected there and what is found: --repair sets the first for the second.
    Exits with 1 where something differs at the end.
    """
    if (provider is None) != (model is None):
        raise ConfigurationError(
            f"forebay audit was given {provider!r} alone, expected PROVIDER and MODEL or neither;"
            " name the model too."
        )
    one = ProviderModelKey(provider_name=provider, model_id=model) if provider and model else None
    if not run_async(_audit(url, one, repair=repair)):
        sys.exit(1)


async def _audit(url: str, one: ProviderModelKey | None, *, repair: bool) -> bool:
    """Print the audit of each provider/model; return whether all agree at the end."""
    async with await Coordinator.open(url, only_reads=not repair) as coordinator:
        pressure = RequestPressureSnapshotProvider(coordinator)
        keys = await pressure.used() if one is None else [one]
        if not keys:
            click.echo("no provider/model has been used on this server yet")
        all_agree = True
        for key in keys:
            report = await pressure.audit(key)
            click.echo("\n".join(audit_lines(key, report)))
            if not report.ok and repair:
                report = await _repair(coordinator, pressure, key)
            all_agree = all_agree and report.ok
        return all_agree


async def _repair(
    coordinator: Coordinator, pressure: RequestPressureSnapshotProvider, key: ProviderModelKey
) -> AuditReport:
    """Rebuild a shard; return its audit once it agrees, or when the rebuild must be over."""
    begun = await rebuild(coordinator, key)
    click.echo(f"{key}  {rebuild_line(begun)}")
    ends_at = time.monotonic() + begun.most_seconds + MORE_SECONDS
    while True:
        report = await pressure.audit(key)
        if report.ok or time.monotonic() > ends_at:
            break
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    click.echo("\n".join(audit_lines(key, report)))
    return report


def audit_lines(key: ProviderModelKey, report: AuditReport) -> list[str]:
    """Return a report as text: how many differences there are, then one a line."""
    if report.ok:
        return [f"{key}  ok"]
    count = report.difference_count
    return [
        f"{key}  {count} difference{'' if count == 1 else 's'}",
        *(f"  {difference}" for difference in report.differences),
    ]
