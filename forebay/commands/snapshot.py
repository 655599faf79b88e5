"""`forebay snapshot`: prints the present state of every shard."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping

import click

from forebay.commands.lines import fitted
from forebay.commands.server_option import url_option
from forebay.contracts.errors import SchemaMismatch, ShardDamaged
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.snapshots import BudgetSnapshot, DomainSnapshot, GlobalSnapshot
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection
from forebay.runtime import run_async


@click.command("snapshot")
@url_option("Server: redis://, rediss:// or unix://.", required=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document a provider/model.")
@click.option("--watch", is_flag=True, help="Again every second until stopped.")
def snapshot_command(url: str, as_json: bool, watch: bool) -> None:
    """Print windows, leases, waiters and members of every provider/model."""
    if not run_async(_show(url, as_json=as_json, watch=watch)):
        sys.exit(1)


async def _show(url: str, *, as_json: bool, watch: bool) -> bool:
    """Print every shard; return whether each could be read."""
    async with await ServerConnection.open(url, only_reads=True) as connection:
        pressure = RequestPressureSnapshotProvider(connection)
        while True:
            keys = await pressure.used()
            if not keys and not as_json:
                click.echo("no provider/model has been used on this server yet")
            refused = [key for key in keys if not await _show_one(pressure, key, as_json=as_json)]
            if not watch:
                return not refused
            await asyncio.sleep(1.0)


async def _show_one(
    pressure: RequestPressureSnapshotProvider, key: ProviderModelKey, *, as_json: bool
) -> bool:
    """Print a provider/model, or the reason why this version cannot read it."""
    try:
        shard = await pressure.global_snapshot(key)
    except (SchemaMismatch, ShardDamaged) as error:
        click.echo(f"Error: {error}", err=True)
        return False
    click.echo(shard.model_dump_json() if as_json else "\n".join(snapshot_lines(key, shard)))
    return True


def snapshot_lines(key: ProviderModelKey, shard: GlobalSnapshot) -> list[str]:
    """Return a shard as text, with its overdue and leaked leases if any."""
    wrong = {"overdue_members": shard.overdue_member_count, **shard.leak_diagnostics}
    whole = [
        str(key),
        f"cap {shard.static_cap}",
        f"in flight {shard.aggregate_in_flight}",
        f"waiting {shard.waiters}",
        f"members {shard.member_count}",
        *_named(wrong),
    ]
    lines = fitted(whole)
    for quota in shard.budgets:
        lines += fitted(_quota_parts(quota), first="  ")
    for window in shard.domains.values():
        if window.is_used:
            lines += fitted(_window_parts(window), first="  ", indent=" " * 15)
            lines.append(f"    {window.algorithm}: {window.outlook}")
    return lines


def _quota_parts(quota: BudgetSnapshot) -> list[str]:
    return [
        quota.budget,
        f"left {quota.level:.0f} of {quota.burst}",
        f"limit {quota.limit}{' (headers)' if quota.learned else ''}",
    ]


def _window_parts(window: DomainSnapshot) -> list[str]:
    budget = window.minute_budget
    return [
        f"{window.resource.domain:<11}",
        f"window {window.current_limit}/{window.effective_max}",
        f"in flight {window.in_flight_count}",
        f"waiting {window.waiters}",
        f"cooldown {window.cooldown_remaining_seconds:.1f} s",
        f"granted {window.granted}",
        f"cuts {window.cuts}",
        *([f"this minute {window.minute_served}/{budget}"] if budget else []),
        *([f"tokens x {window.token_factor:.2f}"] if window.token_factor != 1 else []),
        *_named(window.leak_diagnostics),
    ]


def _named(wrong: Mapping[str, int]) -> list[str]:
    return [f"{name.replace('_', ' ')} {count}" for name, count in wrong.items() if count]
