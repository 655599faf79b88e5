"""`forebay worker`: a process that runs tasks under leases."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from forebay.commands.lines import say
from forebay.commands.server_option import url_option
from forebay.commands.watching import work_and_watch
from forebay.commands.worker_settings import allowlist_of, imported, settings_named
from forebay.contracts.errors import CoordinatorError
from forebay.contracts.extras import require_extra
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.logs import Logger
from forebay.logs import LEVELS, log_by_dictionary, log_to_standard_library, log_to_stderr
from forebay.runtime import new_runner, run_async, stoppable
from forebay.workers.arq.contained_jobs import run_to_end
from forebay.workers.arq.health import HealthKeys, read_health
from forebay.workers.arq.open_worker import open_worker
from forebay.workers.arq.settings import address_of, pool_of
from forebay.workers.arq.worker import ForebayWorker

log = Logger("forebay.worker")

MOST_NAMED: Final = 20


@click.command("worker")
@click.argument("settings", required=False, metavar="[SETTINGS]")
@url_option("Server: redis://, rediss:// or unix://.  [default: redis_settings of SETTINGS]")
@click.option("--pool", help="Task pool to work for.  [default: default]")
@click.option(
    "--slots",
    type=click.IntRange(1),
    help="Tasks at once.  [default: max_jobs of SETTINGS, else 32]",
)
@click.option("--ttl", default=15.0, show_default=True, help="Membership TTL in seconds.")
@click.option(
    "--grace",
    type=click.IntRange(0),
    help="Seconds in which tasks may end on SIGTERM; the others return to the queue."
    "  [default: job_completion_wait of SETTINGS, else 10]",
)
@click.option(
    "--serializer",
    default="json",
    show_default=True,
    type=click.Choice(["json", "msgpack"]),
    help="Of jobs and results; all of a pool use the same.",
)
@click.option(
    "--burst/--no-burst",
    default=None,
    help="Stop once no job is left in the pool.  [default: burst of SETTINGS]",
)
@click.option(
    "--check",
    is_flag=True,
    help="Say whether a worker has recorded its health, and exit: 0 if so, else 1.",
)
@click.option(
    "--watch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder at whose changes the worker is started anew.",
)
@click.option("--watched", is_flag=True, hidden=True, help="This is the worker of --watch.")
@click.option(
    "--log-level",
    type=click.Choice([*LEVELS]),
    help="Least level that is logged.  [default: info with SETTINGS, else warning]",
)
@click.option("-v", "--verbose", is_flag=True, help="As --log-level debug.")
@click.option(
    "--custom-log-dict",
    metavar="NAME",
    help="Dictionary to import for logging.config.dictConfig, such as app.LOGGING.",
)
@click.option(
    "--allow-env",
    multiple=True,
    metavar="NAME[=HOST]",
    help="Variable that workflows may send as a key to HOST[:PORT], or to every allowed host.",
)
@click.option(
    "--allow-path",
    multiple=True,
    type=click.Path(),
    help="Folder or file that workflows may read as a seed.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Provider that workflows may call; without a port, any port of it.",
)
@click.option(
    "--allow-code",
    multiple=True,
    metavar="MODULE",
    help="Module, package or plugin whose functions workflows may run.",
)
@click.option("--lifeline", is_flag=True, hidden=True, help="Stop when standard input closes.")
@click.pass_obj
def worker_command(
    debug: bool | None,
    *,
    settings: str | None,
    url: str | None,
    pool: str | None,
    watch: Path | None,
    watched: bool,
    check: bool,
    log_level: str | None,
    verbose: bool,
    custom_log_dict: str | None,
    ttl: float,
    serializer: str,
    slots: int | None,
    grace: int | None,
    burst: bool | None,
    allow_env: tuple[str, ...],
    allow_path: tuple[str, ...],
    allow_host: tuple[str, ...],
    allow_code: tuple[str, ...],
    lifeline: bool,
) -> None:
    """Run tasks of a pool until stopped; start as many of these as you like, anywhere.

    SETTINGS names the class that `arq` is given, such as app.WorkerSettings: its functions, hooks
    and cron jobs run here as they do there, and are logged as there. --url (or
    FOREBAY_URL) stands for its redis_settings, --pool for its queue_name. Without SETTINGS the
    worker makes the cells of runs.

    A workflow may use the variables, files and hosts that the options --allow-... name, each as
    often as you like, and the hosts of this process's FOREBAY_PROVIDER_<NAME>_BASE_URL; a run that
    asks for others is refused before anything of it runs.
    """
    if settings is None and url is None:
        raise click.UsageError(
            "Missing option '--url' (env var: 'FOREBAY_URL'), or SETTINGS whose redis_settings"
            " say it."
        )
    if custom_log_dict is not None and (verbose or log_level is not None):
        raise click.UsageError("--custom-log-dict says levels itself; leave out the other option.")
    if watch is not None and not watched and not check:
        require_extra("watch", "--watch")
        run_async(work_and_watch(watch))
        return
    if lifeline:
        threading.Thread(target=_stop_with_parent, daemon=True).start()
    least = log_level or ("debug" if debug or verbose else "info" if settings else "warning")
    if custom_log_dict is None:
        log_to_stderr(least)
    else:
        log_to_standard_library()
    # Before SETTINGS: what the current folder holds is nobody's extra.
    allowed = None if check else allowlist_of(allow_env, allow_path, allow_host, allow_code)
    if settings is None and not check:
        require_extra("run", "forebay worker without SETTINGS")
    chosen = {"max_jobs": 32} if settings is None else settings_named(settings)
    if custom_log_dict is not None:
        log_by_dictionary(imported("--custom-log-dict", custom_log_dict, "a dict"))
    if check:
        _check_health(url, pool, chosen)
        return
    said = {"max_jobs": slots, "job_completion_wait": 0 if watched else grace, "burst": burst}
    chosen = {"job_completion_wait": 10, **chosen}
    chosen |= {name: value for name, value in said.items() if value is not None}
    chosen |= {"serializer": serializer, "allowed": allowed}
    _run(url, pool, ttl, chosen)


def _run(url: str | None, pool: str | None, ttl: float, settings: dict[str, Any]) -> None:
    """Run a worker to its end, even if a job stops its event loop."""
    begun: list[ForebayWorker] = []
    with stoppable(), new_runner() as runner:
        loop = runner.get_loop()
        work = loop.create_task(_work(begun, url, pool, ttl, settings))
        # Before it has begun, a signal ends it here; from then on arq's signal handlers do.
        run_to_end(loop, work, goes_on=lambda: bool(begun))


def _check_health(url: str | None, pool: str | None, settings: Mapping[str, Any]) -> None:
    """Print the health record of the workers that these options start.

    Raises:
        CoordinatorError: there is none, or the server cannot be used.
    """
    name = pool_of(pool, settings)
    key = HealthKeys.of(name, settings).own
    found = run_async(read_health(address_of(url, settings), key))
    if found is None:
        raise CoordinatorError(
            f"no worker of pool {name} has a health record under {key}, expected one that is at"
            " most health_check_interval old; start a worker, or check with its options and"
            " SETTINGS."
        )
    click.echo(f"healthy: {found}")


def _stop_with_parent() -> None:
    """Stop when the pipe from the parent closes, as the worker would outlive the parent."""
    try:
        os.read(sys.stdin.fileno(), 1)
    except Exception as error:  # noqa: BLE001 - a standard input that is closed, or none
        log.unexpected("lifeline_unreadable", error)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


async def _work(
    begun: list[ForebayWorker],
    url: str | None,
    pool: str | None,
    ttl: float,
    settings: dict[str, Any],
) -> None:
    worker = await open_worker(url, pool=pool, member=MemberSettings(ttl_seconds=ttl), **settings)
    begun.append(worker)
    click.echo(
        f"working for pool {worker.pool_name} with {worker.max_jobs} slots; stop with Ctrl-C"
    )
    try:
        await worker.async_run()
    except asyncio.CancelledError:
        if not worker.is_stopping:
            worker.note_cut_off()
            raise CoordinatorError(
                "the worker's loop was cancelled, expected it to run until it is told to stop; see"
                " the log for what cancelled it, and start it again."
            ) from None
    finally:
        await worker.close()
        say(_last_words(worker.drained))


def _last_words(drained: Mapping[str, Sequence[str]]) -> str:
    parts = []
    for ended in ("finished", "given_back"):
        ids = drained[ended]
        shown = ", ".join(ids[:MOST_NAMED]) + (", ..." if len(ids) > MOST_NAMED else "")
        parts.append(f"{len(ids)} {ended.replace('_', ' ')}" + (f" ({shown})" if ids else ""))
    return f"stopped; of the tasks that ran then: {', '.join(parts)}"
