"""saq on Redis, which stores a job with its result."""

from __future__ import annotations

import importlib
from typing import Any

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


class Saq:
    """saq with its queue in Redis."""

    name = "saq"
    said = "saq"

    def version(self) -> str | None:
        return installed_version("saq")

    @staticmethod
    def _queue(url: str) -> Any:
        return importlib.import_module("saq.queue.redis").RedisQueue.from_url(url)

    async def submitter(self, url: str) -> Submitter:
        queue = self._queue(url)
        await queue.connect()
        return PythonSubmitter(lambda _number: queue.enqueue("noop"), queue.disconnect)

    async def start(self, url: str) -> Running:
        queue = self._queue(url)
        await queue.connect()
        worker = importlib.import_module("saq").Worker(
            queue, functions=[("noop", noop)], concurrency=CONCURRENCY
        )
        return PythonWorker(worker.start(), end=worker.stop, close=queue.disconnect)

    def results(self, client: Any) -> int:
        # a job and its result are one key: it is over when its queue says so
        jobs = count_keys(client, "saq:job:*")
        return jobs - int(client.zcard("saq:default:incomplete") or 0)
