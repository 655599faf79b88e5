"""arq functions on a worker in this process, and what a pool must hold when they are through."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from arq.jobs import Job
from arq.worker import func

from forebay.contracts.identity import TaskGroupKey, TaskGroupKind, TaskGroupSpec
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.snapshots import audit_pool
from forebay.workers.arq.open_worker import open_worker
from forebay.workers.arq.worker import ForebayWorker
from tests.support import wait_until

GROUP = TaskGroupSpec(key=TaskGroupKey(kind=TaskGroupKind.LOCAL, identity=("tests",)))
PATIENCE_SECONDS = 10.0
"""Far above what anything here takes, far below a test's end: only a hang is that long."""


class Gate:
    """A job that runs until it is let go.

    Attributes:
        inside: ids of the jobs that have begun, in order.
        cancelled: ids of those that were cancelled.
        open: set by the test to let them end.
    """

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.cancelled: list[str] = []
        self.open = asyncio.Event()

    async def gated(self, ctx: dict[str, Any]) -> str:
        """Wait at the gate."""
        self.inside.append(ctx["job_id"])
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(ctx["job_id"])
            raise
        return "let go"


def named(*functions: Any) -> tuple[Any, ...]:
    """Return functions of a test under their short names; what has a name already keeps it."""
    return tuple(
        func(function, name=function.__name__) if callable(function) else function
        for function in functions
    )


@contextlib.asynccontextmanager
async def working(
    url: str,
    *functions: Callable[..., Coroutine[Any, Any, Any]] | Any,
    member: MemberSettings | None = None,
    **settings: Any,
) -> AsyncIterator[ForebayWorker]:
    """Run a worker for the length of the block; an error that ends it is raised at its end."""
    worker = await open_worker(
        url,
        member=member,
        functions=named(*functions),
        handle_signals=False,
        **{"poll_delay": 0.02, **settings},
    )
    run = asyncio.create_task(worker.async_run())
    try:
        await wait_until(lambda: worker.scheduler._puller is not None or run.done())
        yield worker
    finally:
        await worker.close()
        with contextlib.suppress(asyncio.CancelledError):
            await run


async def result_of(job: Job) -> Any:
    """Wait for a job's result; its failure is raised."""
    return await job.result(timeout=PATIENCE_SECONDS, poll_delay=0.01)


async def check_books(url: str, pool: str = "default") -> None:
    """Check that the pool's books agree, and that each payload has a task that needs it."""
    async with await ServerConnection.open(url) as connection:
        report = await audit_pool(connection, pool)
        assert report.ok, report.differences
    with open_sync(parse_url(url)) as client:
        queued = {name.decode() for name in client.zrange(pool_shard(pool)["queue"], 0, -1)}
        payloads = {key.decode()[len("arq:job:") :] for key in client.scan_iter("arq:job:*")}
        assert payloads <= queued
        assert not client.exists("arq:abort")
