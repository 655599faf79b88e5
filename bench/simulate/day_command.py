"""``python -m bench day``: a thousand members and a hundred provider/models for a simulated day."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import click

from bench import report
from bench.simulate.day import Day, Fleet, simulate_day
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.urls import parse_url

_servers: list[EmbeddedServer] = []


@click.command()
@click.option("--seed", default=1, show_default=True, help="Same seed, same day.")
@click.option("--members", default=1_000, show_default=True, type=click.IntRange(min=1))
@click.option("--models", default=100, show_default=True, type=click.IntRange(min=1))
@click.option("--hours", default=24.0, show_default=True, type=click.FloatRange(min=0.1))
@click.option(
    "--processes",
    default=2 * (os.cpu_count() or 1),
    show_default=True,
    type=click.IntRange(min=1),
    help="Each has a server of its own; they share the provider/models out.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/bench"),
    show_default=True,
)
def day(seed: int, members: int, models: int, hours: float, processes: int, out: Path) -> None:
    """Simulate a day of a large fleet with the production Lua.

    Each member uses two provider/models, sends bursts of calls, and is killed once a day in the
    mean. Providers have a hidden limit of calls at once that moves every few hours. Each shard's
    books are audited every hour; a difference, a lease above the cap, or one that is left at the
    end is an error.
    """
    fleet = Fleet(seed=seed, members=members, models=models, hours=hours)
    began = time.monotonic()
    found, server_seconds = _simulate(fleet, processes)
    digest = hashlib.sha256("".join(each.digest for each in found).encode()).hexdigest()
    served, refused = sum(each.served for each in found), sum(each.refused for each in found)
    seconds = time.monotonic() - began
    click.echo(
        f"members       {members}, {sum(each.deaths for each in found)} shards left by kills"
    )
    click.echo(
        f"calls         {served} served, {refused} refused ({refused / (served + refused):.2%})"
    )
    click.echo(f"audits        {models * (int(hours) + 1)}, no difference, no lease left")
    click.echo(f"digest        {digest[:16]} of all answers and their instants")
    click.echo(f"took          {seconds:.0f} s, {server_seconds:.0f} s of the servers' CPU time")
    out.mkdir(parents=True, exist_ok=True)
    artifact = {
        "scenario_id": "day",
        **report.origin(is_smoke=False),
        "inputs": asdict(fleet),
        "seconds": seconds,
        "server_cpu_seconds": server_seconds,
        "digest": digest,
        "iterations": [asdict(each) for each in found],
    }
    (out / "day.json").write_text(json.dumps(artifact, indent=2) + "\n")


def _simulate(fleet: Fleet, processes: int) -> tuple[list[Day], float]:
    """Return all days in order, and the CPU time of the servers in seconds."""
    found: dict[int, Day] = {}
    server_seconds = 0.0
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(processes, mp_context=spawn, initializer=_start_server) as pool,
        click.progressbar(length=fleet.models, label="provider/models", file=None) as bar,
    ):
        for future in as_completed(pool.submit(_day, fleet, m) for m in range(fleet.models)):
            each, seconds = future.result()
            found[each.model] = each
            server_seconds += seconds
            bar.update(1)
    return [found[model] for model in range(fleet.models)], server_seconds


def _start_server() -> None:
    """Start the server of this process; both end with the process that started this one."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _servers.append(EmbeddedServer().__enter__())


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # it was killed: a pool's processes would wait for work for ever


def _day(fleet: Fleet, model: int) -> tuple[Day, float]:
    """Simulate a provider/model's day; return it, and the server's CPU time in seconds."""
    [server] = _servers
    before = _cpu_seconds(server.url)
    return simulate_day(fleet, model, server.url), _cpu_seconds(server.url) - before


def _cpu_seconds(url: str) -> float:
    with open_sync(parse_url(url)) as client:
        cpu = client.info("cpu")
    return float(cpu["used_cpu_sys"]) + float(cpu["used_cpu_user"])
