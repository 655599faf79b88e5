"""`forebay worker`: a process that runs tasks under leases."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from arq.utils import import_string

from forebay.contracts.errors import ConfigurationError, CoordinatorError
from forebay.contracts.extras import missing_modules, require_extra
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.logs import Logger
from forebay.runtime import run_async
from forebay.workers.arq_settings import settings_of
from forebay.workers.arq_worker import open_worker

if TYPE_CHECKING:
    from forebay.workers.allowlist import Allowlist  # with an extra

log = Logger("forebay.worker")

MOST_NAMED: Final = 20


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
@click.option("--lifeline", is_flag=True, hidden=True, help="Stop when standard input closes.")
def worker_command(
    settings: str | None,
    url: str,
    pool: str,
    slots: int | None,
    ttl: float,
    grace: int | None,
    serializer: str,
    allow_env: tuple[str, ...],
    allow_path: tuple[str, ...],
    allow_host: tuple[str, ...],
    lifeline: bool,
) -> None:
    """Run tasks of a pool until stopped; start as many of these as you like, anywhere.

    SETTINGS names the class that `arq` is given, such as app.WorkerSettings: its functions, hooks
    and cron jobs run here as they do there. Its Redis address and queue are not used: --url and
    --pool are. Without SETTINGS the worker makes the cells of runs.

    A workflow may use the variables, files and hosts that the options --allow-... name, each as
    often as you like, and the hosts of this process's FOREBAY_PROVIDER_<NAME>_BASE_URL; a run that
    asks for others is refused before anything of it runs.
    """
    if lifeline:
        threading.Thread(target=_stop_with_parent, daemon=True).start()
    chosen: dict[str, Any] = {"max_jobs": 32, "job_completion_wait": 10} if not settings else {}
    if slots is not None:
        chosen["max_jobs"] = slots
    if grace is not None:
        chosen["job_completion_wait"] = grace
    # Before SETTINGS: what the current folder holds is nobody's extra.
    allowed = _allowed(allow_env, allow_path, allow_host)
    if settings is None:
        require_extra("run", "forebay worker without SETTINGS")
        logging.getLogger("arq").setLevel(logging.CRITICAL)  # it would name every cell
    else:
        chosen = {"job_completion_wait": 10} | _settings_of(settings) | chosen
    run_async(_work(url, pool, ttl, chosen | {"serializer": serializer, "allowed": allowed}))


def _settings_of(name: str) -> dict[str, Any]:
    """Import an arq settings class and return what it sets.

    Raises:
        ConfigurationError: it cannot be imported, or sets what a pool decides.
    """
    try:
        # At the end, as arq does: modules of the user's are found, and hide no installed package.
        sys.path.append(str(Path.cwd()))
        found = import_string(name)
    except Exception as error:  # the module's own code may raise anything
        why = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise ConfigurationError(
            f"SETTINGS {name!r} cannot be imported ({why}); expected a class such as"
            " app.WorkerSettings, from the folder that holds app.py."
        ) from error
    if not isinstance(found, dict) and not hasattr(found, "__dict__"):  # what arq takes
        raise ConfigurationError(
            f"SETTINGS {name!r} is of type {type(found).__name__}, expected a class such as arq is"
            " given; name the class."
        )
    return settings_of(found)


def _allowed(env: Sequence[str], paths: Sequence[str], hosts: Sequence[str]) -> Allowlist | None:
    """Return what workflows may use here; None where no cells can be made, for want of the extra.

    Raises:
        ConfigurationError: an option is of another form, or there is one and no extra.
    """
    if env or paths or hosts:
        require_extra("run", "--allow-..., which is for the cells of runs,")
    elif missing_modules("run"):
        return None
    from forebay.workers.allowlist import Allowlist

    allowed = Allowlist.of(env=env, paths=paths, hosts=hosts, environ=os.environ)
    for name, bound in allowed.variables.items():
        if bound is None and len(allowed.hosts) > 1:
            log.warning(
                "variable_for_every_host",
                variable=name,
                hosts=sorted(map(str, allowed.hosts)),
                remedy=f"--allow-env {name}=HOST ties it to the host that it is for",
            )
    return allowed


def _stop_with_parent() -> None:
    """Stop when the pipe closes, or cannot be read: nobody would stop this worker then."""
    try:
        os.read(sys.stdin.fileno(), 1)
    except Exception as error:  # noqa: BLE001 - a standard input that is closed, or none
        log.unexpected("lifeline_unreadable", error)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


async def _work(url: str, pool: str, ttl: float, settings: dict[str, Any]) -> None:
    worker = await open_worker(url, pool=pool, member=MemberSettings(ttl_seconds=ttl), **settings)
    click.echo(f"working for pool {pool} with {worker.max_jobs} slots; stop with Ctrl-C")
    try:
        await worker.async_run()
    except asyncio.CancelledError:
        if not worker.is_stopping:
            raise CoordinatorError(
                "the worker's loop was cancelled, expected it to run until it is told to stop; see"
                " the log for what cancelled it, and start it again."
            ) from None
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
