"""`forebay run`: a workflow file goes in, finished records come out."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from forebay.contracts.errors import CoordinatorError
from forebay.contracts.extras import require_extra
from forebay.contracts.runs import RUN_NUMBER_DIGITS, RunProgress, RunSpec
from forebay.contracts.settings import MemberSettings
from forebay.contracts.workflow import Workflow
from forebay.coordinator.address import EmbeddedAddress, parse_url
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.keys import check_id
from forebay.coordinator.runs.plan import CELL_FUNCTION
from forebay.coordinator.tasks.snapshots import count_serving
from forebay.runtime import DEFAULT_URL, run_async, server_url, start_worker, stop_workers

if TYPE_CHECKING:
    from forebay.workers.run_driver import RunSummary


@click.command("run")
@click.argument("workflow", type=click.Path(path_type=Path))
@click.option("--url", default=DEFAULT_URL, show_default=True, help="Server to run on.")
@click.option("--pool", default="default", show_default=True, help="Task pool.")
@click.option("--tenant", default="default", show_default=True, help="Whose share it takes.")
@click.option("--weight", default=1.0, show_default=True, help="That share's weight.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Worker processes to start here [2 if embedded, else 0].",
)
def run_command(
    workflow: Path, url: str, pool: str, tenant: str, weight: float, workers: int | None
) -> None:
    """Run a workflow to its end and write its records.

    With redis:// the run is carried by the workers of the fleet: start some with `forebay worker`.
    """
    require_extra("run", "forebay run")
    check_id("pool", pool)
    from forebay.workers.allowlist import options_for
    from forebay.workers.workflow_file import load_workflow

    loaded = load_workflow(workflow, environ=os.environ)
    run = RunSpec(
        run_id=f"{loaded.name}-{secrets.token_hex(RUN_NUMBER_DIGITS // 2)}",
        tenant=tenant,
        weight=weight,
        workflow=loaded,
    )
    if workers is None:
        workers = 2 if isinstance(parse_url(url), EmbeddedAddress) else 0
    with server_url(url) as server:
        options = ("--pool", pool, *options_for(loaded))
        started = [start_worker(server, *options) for _ in range(workers)]
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        try:
            summary = run_async(_drive_while_worked(server, pool, run, started))
        finally:
            stop_workers(started)
    click.echo(
        f"{summary.written} of {summary.records} records written to {summary.output},"
        f" {summary.dropped} dropped"
        + (f" (why: {summary.dropped_file})" if summary.dropped_file else "")
    )
    sys.exit(3 if summary.dropped else 0)


async def _drive_while_worked(
    url: str, pool: str, run: RunSpec, workers: list[subprocess.Popen[bytes]]
) -> RunSummary:
    """Drive the run, unless every worker that was started for it has ended."""
    driving = asyncio.create_task(_drive(url, pool, run, expects_workers=not workers))
    try:
        while not driving.done():
            await asyncio.wait([driving], timeout=0.5)
            if workers and not driving.done() and all(w.poll() is not None for w in workers):
                raise CoordinatorError(
                    f"all {len(workers)} workers of run {run.run_id} have ended; expected them to"
                    " outlive it; run it again, with --debug for what they say."
                )
        return driving.result()
    finally:
        driving.cancel()
        await asyncio.wait([driving])


async def _drive(url: str, pool: str, run: RunSpec, *, expects_workers: bool) -> RunSummary:
    from forebay.workers.run_driver import RunDriver

    async with await Coordinator.open(url, MemberSettings()) as coordinator:
        click.echo(f"run {run.run_id}: {_size(run.workflow)}")
        if expects_workers and not await count_serving(coordinator, pool, CELL_FUNCTION):
            click.echo(
                f"pool {pool} has no worker yet, for which the run waits; start one:", err=True
            )
            click.echo(f"  forebay worker --pool {shlex.quote(pool)} --url ...", err=True)
        progress = _Progress(run.workflow)
        driver = RunDriver(coordinator, run, pool=pool, on_progress=progress.show)
        return await driver.drive()


def _size(workflow: Workflow) -> str:
    return f"{workflow.seed.records} records, {len(workflow.columns)} columns"


class _Progress:
    """One line per look, at most one a second; plain, as it may go to a file."""

    def __init__(self, workflow: Workflow) -> None:
        self._records = workflow.seed.records
        self._started = time.monotonic()
        self._shown = -1.0

    def show(self, progress: RunProgress) -> None:
        now = time.monotonic() - self._started
        if now - self._shown < 1.0:
            return
        self._shown = now
        done = progress.records_done + progress.records_dropped
        rate = done / now if now > 0 else 0.0
        left = f"{(self._records - done) / rate:.0f} s left" if rate > 0 else "no record yet"
        click.echo(
            f"  {now:5.0f} s  {done}/{self._records} records {rate:6.1f}/s  {left}"
            f"  open row groups {progress.row_groups_open}",
            err=True,
        )
