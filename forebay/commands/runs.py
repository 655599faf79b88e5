"""`forebay runs`, `resume` and `cancel`: the runs of a pool that are not over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click

from forebay.commands.driving import conclude, drive
from forebay.commands.server_option import url_option
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import require_extra
from forebay.contracts.runs import RunSpec
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.runs.tracker import CompletionTracker
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.operating import require_pool
from forebay.runtime import run_async, server_url

_url = url_option("Server that has the run.", required=True)
_pool = click.option("--pool", default="default", show_default=True, help="Task pool.")


@click.command("runs")
@_url
@_pool
def runs_command(url: str, pool: str) -> None:
    """List the runs of a pool that are not over, and who attends them."""
    with server_url(url) as server:
        lines = run_async(_list(server, pool))
    click.echo("\n".join(lines) or f"pool {pool} has no run")


@click.command("resume")
@click.argument("run")
@_url
@_pool
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Worker processes to start here [2 if embedded, else 0].",
)
@click.option("--overwrite", is_flag=True, help="Replace an output that holds more records.")
def resume_command(run: str, url: str, pool: str, workers: int | None, overwrite: bool) -> None:
    """Go on with RUN, which `forebay run` began, from what is on disk and on its server.

    Exit codes are those of `forebay run`.
    """
    require_extra("run", "forebay resume")
    with server_url(url) as server:
        spec = run_async(_unattended(server, pool, run))
    conclude(drive(spec, url, pool, workers=workers, overwrites=overwrite, is_begun=True))


@click.command("cancel")
@click.argument("run")
@_url
@_pool
def cancel_command(run: str, url: str, pool: str) -> None:
    """End RUN at once: what waits never starts. Records on disk stay."""
    with server_url(url) as server:
        run_async(_cancel(server, pool, run))
    click.echo(f"run {run} is cancelled; what it has written stays")


@asynccontextmanager
async def _tracker_of(url: str, pool: str) -> AsyncIterator[CompletionTracker]:
    async with await Coordinator.open(url) as coordinator:
        await require_pool(coordinator, pool)
        controller = TaskAdmissionController(coordinator, pool)
        try:
            yield CompletionTracker(controller, coordinator.client)
        finally:
            await controller.close()


async def _list(url: str, pool: str) -> list[str]:
    lines = []
    async with _tracker_of(url, pool) as tracker:
        for run_id, spec in (await tracker.runs()).items():
            counts = await tracker.counts(run_id)
            driver = await tracker.driver_of(run_id)
            lines.append(
                f"{run_id}  tenant {spec.tenant}  {counts['done']} done and {counts['dropped']}"
                f" dropped of {spec.workflow.seed.records}  row groups {counts['open']} open,"
                f" {counts['unwritten']} unwritten  "
                + (f"attended by {driver}" if driver else "attended by nobody")
            )
    return lines


async def _unattended(url: str, pool: str, run_id: str) -> RunSpec:
    async with _tracker_of(url, pool) as tracker:
        spec = await tracker.spec(run_id)
        if spec is None:
            raise await _unknown(tracker, pool, run_id)
        if driver := await tracker.driver_of(run_id):
            raise ConfigurationError(
                f"run {run_id!r} is attended by {driver}, expected one that nobody attends; stop"
                " that process first."
            )
        return spec


async def _cancel(url: str, pool: str, run_id: str) -> None:
    async with _tracker_of(url, pool) as tracker:
        if not await tracker.cancel(run_id):
            raise await _unknown(tracker, pool, run_id)


async def _unknown(tracker: CompletionTracker, pool: str, run_id: str) -> ConfigurationError:
    others = ", ".join(await tracker.runs()) or "none"
    return ConfigurationError(
        f"pool {pool} has no run {run_id!r}, expected one of: {others}. A run is in its pool until"
        " its output is written or it is cancelled; see `forebay runs`."
    )
