"""The folders that an unfinished run keeps, and the commands that resume or cancel it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from forebay.commands.lines import say
from forebay.contracts.runs import RunSpec
from forebay.coordinator.server.address import EmbeddedAddress
from forebay.runtime import DEFAULT_URL

if TYPE_CHECKING:
    from forebay.commands.run_scene import RunScene
    from forebay.workers.runs.files import RunFiles


def print_kept(
    run: RunSpec, url: str, pool: str, files: RunFiles, why: str, scene: RunScene | None = None
) -> None:
    """Print the kept parts of a run, their places, and the commands to resume or cancel it.

    Args:
        run: which has begun.
        url: the server as the user said it.
        pool: the task pool.
        files: of the run.
        why: the reason for the stop, as the rest of a sentence.
        scene: the run when it was last looked at, if it was.
    """
    written, dropped = files.count()
    if not written + dropped:
        files.discard_if_empty()
    records = run.workflow.record_count
    say(
        f"run {run.run_id} is not over, {why}: {written} of {records} records written,"
        f" {dropped} dropped.",
        err=True,
    )
    done = 0 if scene is None else scene.look.done - written
    if done > 0:  # a row group is written when all its records are done
        say(f"  kept:    {done} more records done, on its server until they are written", err=True)
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
    return f"forebay resume {_options(run_id, url_of(url, files), pool)}"


def url_of(url: str, files: RunFiles) -> str:
    """Return the URL of a run's server, which may be a private one beside the output."""
    return str(EmbeddedAddress(data_dir=files.server.absolute())) if url == DEFAULT_URL else url


def worker_command(url: str, pool: str, run: RunSpec) -> str:
    """Return the command that starts a worker with exactly the rights that a run needs."""
    from forebay.workers.runs.allowlist import options_for

    words = ["forebay", "worker", "--pool", pool, "--url", _shown(url), *options_for(run.workflow)]
    return shlex.join(words)


def _shown(url: str) -> str:
    return "..." if "@" in url else url  # it may hold a password


def _options(run_id: str, url: str, pool: str) -> str:
    words = [run_id, "--url", _shown(url)]
    return shlex.join(words if pool == "default" else [*words, "--pool", pool])
