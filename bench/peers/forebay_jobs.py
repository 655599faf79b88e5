"""Forebay's arq workers: ten groups, leases, results as JSON."""

from __future__ import annotations

from typing import Any, Final

from arq.worker import func

from bench.peers.job_library import (
    CONCURRENCY,
    PythonSubmitter,
    PythonWorker,
    Running,
    Submitter,
    count_keys,
    noop,
)
from forebay.contracts.identity import SUBMISSION, TaskGroupKey, TaskGroupKind, TaskGroupSpec
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.workers.arq.open_worker import open_worker
from forebay.workers.arq.pool_redis import ForebayArqRedis

GROUPS: Final = tuple(
    TaskGroupSpec(key=TaskGroupKey(kind=TaskGroupKind.LOCAL, identity=(f"bench-{n}",)))
    for n in range(10)
)


class ForebayJobs:
    """The checked out commit."""

    name = "forebay"
    said = "Forebay"

    def version(self) -> str:
        return ""

    async def submitter(self, url: str) -> Submitter:
        connection = await ServerConnection.open(url)
        controller = TaskAdmissionController(connection)
        await controller.set_limit(SUBMISSION, 10_000)
        pool = ForebayArqRedis(controller, connection)

        async def submit(number: int) -> None:
            await pool.enqueue_job("noop", _group=GROUPS[number % len(GROUPS)])

        async def close() -> None:
            await controller.close()
            await connection.close()

        return PythonSubmitter(submit, close)

    async def start(self, url: str) -> Running:
        worker = await open_worker(
            url, functions=(func(noop, name="noop"),), max_jobs=CONCURRENCY, handle_signals=False
        )
        return PythonWorker(worker.async_run(), end=worker.close)

    def results(self, client: Any) -> int:
        return count_keys(client, "arq:result:*")
