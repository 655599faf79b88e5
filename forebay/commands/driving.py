"""Driving a run from the command line: its workers, its progress, and what is kept at its end."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from forebay.commands.lines import say
from forebay.contracts.errors import (
    ConfigurationError,
    CoordinatorError,
    RunStopped,
    TaskAdmissionError,
)
from forebay.contracts.runs import RunProgress, RunSpec
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.address import EmbeddedAddress, parse_url
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.logs import Logger
from forebay.coordinator.runs.plan import CELL_FUNCTION
from forebay.coordinator.supervision import Background, Guard
from forebay.coordinator.tasks.snapshots import count_serving
from forebay.runtime import (
    DEFAULT_URL,
    Stopped,
    run_stoppable,
    server_url,
    start_worker,
    stop_workers,
    stoppable,
)

if TYPE_CHECKING:
    from forebay.workers.run_driver import RunSummary
    from forebay.workers.run_files import RunFiles

LOOK_SECONDS: Final = 2.0
"""Between two looks whether the pool has a worker for the run."""
TOLD_EVERY: Final = 10
"""Of the cooldowns in a row of a resource, which are told beside the progress."""
MOST_REASONS: Final = 3

EXIT_NOT_ALL: Final = 3

log = Logger("forebay.driving")


def drive(
    run: RunSpec,
    url: str,
    pool: str,
    *,
    workers: int | None,
    overwrites: bool,
    is_begun: bool = False,
) -> RunSummary:
    """Drive a run to its end; say what is kept where it does not come to one.

    Args:
        run: begun anew, or gone on with where the server has it.
        url: the server; ``embedded://`` is one of the run's own, beside its output.
        pool: the task pool.
        workers: processes to start here; None starts 2 where the server is embedded, else none.
        overwrites: whether an output with more records may be replaced.
        is_begun: whether the server has the run already.

    Raises:
        Stopped: a signal came.
        ForebayError: as `RunDriver.drive`, and where every worker that was started has ended.
    """
    from forebay.workers.allowlist import options_for
    from forebay.workers.run_files import RunFiles

    is_embedded = isinstance(parse_url(url), EmbeddedAddress)
    files = RunFiles(Path(run.workflow.output.path), run.run_id)
    files.begin()
    if workers is None:
        workers = 2 if is_embedded else 0
    options = ("--pool", pool, *options_for(run.workflow))
    progress = _Progress(run.workflow.seed.records, is_begun=is_begun)
    with (
        _kept_unless_over(run, url, pool, files, progress),
        stoppable(),
        server_url(url, files.server) as at,
    ):
        started: list[subprocess.Popen[bytes]] = []
        try:
            started += [start_worker(at, *options) for _ in range(workers)]
            return run_stoppable(
                _drive_while_worked(at, pool, run, started, progress, overwrites=overwrites)
            )
        finally:
            stop_workers(started)


def conclude(summary: RunSummary) -> None:
    """Say how a run ended, and end this process where it is not as it was asked."""
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
    run: RunSpec, url: str, pool: str, files: RunFiles, progress: _Progress
) -> Iterator[None]:
    """Say how to go on where the run is not over; else remove the server that was its own."""
    try:
        yield
    except (ConfigurationError, TaskAdmissionError, RunStopped):
        shutil.rmtree(files.server, ignore_errors=True)
        raise
    except (Stopped, CoordinatorError) as error:
        why = "an error, which follows"
        if isinstance(error, Stopped):
            why = error.signal.name
        if progress.is_begun:
            _say_kept(run, url, pool, files, f"stopped by {why}")
        else:
            files.discard_if_empty()
            shutil.rmtree(files.server, ignore_errors=True)
            say(f"run {run.run_id} had not begun, stopped by {why}; nothing is kept", err=True)
        raise
    else:
        shutil.rmtree(files.server, ignore_errors=True)


def _say_kept(run: RunSpec, url: str, pool: str, files: RunFiles, why: str) -> None:
    written, dropped = files.count()
    if not written + dropped:
        files.discard_if_empty()
    records = run.workflow.seed.records
    say(
        f"run {run.run_id} is not over, {why}: {written} of {records} records written,"
        f" {dropped} dropped.",
        err=True,
    )
    if written + dropped:
        say(f"  kept:    {files.parts}", err=True)
    is_own = url == DEFAULT_URL
    if is_own and not files.server.exists():
        return
    say(
        f"  kept:    {files.server if is_own else f'the run in pool {pool} of its server'}",
        err=True,
    )
    say(f"  go on:   {resume_command(run.run_id, url, pool, files)}", err=True)
    if is_own:
        there = [str(path) for path in (files.parts, files.server) if path.exists()]
        given_up = shlex.join(["rm", "-r", *there])
    else:
        given_up = f"forebay cancel {_options(run.run_id, url, pool)}"
    say(f"  give up: {given_up}", err=True)


def resume_command(run_id: str, url: str, pool: str, files: RunFiles) -> str:
    """Return the command that goes on with a run."""
    if url == DEFAULT_URL:
        url = str(EmbeddedAddress(data_dir=files.server.absolute()))
    return f"forebay resume {_options(run_id, url, pool)}"


def _options(run_id: str, url: str, pool: str) -> str:
    shown = "..." if "@" in url else url  # it may hold a password
    words = [run_id, "--url", shown]
    return shlex.join(words if pool == "default" else [*words, "--pool", pool])


async def _drive_while_worked(
    url: str,
    pool: str,
    run: RunSpec,
    workers: list[subprocess.Popen[bytes]],
    progress: _Progress,
    *,
    overwrites: bool,
) -> RunSummary:
    """Drive the run, unless every worker that was started for it has ended."""
    driving = asyncio.create_task(
        _drive(url, pool, run, progress, overwrites=overwrites, expects_workers=not workers)
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
    progress: _Progress,
    *,
    overwrites: bool,
    expects_workers: bool,
) -> RunSummary:
    from forebay.workers.run_driver import RunDriver

    async with await Coordinator.open(url, MemberSettings()) as coordinator:
        workflow = run.workflow
        say(f"run {run.run_id}: {workflow.seed.records} records, {len(workflow.columns)} columns")
        driver = RunDriver(
            coordinator, run, pool=pool, on_progress=progress.show, overwrites=overwrites
        )
        looking = Background(
            "looking for workers", partial(_look_for_workers, coordinator, pool), Guard(log)
        )
        if expects_workers:
            looking.start()
        progress.is_begun = True  # it is submitted, or about to be
        try:
            return await driver.drive()
        finally:
            await looking.stop()


async def _look_for_workers(coordinator: Coordinator, pool: str) -> None:
    """Say when the pool has no worker for which the run could wait, and when one is there again."""
    are_missing = False
    while True:
        with contextlib.suppress(CoordinatorError):  # the driver says what is wrong with the server
            serving = await count_serving(coordinator, pool, CELL_FUNCTION)
            if not serving and not are_missing:
                say(f"pool {pool} has no worker, for which the run waits; start one:", err=True)
                say(f"  forebay worker --pool {shlex.quote(pool)} --url ...", err=True)
            elif serving and are_missing:
                say(f"pool {pool} has a worker; the run goes on", err=True)
            are_missing = not serving
        await asyncio.sleep(LOOK_SECONDS)


class _Progress:
    """One line per look, at most one a second; plain, as it may go to a file.

    Attributes:
        is_begun: whether the server may have the run.
    """

    def __init__(self, records: int, *, is_begun: bool) -> None:
        self.is_begun = is_begun
        self._records = records
        self._started = time.monotonic()
        self._shown = -1.0
        self._told: dict[str, int] = {}

    def show(self, progress: RunProgress) -> None:
        self._tell_cooldowns(progress)
        now = time.monotonic() - self._started
        if now - self._shown < 1.0:
            return
        self._shown = now
        done = progress.records_done + progress.records_dropped
        rate = done / now if now > 0 else 0.0
        left = f"{(self._records - done) / rate:.0f} s left" if rate > 0 else "no record yet"
        waits = "".join(f"  waits for {one.resource}" for one in progress.cooling)
        say(
            f"  {now:5.0f} s  {done}/{self._records} records {rate:6.1f}/s  {left}"
            f"  open row groups {progress.row_groups_open}{waits}",
            err=True,
        )

    def _tell_cooldowns(self, progress: RunProgress) -> None:
        for one in progress.cooling:
            if one.times % TOLD_EVERY == 0 and self._told.get(one.resource) != one.times:
                self._told[one.resource] = one.times
                say(
                    f"{one.resource} took no call in {one.times} cooldowns in a row; its cells wait"
                    " and no record is dropped for it",
                    err=True,
                )
