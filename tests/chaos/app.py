"""The arq application of `tests.chaos`: jobs that note themselves, and pills that end a process."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any, ClassVar, Final

RUNNING: Final = "chaos:running"
"""Hash: job -> process that runs it."""
STARTS: Final = "chaos:starts"
"""Hash: job -> how often it was begun."""
TWICE: Final = "chaos:twice"
"""List: jobs that were begun while they ran in a process that lived."""


def _is_alive(pid: int) -> bool:
    """Whether a process lives; one that was killed and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return False
    return state not in {"Z", "X"}


async def innocent(ctx: dict[str, Any], seconds: float) -> int:
    """Do nothing for a while; note the job as running, and as run twice at once if it is."""
    job_id, client = ctx["job_id"], ctx["redis"]
    before = await client.hget(RUNNING, job_id)
    if before is not None and _is_alive(int(before)):
        await client.rpush(TWICE, job_id)
    await client.hset(RUNNING, job_id, os.getpid())
    await client.hincrby(STARTS, job_id, 1)
    try:
        await asyncio.sleep(seconds)
    finally:
        await client.hdel(RUNNING, job_id)
    return os.getpid()


async def pill(ctx: dict[str, Any], how: str) -> None:
    """End this process."""
    await ctx["redis"].hincrby(STARTS, ctx["job_id"], 1)
    if how == "exit":
        os._exit(0)
    if how == "raise":
        raise SystemExit(0)
    os.kill(os.getpid(), signal.SIGSEGV)
    await asyncio.sleep(60)


class WorkerSettings:
    """What ``forebay worker tests.chaos.app.WorkerSettings`` runs."""

    functions: ClassVar = (innocent, pill)
    max_jobs = 10
    keep_result = 3600
