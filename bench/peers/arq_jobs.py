"""arq as it is, its poll delay set as low as its users do."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from arq.connections import ArqRedis
from arq.worker import Worker, func
from redis.asyncio import ConnectionPool

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

POLL_SECONDS: Final = 0.01


class Arq:
    """arq, which stores results."""

    name = "arq"
    said = "arq (poll 10 ms)"

    def version(self) -> str | None:
        return installed_version("arq")

    async def submitter(self, url: str) -> Submitter:
        pool = ArqRedis(ConnectionPool.from_url(url))
        close = partial(pool.aclose, close_connection_pool=True)
        return PythonSubmitter(lambda _number: pool.enqueue_job("noop"), close)

    async def start(self, url: str) -> Running:
        pool = ArqRedis(ConnectionPool.from_url(url))
        worker = Worker(
            functions=(func(noop, name="noop"),),
            redis_pool=pool,
            max_jobs=CONCURRENCY,
            poll_delay=POLL_SECONDS,
            handle_signals=False,
        )
        return PythonWorker(worker.async_run(), end=worker.close)

    def results(self, client: Any) -> int:
        return count_keys(client, "arq:result:*")
