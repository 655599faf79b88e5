"""Drives a run from the command line: workers, progress, and kept files at its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from forebay.commands.following import follow, look_once
from forebay.commands.kept import print_kept, worker_command
from forebay.commands.lines import say
from forebay.commands.progress import CooldownNotices, PlainView, RunView
from forebay.commands.report_options import write_report
from forebay.commands.run_report import RunHistory
from forebay.commands.run_scene import SceneReader
from forebay.contracts.errors import (
    ConfigurationError,
    CoordinatorError,
    RunLost,
    RunNotWritten,
    RunRefused,
    RunStopped,
)
from forebay.contracts.runs import RunSpec
from forebay.contracts.settings import MemberSettings
from forebay.contracts.tasks import TaskAdmissionError
from forebay.coordinator.logs import Logger
from forebay.coordinator.runs.plan import CELL_FUNCTION
from forebay.coordinator.runs.refusals import refusals_of
from forebay.coordinator.server.address import EmbeddedAddress
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.supervision import Background, Guard
from forebay.coordinator.tasks.snapshots import count_serving
from forebay.runtime import (
    Stopped,
    run_stoppable,
    server_url,
    start_worker,
    stop_workers,
    stoppable,
)

if TYPE_CHECKING:
    from forebay.workers.runs.driver import RunSummary
    from forebay.workers.runs.files import RunFiles

LOOK_SECONDS: Final = 2.0
"""Interval at which the command checks that the pool has a worker for the run."""
MOST_REASONS: Final = 3

EXIT_NOT_ALL: Final = 3

log = Logger("forebay.driving")


@dataclass(slots=True)
class Begun:
    """The state of a run that this process drives.

    Attributes:
        is_begun: whether the server may have it.
        history: what was seen of it, for its report.
    """

    is_begun: bool
    history: RunHistory = field(default_factory=RunHistory)


def make_view(run: RunSpec) -> RunView:
    """Return the view of a run: drawn with rich in a terminal, else printed lines."""
    is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if is_terminal and find_spec("rich") is not None:
        from forebay.commands.run_live import LiveView

        return LiveView(run)
    return PlainView(run, partial(say, err=True))


def drive(
    run: RunSpec,
    url: str,
    pool: str,
    *,
    workers: int | None,
    overwrites: bool,
    is_begun: bool = False,
    report: Path | None = None,
) -> RunSummary:
    """Drive a run to its end; if it stops before, print the kept files.

    Args:
        run: begun anew, or gone on with where the server has it.
        url: the server; ``embedded://`` is one of the run's own, beside its output.
        pool: the task pool.
        workers: processes to start here; None starts 2 where the server is embedded, else none.
        overwrites: whether an output with more records may be replaced.
        is_begun: whether the server has the run already.
        report: where the report goes; None writes none.

    Raises:
        Stopped: a signal came.
        ForebayError: as `RunDriver.drive`, and where every worker that was started has ended.
    """
    from forebay.workers.runs.allowlist import options_for
    from forebay.workers.runs.files import RunFiles

    is_embedded = isinstance(parse_url(url), EmbeddedAddress)
    files = RunFiles(Path(run.workflow.output.path), run.run_id)
    made = [folder for folder in files.parts.parents if not folder.exists()]
    files.begin()
    if workers is None:
        workers = 2 if is_embedded else 0
    options = ("--pool", pool, *options_for(run.workflow))
    begun = Begun(is_begun)
    with (
        _kept_unless_over(run, url, pool, files, made, begun),
        stoppable(),
        server_url(url, files.server) as at,
    ):
        started: list[subprocess.Popen[bytes]] = []
        try:
            started += [start_worker(at, *options) for _ in range(workers)]
            summary = run_stoppable(
                _drive_while_worked(at, pool, run, started, begun, overwrites=overwrites)
            )
        finally:
            stop_workers(started)
    if report is not None:
        write_report(begun.history, report, summary)
    return summary


def conclude(summary: RunSummary) -> None:
    """Print how a run ended; exit with a failure code if it was not complete."""
    say(
        f"{summary.written} of {summary.records} records written to {summary.output},"
        f" {summary.dropped} dropped"
        + (f" (why: {summary.dropped_file})" if summary.dropped_file else "")
    )
    reasons = list(summary.reasons.items())
    for reason, count in reasons[:MOST_REASONS]:
        say(f"  {count} x {reason}")
    if len(reasons) > MOST_REASONS:
        say(f"  and {len(reasons) - MOST_REASONS} more reasons")
    if summary.kept_output is not None:
        say(
            f"{summary.kept_output} holds more records of an earlier run and was left as it is;"
            " --overwrite replaces it.",
            err=True,
        )
    if summary.dropped or summary.kept_output is not None:
        sys.exit(EXIT_NOT_ALL)


@contextlib.contextmanager
def _kept_unless_over(
    run: RunSpec, url: str, pool: str, files: RunFiles, made: list[Path], begun: Begun
) -> Iterator[None]:
    """Print how to resume an unfinished run; after a finished one remove its own server.

    Of a run that had not begun nothing is left, the folders ``made`` for its output neither.
    """
    was_begun = begun.is_begun
    try:
        yield
    except (TaskAdmissionError, RunRefused, RunLost):  # nothing goes on
        _remove_unused(files, made)
        raise
    except ConfigurationError:  # it was not submitted here; an earlier driver may have done so
        if not was_begun:
            _remove_unused(files, made)
        raise
    except (Stopped, RunStopped, RunNotWritten, CoordinatorError) as error:
        why = "an error, which follows"
        if isinstance(error, Stopped):
            why = error.signal.name
        if begun.is_begun:
            how = "stopped itself" if isinstance(error, RunStopped) else f"stopped by {why}"
            print_kept(run, url, pool, files, how, begun.history.last)
        else:
            _remove_unused(files, made)
            if isinstance(error, Stopped):
                say(f"run {run.run_id} had not begun, stopped by {why}; nothing is kept", err=True)
        raise
    else:
        shutil.rmtree(files.server, ignore_errors=True)


def _remove_unused(files: RunFiles, made: list[Path]) -> None:
    """Remove a run's own server, and the empty folders made for its output."""
    files.discard_if_empty()
    shutil.rmtree(files.server, ignore_errors=True)
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()


async def _drive_while_worked(
    url: str,
    pool: str,
    run: RunSpec,
    workers: list[subprocess.Popen[bytes]],
    begun: Begun,
    *,
    overwrites: bool,
) -> RunSummary:
    """Drive the run, unless every worker that was started for it has ended."""
    driving = asyncio.create_task(
        _drive(url, pool, run, begun, overwrites=overwrites, expects_workers=not workers)
    )
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


async def _drive(
    url: str,
    pool: str,
    run: RunSpec,
    begun: Begun,
    *,
    overwrites: bool,
    expects_workers: bool,
) -> RunSummary:
    from forebay.workers.runs.driver import RunDriver

    async with await ServerConnection.open(url, MemberSettings()) as connection:
        workflow = run.workflow
        say(f"run {run.run_id}: {workflow.record_count} records, {len(workflow.columns)} columns")
        notices, view = CooldownNotices(), make_view(run)
        reader, note = SceneReader(connection, run, pool), begun.history.note
        driver = RunDriver(
            connection,
            run,
            pool=pool,
            on_progress=notices.show,
            overwrites=overwrites,
            before_end=partial(look_once, reader, note),
        )
        showing = Background(
            "showing the run",
            partial(follow, reader, view, note=note, until_over=False),
            Guard(log),
        )
        looking = Background(
            "looking for workers",
            partial(_look_for_workers, connection, url, pool, run),
            Guard(log),
        )
        if expects_workers:
            looking.start()
        begun.is_begun = True  # it is submitted, or about to be
        showing.start()
        try:
            return await driver.drive()
        finally:
            await looking.stop()
            await showing.stop()
            view.close()


async def _look_for_workers(
    connection: ServerConnection, url: str, pool: str, run: RunSpec
) -> None:
    """Print when the pool has no worker for the run, and when one has joined again."""
    are_missing, told = False, ""
    while True:
        with contextlib.suppress(CoordinatorError):  # the driver says what is wrong with the server
            serving = await count_serving(connection, pool, CELL_FUNCTION)
            if not serving and not are_missing:
                say(f"pool {pool} has no worker, for which the run waits; start one:", err=True)
                say(f"  {worker_command(url, pool, run)}", err=True)
            elif serving and are_missing:
                say(f"pool {pool} has a worker; the run goes on", err=True)
            are_missing = not serving
            refusals = await refusals_of(connection, pool, run.run_id)
            if serving and len(refusals) >= serving and refusals[0] != told:
                told = refusals[0]
                say(f"no worker of pool {pool} goes on with the run: {told}", err=True)
        await asyncio.sleep(LOOK_SECONDS)
