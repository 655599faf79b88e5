"""taskiq-redis on a list: as it comes it stores no result at all."""

from __future__ import annotations

import importlib
from typing import Any, Final

from bench.peers.job_library import (
    CONCURRENCY,
    PythonSubmitter,
    PythonWorker,
    Running,
    Submitter,
    count_keys,
    noop,
)
from bench.peers.limiter import installed_version

RESULTS: Final = "bench-result"


class Taskiq:
    """taskiq with a list in Redis.

    Args:
        stores_results: whether with its result backend besides.
    """

    def __init__(self, *, stores_results: bool) -> None:
        self.name = "taskiq_results" if stores_results else "taskiq"
        self.said = f"taskiq-redis (stores {'results' if stores_results else 'no result'})"
        self._stores_results = stores_results

    def version(self) -> str | None:
        return installed_version("taskiq-redis")

    async def _broker(self, url: str) -> Any:
        package = importlib.import_module("taskiq_redis")
        broker = package.ListQueueBroker(url)
        if self._stores_results:
            backend = package.RedisAsyncResultBackend(url, result_ex_time=3600, prefix_str=RESULTS)
            broker = broker.with_result_backend(backend)
        broker.register_task(noop, task_name="noop")
        await broker.startup()
        return broker

    async def submitter(self, url: str) -> Submitter:
        broker = await self._broker(url)
        task = broker.find_task("noop")
        return PythonSubmitter(lambda _number: task.kiq(), broker.shutdown)

    async def start(self, url: str) -> Running:
        broker = await self._broker(url)
        run_receiver_task = importlib.import_module("taskiq.api").run_receiver_task
        return PythonWorker(
            run_receiver_task(broker, max_async_tasks=CONCURRENCY), close=broker.shutdown
        )

    def results(self, client: Any) -> int | None:
        return count_keys(client, f"{RESULTS}:*") if self._stores_results else None
