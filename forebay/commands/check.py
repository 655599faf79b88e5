"""`forebay check`: all mistakes of a workflow file, before any call is paid for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from forebay.commands.lines import fitted
from forebay.commands.server_option import url_option
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import require_extra
from forebay.coordinator.runs.plan import CELL_FUNCTION, function_of_key
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.snapshots import count_serving
from forebay.runtime import DEFAULT_URL, run_async, server_url

if TYPE_CHECKING:
    from forebay.contracts.workflow import PlannedColumn, Workflow
    from forebay.workers.runs.model_checks import ModelCheck


@click.command("check")
@click.argument("workflow", type=click.Path(path_type=Path))
@click.option(
    "--check-models", is_flag=True, help="Send one health-check call to each model; it costs."
)
@url_option("Server of those calls, and of workers.", default=DEFAULT_URL, show_default=True)
@click.option("--pool", default="default", show_default=True, help="Task pool of the workers.")
def check_command(workflow: Path, check_models: bool, url: str, pool: str) -> None:
    """Report all mistakes of a workflow file, and change nothing.

    Every mistake is shown at once, with file, line and key, and the expected value. The seed
    file is read to its end, and keys of providers must be in this environment; with the URL of a
    server also in that of a worker of the pool, if there are any.

    \b
    Exit codes:
      0    nothing is wrong
      1    mistakes, or a model that does not answer
      2    wrong usage
    """  # noqa: D301 - click reads that character
    require_extra("run", "forebay check")
    from forebay.workers.runs.workflow_file import load_workflow

    loaded = load_workflow(workflow, environ=os.environ)
    # What needs the server comes first: that there is none is a mistake.
    checks = _checked_models(loaded, url) if check_models else []
    workers = [] if url == DEFAULT_URL else run_async(_workers_with_keys(url, pool, loaded))
    click.echo("\n".join([*_lines_of(workflow, loaded), *workers]))
    for check in checks:
        click.echo(f"  {check.name} {'answers' if check.problem is None else check.problem}")
    if any(check.problem is not None for check in checks):
        sys.exit(1)


def _lines_of(path: Path, workflow: Workflow) -> list[str]:
    counts = (
        f"{workflow.record_count} records, {len(workflow.columns)} columns,"
        f" {workflow.row_group_count} row groups"
    )
    lines = fitted([f"{path}: no mistake", counts], indent="  ")
    for column in workflow.columns:
        lines += fitted(
            [", ".join(column.outputs), *_parts_of(column, workflow)], first="  ", indent="      "
        )
    keys = [provider.api_key_env for provider in workflow.providers.values()]
    lines += [f"  key {key} is set here" for key in dict.fromkeys(filter(None, keys))]
    return lines


def _parts_of(column: PlannedColumn, workflow: Workflow) -> list[str]:
    parts: list[str] = [column.spec.generator]
    alias = getattr(column.spec, "model", None)
    for name in (alias,) if alias else getattr(column.spec, "models", ()):
        model = workflow.models[name]
        parts.append(f"model {name} = {model.provider}/{model.model}")
    if column.inputs:
        parts.append(f"needs {', '.join(column.inputs)}")
    return parts


async def _workers_with_keys(url: str, pool: str, workflow: Workflow) -> list[str]:
    """Return a line for each key, with the number of a pool's workers that have it.

    Raises:
        ConfigurationError: there are workers, and none of them has a key.
    """
    async with await ServerConnection.open(url, only_reads=True) as connection:
        workers = await count_serving(connection, pool, CELL_FUNCTION)
        if not workers:
            return [f"  pool {pool} has no worker yet, which would need these keys as well"]
        lines = []
        for name, provider in workflow.providers.items():
            key = provider.api_key_env
            if key is None:
                continue
            having = await count_serving(connection, pool, function_of_key(key))
            if not having:
                raise ConfigurationError(
                    f"none of the {workers} workers of pool {pool} has the variable {key}, the key"
                    f" of provider {name!r}, expected one at least; set it where a worker starts,"
                    f" with --allow-env {key}=HOST."
                )
            lines.append(f"  key {key} is there in {having} of {workers} workers of pool {pool}")
    return lines


def _checked_models(workflow: Workflow, url: str) -> list[ModelCheck]:
    """Call each model once; return each answer or error."""
    from forebay.workers.runs.model_checks import check_models_answer

    with server_url(url) as server:
        return run_async(check_models_answer(server, workflow))
