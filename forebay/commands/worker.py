"""`forebay worker`: a process that runs tasks under leases."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading

import click

from contracts.settings import MemberSettings
from forebay.runtime import run_async
from workers.arq_worker import open_worker


@click.command("worker")
@click.option("--url", required=True, help="Server: redis://, rediss:// or unix://.")
@click.option("--pool", default="default", show_default=True, help="Task pool to work for.")
@click.option(
    "--slots", default=32, show_default=True, type=click.IntRange(1), help="Tasks at once."
)
@click.option("--ttl", default=15.0, show_default=True, help="Membership TTL in seconds.")
@click.option(
    "--grace",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Seconds to finish tasks on SIGTERM.",
)
@click.option("--lifeline", is_flag=True, hidden=True, help="Stop when standard input closes.")
def worker_command(url: str, pool: str, slots: int, ttl: float, grace: int, lifeline: bool) -> None:
    """Run tasks of a pool until stopped; start as many of these as you like, anywhere."""
    if lifeline:
        threading.Thread(target=_stop_with_parent, daemon=True).start()
    logging.getLogger("arq").setLevel(logging.CRITICAL)
    run_async(_work(url, pool, slots, ttl, grace))


def _stop_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


async def _work(url: str, pool: str, slots: int, ttl: float, grace: int) -> None:
    worker = await open_worker(
        url,
        pool=pool,
        settings=MemberSettings(ttl_seconds=ttl),
        max_jobs=slots,
        job_completion_wait=grace,
        health_check_interval=60,
    )
    click.echo(f"working for pool {pool} with {slots} slots; stop with Ctrl-C")
    try:
        await worker.async_run()
    except asyncio.CancelledError:
        pass
    finally:
        await worker.close()
