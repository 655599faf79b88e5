"""An arq application as tests run it in processes of its own; it notes what its jobs do."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, ClassVar

from arq.worker import Retry

from forebay.coordinator.keys import pool_shard

EVENTS = pool_shard("default")["events"]


async def note(ctx: dict[str, Any], kind: str) -> None:
    """Write into the pool's stream, so that it stands in one order with the pool's own events."""
    membership = ctx["forebay_worker"].tasks_admission.session.membership
    fields = {"kind": kind, "task_id": ctx["job_id"], "member_id": membership.member_id}
    await ctx["redis"].xadd(EVENTS, fields)


async def gated(ctx: dict[str, Any], gate: str) -> int:
    """Wait for a gate to open; the result tells which process it was."""
    await note(ctx, "job_began")
    while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240 - another process opens it
        await asyncio.sleep(0.005)
    await note(ctx, "job_ended")
    return os.getpid()


async def fail(ctx: dict[str, Any]) -> None:
    """Fail."""
    await note(ctx, "job_began")
    raise ValueError("no")


async def again(ctx: dict[str, Any], delays: list[float]) -> int:
    """Be tried again after each delay."""
    await note(ctx, "job_began")
    if ctx["job_try"] <= len(delays):
        raise Retry(defer=delays[ctx["job_try"] - 1])
    return int(ctx["job_try"])


async def block(ctx: dict[str, Any], seconds: float) -> int:
    """Keep the whole event loop from turning."""
    await note(ctx, "job_began")
    time.sleep(seconds)  # noqa: ASYNC251 - that is the point
    return os.getpid()


async def linger(ctx: dict[str, Any]) -> int:
    """End, and then keep the last hook from ending."""
    await note(ctx, "job_began")
    return os.getpid()


async def after_job_end(ctx: dict[str, Any]) -> None:
    """Stay after a job that lingers; its result is there by now."""
    if ctx["job_id"] == "lingering":
        await note(ctx, "job_in_last_hook")
        await asyncio.Event().wait()


class WorkerSettings:
    """The settings of ``forebay worker tests.arq_app.WorkerSettings``."""

    functions: ClassVar = (gated, fail, again, block, linger)
    after_job_end = after_job_end
    allow_abort_jobs = True
    poll_delay = 0.05
