"""The arq application of `tests.chaos`: jobs that write into a file when they begin and end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar, Final

JOB_FILE: Final = "FOREBAY_CHAOS_JOBS"
"""Environment variable: the file, of which each line is ``[instant, "begin"|"end", job, pid]``."""


def _note(word: str, job_id: str) -> None:
    line = json.dumps([time.monotonic(), word, job_id, os.getpid()]) + "\n"
    with Path(os.environ[JOB_FILE]).open("a") as file:  # short enough to be written at once
        file.write(line)


async def innocent(ctx: dict[str, Any], seconds: float) -> int:
    """Do nothing for a while."""
    _note("begin", ctx["job_id"])
    await asyncio.sleep(seconds)
    _note("end", ctx["job_id"])
    return os.getpid()


async def blocker(ctx: dict[str, Any], seconds: float) -> int:
    """Block the event loop of the worker for a while."""
    _note("begin", ctx["job_id"])
    time.sleep(seconds)  # noqa: ASYNC251 - this is the fault
    _note("end", ctx["job_id"])
    return os.getpid()


async def pill(_ctx: dict[str, Any], how: str) -> None:
    """End this process."""
    if how == "exit":
        os._exit(0)
    if how == "raise":
        raise SystemExit(0)
    os.kill(os.getpid(), signal.SIGSEGV)
    await asyncio.sleep(60)


class WorkerSettings:
    """What ``forebay worker tests.chaos.app.WorkerSettings`` runs."""

    functions: ClassVar = (innocent, blocker, pill)
    max_jobs = 10
    keep_result = 3600
