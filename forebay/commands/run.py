"""`forebay run`: a workflow file goes in, finished records come out."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from forebay.commands.driving import conclude, drive
from forebay.commands.lines import say
from forebay.commands.report_options import report_options, report_path
from forebay.commands.runs import require_parts
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
@report_options
@click.option("--resume", is_flag=True, help="Go on with the run of this output that is not over.")
@click.option("--fresh", is_flag=True, help="Give that run up, or make the output anew.")
def run_command(
    workflow: Path,
    url: str,
    pool: str,
    tenant: str,
    weight: float,
    workers: int | None,
    overwrite: bool,
    report: Path | None,
    no_report: bool,
    resume: bool,
    fresh: bool,
) -> None:
    """Run a workflow to its end and write its records.

    With redis:// the run is carried by the workers of the fleet: start some with `forebay worker`.
    With embedded:// it has a server of its own, whose data lie beside the output until it ends.

    Where the output has records, or a run that is not over, nothing is begun: --resume goes on with
    that run (where there is none it begins one, or leaves a whole output as it is), --fresh deletes
    what the run has kept and begins anew.

    SIGTERM, SIGINT (Ctrl-C) and SIGHUP stop it: what is finished is kept, and the command that
    goes on with it (`forebay resume`) is printed.

    \b
    Exit codes:
      0    all records are written
      1    an error; where the run is not over, it says how to go on
      2    wrong usage
      3    records were dropped, or an output with more records was left as it is
      4    stopped itself: too many cells of a column failed (max_error_rate)
      129, 130, 143   stopped by SIGHUP, SIGINT, SIGTERM
    """  # noqa: D301 - click reads that character
    if resume and fresh:
        raise click.UsageError("--resume and --fresh exclude each other; say one of them.")
    require_extra("run", "forebay run")
    check_id("pool", pool)
    from forebay.commands.earlier import (
        begun_run,
        give_up,
        records_of,
        refuse_what_is_there,
        without_leftovers,
    )
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
    report = report_path(output, report, no_report=no_report)
    left = RunFiles(output, run.run_id).unfinished(loaded.name)
    unfinished = without_leftovers(output, left, url, pool)
    if resume and unfinished:
        look, url = begun_run(output, unfinished, url, pool)
        require_parts(look, look.spec)
        if look.spec.workflow != loaded:
            say("the workflow has changed since; the run goes on as it was submitted", err=True)
        conclude(
            drive(
                look.spec,
                url,
                pool,
                workers=workers,
                overwrites=overwrite,
                is_begun=True,
                report=report,
            )
        )
    elif resume and (records := records_of(output)):
        say(f"nothing is left to do: {output} holds {records} records of a run that has ended")
    else:
        if fresh:
            give_up(output, unfinished, url, pool)
        elif not overwrite or unfinished:
            refuse_what_is_there(output, unfinished, url, pool)
        conclude(drive(run, url, pool, workers=workers, overwrites=overwrite, report=report))
