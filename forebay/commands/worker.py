"""`forebay worker`: a process that runs tasks under leases."""

from __future__ import annotations

import asyncio
import logging

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
@click.option("--grace", default=0, show_default=True, help="Seconds to finish tasks on SIGTERM.")
def worker_command(url: str, pool: str, slots: int, ttl: float, grace: int) -> None:
    """Run tasks of a pool until stopped; start as many of these as you like, anywhere."""
    logging.getLogger("arq").setLevel(logging.CRITICAL)
    run_async(_work(url, pool, slots, ttl, grace))


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
