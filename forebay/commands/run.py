"""`forebay run`: a workflow file goes in, finished records come out."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from forebay.commands.driving import conclude, drive, resume_command
from forebay.commands.lines import say
from forebay.commands.server_option import url_option
from forebay.contracts.extras import require_extra
from forebay.contracts.runs import RUN_NUMBER_DIGITS, RunSpec
from forebay.coordinator.keys import check_id
from forebay.runtime import DEFAULT_URL


@click.command("run")
@click.argument("workflow", type=click.Path(path_type=Path))
@url_option("Server to run on.", default=DEFAULT_URL, show_default=True)
@click.option("--pool", default="default", show_default=True, help="Task pool.")
@click.option("--tenant", default="default", show_default=True, help="Whose share it takes.")
@click.option("--weight", default=1.0, show_default=True, help="That share's weight.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Worker processes to start here [2 if embedded, else 0].",
)
@click.option("--overwrite", is_flag=True, help="Replace an output that holds more records.")
def run_command(
    workflow: Path,
    url: str,
    pool: str,
    tenant: str,
    weight: float,
    workers: int | None,
    overwrite: bool,
) -> None:
    """Run a workflow to its end and write its records.

    With redis:// the run is carried by the workers of the fleet: start some with `forebay worker`.
    With embedded:// it has a server of its own, whose data lie beside the output until it ends.

    SIGTERM, SIGINT (Ctrl-C) and SIGHUP stop it: what is finished is kept, and the command that
    goes on with it (`forebay resume`) is printed.

    \b
    Exit codes:
      0    all records are written
      1    an error; where the run is not over, it says how to go on
      2    wrong usage
      3    records were dropped, or an output with more records was left as it is
      4    stopped itself: the first 20 cells of a column all failed
      129, 130, 143   stopped by SIGHUP, SIGINT, SIGTERM
    """  # noqa: D301 - click reads that character
    require_extra("run", "forebay run")
    check_id("pool", pool)
    from forebay.workers.runs.files import RunFiles
    from forebay.workers.runs.workflow_file import load_workflow

    loaded = load_workflow(workflow, environ=os.environ)
    run = RunSpec(
        run_id=f"{loaded.name}-{secrets.token_hex(RUN_NUMBER_DIGITS // 2)}",
        tenant=tenant,
        weight=weight,
        workflow=loaded,
    )
    output = Path(loaded.output.path)
    for run_id in RunFiles(output, run.run_id).unfinished(loaded.name):
        files = RunFiles(output, run_id)
        kept = " ".join(str(path) for path in (files.parts, files.server) if path.exists())
        say(f"run {run_id} of this output has not come to its end; this is another run.", err=True)
        say(f"  kept:    {kept}", err=True)
        say(f"  go on:   {resume_command(run_id, url, pool, files)}", err=True)
        say("  where its server has that run no more, delete what is kept", err=True)
    conclude(drive(run, url, pool, workers=workers, overwrites=overwrite))
