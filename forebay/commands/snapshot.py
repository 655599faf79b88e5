"""`forebay snapshot`: what every shard looks like at this instant."""

from __future__ import annotations

import asyncio

import click

from coordinator.coordinator import Coordinator
from coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.runtime import run_async


@click.command("snapshot")
@click.option("--url", required=True, help="Server: redis://, rediss:// or unix://.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document a provider/model.")
@click.option("--watch", is_flag=True, help="Again every second until stopped.")
def snapshot_command(url: str, as_json: bool, watch: bool) -> None:
    """Print windows, leases, waiters and members of every provider/model."""
    run_async(_show(url, as_json=as_json, watch=watch))


async def _show(url: str, *, as_json: bool, watch: bool) -> None:
    async with await Coordinator.open(url) as coordinator:
        pressure = RequestPressureSnapshotProvider(coordinator)
        while True:
            shards = await pressure.global_snapshots()
            if not shards and not as_json:
                click.echo("no provider/model has been used on this server yet")
            for key, shard in shards.items():
                if as_json:
                    click.echo(shard.model_dump_json())
                    continue
                click.echo(
                    f"{key}  cap {shard.static_cap}  in flight {shard.aggregate_in_flight}"
                    f"  waiting {shard.waiters}  members {shard.member_count}"
                )
                for quota in shard.budgets:
                    click.echo(
                        f"  {quota.budget}  left {quota.level:.0f} of {quota.burst}"
                        f"  limit {quota.limit}{' (headers)' if quota.learned else ''}"
                    )
                for domain, window in shard.domains.items():
                    if window.is_used:
                        click.echo(
                            f"  {domain:<11}  window {window.current_limit}/{window.effective_max}"
                            f"  in flight {window.in_flight_count}  waiting {window.waiters}"
                            f"  cooldown {window.cooldown_remaining_seconds:.1f} s"
                            f"  granted {window.granted}  cuts {window.cuts}"
                        )
            if not watch:
                return
            await asyncio.sleep(1.0)
