"""`forebay runs`, `resume`, `attach` and `cancel`: the runs of a pool that are not over."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click

from forebay.commands.driving import conclude, drive, make_view
from forebay.commands.following import follow
from forebay.commands.lines import fitted, say
from forebay.commands.report_options import report_options, report_path
from forebay.commands.run_scene import SceneReader, duration
from forebay.commands.server_option import url_option
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import require_extra
from forebay.contracts.run_use import cost_of, sum_by_model
from forebay.contracts.runs import RunSpec
from forebay.coordinator.keys import check_id
from forebay.coordinator.runs.looking import RunLook, RunReader
from forebay.coordinator.runs.tracker import CompletionTracker
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.administration import require_pool
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.runtime import run_async, run_stoppable, server_url, stoppable

_url = url_option("Server that has the run.", required=True)
_pool = click.option("--pool", default="default", show_default=True, help="Task pool.")


@click.command("runs")
@_url
@_pool
@click.option("--json", "as_json", is_flag=True, help="One JSON document a run.")
def runs_command(url: str, pool: str, as_json: bool) -> None:
    """List the runs of a pool that are not over: who drives each, and what it has used."""
    with server_url(url) as server:
        looks = run_async(_looks(server, pool))
    if as_json:
        lines = [json.dumps(_facts(look), ensure_ascii=False) for look in looks]
    else:
        lines = [line for look in looks for line in _lines_of(look)] or [f"pool {pool} has no run"]
    for line in lines:
        click.echo(line)


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
@report_options
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The output on this machine, beside which the folder of parts lies.",
)
def resume_command(
    run: str,
    url: str,
    pool: str,
    workers: int | None,
    overwrite: bool,
    output: Path | None,
    report: Path | None,
    no_report: bool,
) -> None:
    """Go on with RUN, which `forebay run` began, from what is on disk and on its server.

    Any machine can do so that has the folder of parts; `--output` says where it lies there. Exit
    codes are those of `forebay run`.
    """
    require_extra("run", "forebay resume")
    with server_url(url) as server:
        look = run_async(unattended(server, pool, run))
    spec = _with_output(look.spec, output)
    require_parts(look, spec)
    report = report_path(Path(spec.workflow.output.path), report, no_report=no_report)
    done = drive(
        spec, url, pool, workers=workers, overwrites=overwrite, is_begun=True, report=report
    )
    conclude(done)


@click.command("attach")
@click.argument("run")
@_url
@_pool
def attach_command(run: str, url: str, pool: str) -> None:
    """Watch RUN until it is over, as its driver shows it; leaving does not stop it."""
    with stoppable(), server_url(url) as server:
        run_stoppable(_attach(server, pool, run))
    click.echo(f"run {run} is over")


@click.command("cancel")
@click.argument("run")
@_url
@_pool
def cancel_command(run: str, url: str, pool: str) -> None:
    """End RUN at once: what waits never starts. Records on disk stay."""
    with server_url(url) as server:
        run_async(_cancel(server, pool, run))
    click.echo(f"run {run} is cancelled; what it has written stays")


async def _looks(url: str, pool: str) -> list[RunLook]:
    async with _reading(url, pool) as (_, reader):
        specs = [await reader.spec(run_id) for run_id in await reader.ids()]
        looks = [await reader.look(spec) for spec in specs if spec is not None]
    return [look for look in looks if look is not None]


async def unattended(url: str, pool: str, run_id: str) -> RunLook:
    """Return a run without a driver; raise for any other.

    Raises:
        ConfigurationError: a process drives it, or the pool has no such run.
    """
    async with _reading(url, pool) as (_, reader):
        look = await _look(reader, pool, run_id)
    _require_nobody(look)
    return look


async def refuse_if_attended(url: str, pool: str, run_id: str) -> None:
    """Raise if a process drives a run; one that the server does not have is driven by none.

    Raises:
        ConfigurationError: a process drives it.
    """
    async with await ServerConnection.open(url) as connection:
        reader = RunReader(connection, pool)
        spec = await reader.spec(run_id)
        look = None if spec is None else await reader.look(spec)
    if look is not None:
        _require_nobody(look)


def _require_nobody(look: RunLook) -> None:
    if look.driver:
        raise ConfigurationError(
            f"run {look.spec.run_id!r} is driven by {look.owner or look.driver}, expected one"
            " without a driver; watch it with `forebay attach`, or stop that process first."
        )


async def _attach(url: str, pool: str, run_id: str) -> None:
    async with _reading(url, pool) as (connection, reader):
        look = await _look(reader, pool, run_id)
        for line in _lines_of(look):
            say(line)
        view = make_view(look.spec)
        try:
            await follow(SceneReader(connection, look.spec, pool), view)
        finally:
            view.close()


async def _cancel(url: str, pool: str, run_id: str) -> None:
    async with _reading(url, pool) as (connection, reader):
        controller = TaskAdmissionController(connection, pool)
        try:
            if not await CompletionTracker(controller, connection.client).cancel(run_id):
                raise await _unknown(reader, pool, run_id)
        finally:
            await controller.close()


async def cancel_if_unattended(url: str, pool: str, run_id: str) -> None:
    """Cancel a run without a driver; do nothing if the server has no such run.

    Raises:
        ConfigurationError: a process drives it.
    """
    if await is_on_server(url, pool, run_id):
        await unattended(url, pool, run_id)
        await _cancel(url, pool, run_id)


async def is_on_server(url: str, pool: str, run_id: str) -> bool:
    """Return whether a server has a run that is not over."""
    async with await ServerConnection.open(url) as connection:
        return await RunReader(connection, pool).spec(run_id) is not None


@asynccontextmanager
async def _reading(url: str, pool: str) -> AsyncIterator[tuple[ServerConnection, RunReader]]:
    async with await ServerConnection.open(url) as connection:
        await require_pool(connection, pool)
        yield connection, RunReader(connection, pool)


async def _look(reader: RunReader, pool: str, run_id: str) -> RunLook:
    spec = await reader.spec(check_id("run", run_id))
    look = None if spec is None else await reader.look(spec)
    if look is None:
        raise await _unknown(reader, pool, run_id)
    return look


async def _unknown(reader: RunReader, pool: str, run_id: str) -> ConfigurationError:
    others = ", ".join(await reader.ids()) or "none"
    return ConfigurationError(
        f"pool {pool} has no run {run_id!r}, expected one of: {others}. A run is in its pool until"
        " its output is written or it is cancelled; see `forebay runs`. One that was stopped before"
        " it was submitted is begun by `forebay run WORKFLOW --resume`."
    )


def _with_output(spec: RunSpec, output: Path | None) -> RunSpec:
    if output is None:
        return spec
    named = spec.workflow.output.model_copy(update={"path": str(output.absolute())})
    return spec.model_copy(update={"workflow": spec.workflow.model_copy(update={"output": named})})


def require_parts(look: RunLook, spec: RunSpec) -> None:
    """Refuse to resume a run whose row groups were written to a folder of another machine.

    Raises:
        ConfigurationError: with the folder that is missing here.
    """
    from forebay.workers.runs.files import RunFiles

    files = RunFiles(Path(spec.workflow.output.path), spec.run_id)
    here = len(files.row_groups())
    if here < look.written:
        raise ConfigurationError(
            f"run {spec.run_id!r} has written {look.written} row groups, of which {here} are here:"
            f" {look.owner or 'its driver'} wrote them to {files.parts}; expected that folder on"
            " this machine. Copy it here and name the output beside it with --output, or resume"
            " the run there."
        )


def _facts(look: RunLook) -> dict[str, Any]:
    models = sum_by_model(look.columns)
    return {
        "run_id": look.spec.run_id,
        "workflow": look.spec.workflow.name,
        "tenant": look.spec.tenant,
        "owner": look.owner,
        "driver": look.driver,
        "state": look.state,
        "problem": look.problem,
        "records": look.spec.workflow.record_count,
        "done": look.done,
        "dropped": look.dropped,
        "row_groups_open": look.open,
        "row_groups_unwritten": look.unwritten,
        "age_seconds": None
        if look.begun_at is None
        else round(look.captured_at - look.begun_at, 3),
        "calls": sum(use.calls for use in models.values()),
        "input_tokens": sum(use.input_tokens for use in models.values()),
        "output_tokens": sum(use.output_tokens for use in models.values()),
        "cost": cost_of(look.spec.workflow, models),
        "currency": look.spec.workflow.currency,
    }


def _lines_of(look: RunLook) -> list[str]:
    """Return a run as lines: its name, its driver, its records, and what it has used."""
    facts = _facts(look)
    driver = look.owner or look.driver or "nobody"
    cost = facts["cost"]
    first = [
        facts["run_id"],
        f"workflow {facts['workflow']}",
        f"tenant {facts['tenant']}",
        f"{look.state}, driven by {driver}" if look.driver else f"{look.state}, last by {driver}",
    ]
    second = [
        f"{look.done} done and {look.dropped} dropped of {facts['records']}",
        f"row groups {look.open} open, {look.unwritten} unwritten",
        "" if facts["age_seconds"] is None else f"age {duration(facts['age_seconds'])}",
        f"{facts['calls']} calls",
        f"{facts['input_tokens']:,} tokens in, {facts['output_tokens']:,} out",
        "cost not known: models without prices"
        if cost is None
        else f"cost {cost:.4f} {facts['currency']}",
        look.problem or "",
    ]
    return [*fitted(first), *fitted(second, first="    ")]
