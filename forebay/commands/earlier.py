"""Earlier runs of an output: refused, resumed or given up, as the options say."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from forebay.commands.kept import resume_command, url_of
from forebay.commands.lines import say
from forebay.commands.runs import (
    cancel_if_unattended,
    is_on_server,
    refuse_if_attended,
    unattended,
)
from forebay.contracts.errors import ConfigurationError, CoordinatorError
from forebay.coordinator.runs.looking import RunLook
from forebay.coordinator.server.address import EmbeddedAddress
from forebay.coordinator.server.embedded_files import url_of_server_on
from forebay.coordinator.server.urls import parse_url
from forebay.runtime import DEFAULT_URL, run_async, server_url
from forebay.workers.runs.files import RunFiles
from forebay.workers.runs.tables import count_rows, is_table


def without_leftovers(output: Path, unfinished: list[str], url: str, pool: str) -> list[str]:
    """Delete the folders of runs that ended, or never began, as their driver was killed.

    Args:
        output: the file of the records.
        unfinished: ids of runs that have left a folder beside it.
        url: the server as the user said it.
        pool: the task pool.

    Returns:
        The other runs: those that their server has, and those whose parts the output lacks.

    Raises:
        ConfigurationError: a process drives one, here or elsewhere.
        CoordinatorError: the server cannot be used.
    """
    left = []
    for run_id in unfinished:
        files = RunFiles(output, run_id)
        own = files.server.exists()
        _refuse_if_attended(url_of(DEFAULT_URL if own else url, files), pool, run_id)
        if files.has_unassembled() or _is_there(
            url_of(DEFAULT_URL if own else url, files), pool, run_id
        ):
            left.append(run_id)
            continue
        _delete_folders(files)
    return left


def _is_there(url: str, pool: str, run_id: str) -> bool:
    with server_url(url) as server:
        return run_async(is_on_server(server, pool, run_id))


def _refuse_if_attended(where: str, pool: str, run_id: str) -> None:
    """Raise if a process drives a run; do nothing where its server cannot be asked.

    A private server is not started for it: a process that drives the run has it running.
    """
    address = parse_url(where)
    server: str | None = where
    if isinstance(address, EmbeddedAddress):
        server = url_of_server_on(address.data_dir) if address.data_dir else None
    if server is not None:
        with contextlib.suppress(CoordinatorError):  # of which the next call of it tells
            run_async(refuse_if_attended(server, pool, run_id))


def _delete_folders(files: RunFiles) -> None:
    for folder in (files.parts, files.server):
        shutil.rmtree(folder, ignore_errors=True)


def refuse_what_is_there(output: Path, unfinished: list[str], url: str, pool: str) -> None:
    """Raise if an earlier run or its records are at the output; the error names the options.

    Args:
        output: the file of the records.
        unfinished: ids of runs that have left something beside it.
        url: the server as the user said it.
        pool: the task pool.

    Raises:
        ConfigurationError: a run of this output is not over, or the output has records.
    """
    for run_id in unfinished:
        files = RunFiles(output, run_id)
        written, dropped = files.count()
        kept = " ".join(str(path) for path in (files.parts, files.server) if path.exists())
        say(f"run {run_id} of this output is not over:", err=True)
        say(f"  there:   {written} records written, {dropped} dropped", err=True)
        say(f"  kept:    {kept}", err=True)
        say(f"  go on:   {resume_command(run_id, url, pool, files)}", err=True)
    if unfinished:
        raise ConfigurationError(
            f"{output} has {len(unfinished)} run{'s' if len(unfinished) > 1 else ''} that did not"
            " come to an end, expected none; say --resume to go on and pay for no finished cell"
            " twice, or --fresh to delete what is kept and begin anew."
        )
    if records := records_of(output):
        raise ConfigurationError(
            f"{output} holds {records} records of an earlier run, expected no output yet; say"
            " --fresh to make them anew, or name another output.path."
        )


def records_of(output: Path) -> int:
    """Return how many records a file holds; 0 where there is none."""
    if not output.is_file():
        return 0
    if is_table(output):
        return count_rows(output) or 0
    with output.open("rb") as stream:
        return sum(1 for _ in stream)


def begun_run(output: Path, unfinished: list[str], url: str, pool: str) -> tuple[RunLook, str]:
    """Return the one run that an output has begun, with its server.

    Raises:
        ConfigurationError: there are several, another process drives it, or its server does not
            have it.
        CoordinatorError: the server cannot be used.
    """
    if len(unfinished) > 1:
        raise ConfigurationError(
            f"{output} has {len(unfinished)} runs that are not over: {', '.join(unfinished)};"
            " expected one; name it: forebay resume RUN."
        )
    where = url_of(url, RunFiles(output, unfinished[0]))
    with server_url(where) as server:
        return run_async(unattended(server, pool, unfinished[0])), where


def give_up(output: Path, unfinished: list[str], url: str, pool: str) -> None:
    """Cancel the runs of an output without a driver, and delete their folders and records.

    Raises:
        ConfigurationError: a process drives one; nothing of that one is deleted.
        CoordinatorError: the server cannot be used.
    """
    for run_id in unfinished:
        files = RunFiles(output, run_id)
        with server_url(url_of(url, files)) as server:
            run_async(cancel_if_unattended(server, pool, run_id))
        _delete_folders(files)
        say(f"run {run_id} is given up, and what it kept is deleted", err=True)
