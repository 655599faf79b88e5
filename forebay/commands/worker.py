"""`forebay worker`: a process that runs tasks under leases."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click
from arq.utils import import_string

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.settings import MemberSettings
from forebay.runtime import run_async
from forebay.workers.arq_settings import settings_of
from forebay.workers.arq_worker import open_worker
from forebay.workers.cells import MakeCellMaker

MOST_NAMED: Final = 20
RUN_EXTRA: Final = ("httpx2", "jinja2", "jsonschema")


@click.command("worker")
@click.argument("settings", required=False, metavar="[SETTINGS]")
@click.option("--url", required=True, help="Server: redis://, rediss:// or unix://.")
@click.option("--pool", default="default", show_default=True, help="Task pool to work for.")
@click.option(
    "--slots",
    type=click.IntRange(1),
    help="Tasks at once.  [default: max_jobs of SETTINGS, else 32]",
)
@click.option("--ttl", default=15.0, show_default=True, help="Membership TTL in seconds.")
@click.option(
    "--grace",
    type=click.IntRange(0),
    help="Seconds in which tasks may end on SIGTERM; the others are given back."
    "  [default: job_completion_wait of SETTINGS, else 10]",
)
@click.option(
    "--serializer",
    default="json",
    show_default=True,
    type=click.Choice(["json", "msgpack"]),
    help="Of jobs and results; all of a pool use the same.",
)
@click.option("--lifeline", is_flag=True, hidden=True, help="Stop when standard input closes.")
def worker_command(
    settings: str | None,
    url: str,
    pool: str,
    slots: int | None,
    ttl: float,
    grace: int | None,
    serializer: str,
    lifeline: bool,
) -> None:
    """Run tasks of a pool until stopped; start as many of these as you like, anywhere.

    SETTINGS names the class that `arq` is given, such as app.WorkerSettings: its functions, hooks
    and cron jobs run here as they do there. Its Redis address and queue are not used: --url and
    --pool are. Without SETTINGS the worker makes the cells of runs.
    """
    if lifeline:
        threading.Thread(target=_stop_with_parent, daemon=True).start()
    chosen: dict[str, Any] = {"max_jobs": 32, "job_completion_wait": 10} if not settings else {}
    if slots is not None:
        chosen["max_jobs"] = slots
    if grace is not None:
        chosen["job_completion_wait"] = grace
    if settings is None:
        logging.getLogger("arq").setLevel(logging.CRITICAL)  # it would name every cell
    else:
        chosen = {"job_completion_wait": 10} | _settings_of(settings) | chosen
    run_async(_work(url, pool, ttl, chosen | {"serializer": serializer}))


def _settings_of(name: str) -> dict[str, Any]:
    """Import an arq settings class and return what it sets.

    Raises:
        ConfigurationError: it cannot be imported, or sets what a pool decides.
    """
    sys.path.insert(0, str(Path.cwd()))  # as arq does
    try:
        found = import_string(name)
    except ImportError as error:
        raise ConfigurationError(
            f"SETTINGS {name!r} cannot be imported ({error}); expected a class such as"
            " app.WorkerSettings, from the folder that holds app.py."
        ) from error
    return settings_of(found)


def _cells() -> MakeCellMaker | None:
    """Return what makes the cells of runs, where its extra is installed."""
    if not all(find_spec(name) for name in RUN_EXTRA):
        return None
    from forebay.workers.run_cells import RunCells  # noqa: PLC0415 - an extra

    return partial(RunCells, environ=os.environ)


def _stop_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


async def _work(url: str, pool: str, ttl: float, settings: dict[str, Any]) -> None:
    worker = await open_worker(
        url, pool=pool, member=MemberSettings(ttl_seconds=ttl), cells=_cells(), **settings
    )
    click.echo(f"working for pool {pool} with {worker.max_jobs} slots; stop with Ctrl-C")
    try:
        await worker.async_run()
    except asyncio.CancelledError:
        pass
    finally:
        await worker.close()
        click.echo(_last_words(worker.drained))


def _last_words(drained: Mapping[str, Sequence[str]]) -> str:
    parts = []
    for ended in ("finished", "given_back"):
        ids = drained[ended]
        shown = ", ".join(ids[:MOST_NAMED]) + (", ..." if len(ids) > MOST_NAMED else "")
        parts.append(f"{len(ids)} {ended.replace('_', ' ')}" + (f" ({shown})" if ids else ""))
    return f"stopped; of the tasks that ran then: {', '.join(parts)}"
