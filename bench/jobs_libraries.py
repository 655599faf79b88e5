"""The job libraries side by side: each submits and runs no-op jobs by its own means."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from importlib.util import find_spec
from typing import Any, Final, Protocol

from arq.connections import ArqRedis
from arq.worker import Worker, func
from redis.asyncio import ConnectionPool

from forebay.contracts.identity import SUBMISSION, TaskGroupKey, TaskGroupKind, TaskGroupSpec
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.workers.arq.open_worker import open_worker
from forebay.workers.arq.pool_redis import ForebayArqRedis

CONCURRENCY: Final = 50
ARQ_POLL_SECONDS: Final = 0.01
FOREBAY_GROUPS: Final = tuple(
    TaskGroupSpec(key=TaskGroupKey(kind=TaskGroupKind.LOCAL, identity=(f"bench-{n}",)))
    for n in range(10)
)

started_at: list[float] = []
"""When each job of this process started, by CLOCK_MONOTONIC: all that a job does."""


async def noop(*_args: Any, **_kwargs: Any) -> None:
    """Note the instant."""
    started_at.append(time.monotonic())


class Submitter(Protocol):
    """Submits jobs."""

    async def submit(self, number: int) -> None:
        """Submit one job; return when the server has it."""

    async def close(self) -> None:
        """Close the connections."""


class Running(Protocol):
    """A worker that runs."""

    async def stop(self) -> None:
        """End it in good order and close its connections."""


class Library(Protocol):
    """What is compared.

    Attributes:
        name: of the measures.
        result_keys: glob of the keys that hold results, one a job; None where it stores none.
    """

    name: str
    result_keys: str | None

    async def submitter(self, url: str) -> Submitter:
        """Connect."""

    async def start(self, url: str) -> Running:
        """Start a worker."""


class _Submitter:
    """A submitter of two functions."""

    def __init__(
        self, submit: Callable[[int], Awaitable[Any]], close: Callable[[], Awaitable[Any]]
    ) -> None:
        self._submit = submit
        self._close = close

    async def submit(self, number: int) -> None:
        await self._submit(number)

    async def close(self) -> None:
        await self._close()


class _Worker:
    """A worker that runs in a task, which ``end`` brings to its end."""

    def __init__(
        self,
        run: Coroutine[Any, Any, Any],
        *,
        end: Callable[[], Awaitable[Any]] | None = None,
        close: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        self._task = asyncio.create_task(run)
        self._end = end
        self._close = close

    async def stop(self) -> None:
        if self._end is None:
            self._task.cancel()
        else:
            await self._end()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._close is not None:
            await self._close()


class Forebay:
    """Ten groups, leases, results as JSON."""

    name = "forebay"
    result_keys: str | None = "arq:result:*"

    async def submitter(self, url: str) -> Submitter:
        coordinator = await Coordinator.open(url)
        controller = TaskAdmissionController(coordinator)
        await controller.set_limit(SUBMISSION, 10_000)
        pool = ForebayArqRedis(controller, coordinator.client.connection_pool)

        async def submit(number: int) -> None:
            await pool.enqueue_job("noop", _group=FOREBAY_GROUPS[number % len(FOREBAY_GROUPS)])

        async def close() -> None:
            await controller.close()
            await coordinator.close()

        return _Submitter(submit, close)

    async def start(self, url: str) -> Running:
        worker = await open_worker(
            url, functions=(func(noop, name="noop"),), max_jobs=CONCURRENCY, handle_signals=False
        )
        return _Worker(worker.async_run(), end=worker.close)


class Arq:
    """arq as it is, its poll delay set as low as its users do."""

    name = "arq"
    result_keys: str | None = "arq:result:*"

    async def submitter(self, url: str) -> Submitter:
        pool = ArqRedis(ConnectionPool.from_url(url))
        return _Submitter(lambda _number: pool.enqueue_job("noop"), pool.aclose)

    async def start(self, url: str) -> Running:
        pool = ArqRedis(ConnectionPool.from_url(url))
        worker = Worker(
            functions=(func(noop, name="noop"),),
            redis_pool=pool,
            max_jobs=CONCURRENCY,
            poll_delay=ARQ_POLL_SECONDS,
            handle_signals=False,
        )
        return _Worker(worker.async_run(), end=worker.close)


class Saq:
    """saq on Redis, which stores the job with its result."""

    name = "saq"
    result_keys: str | None = "saq:job:*"

    @staticmethod
    def _queue(url: str) -> Any:
        return importlib.import_module("saq.queue.redis").RedisQueue.from_url(url)

    async def submitter(self, url: str) -> Submitter:
        queue = self._queue(url)
        await queue.connect()
        return _Submitter(lambda _number: queue.enqueue("noop"), queue.disconnect)

    async def start(self, url: str) -> Running:
        queue = self._queue(url)
        await queue.connect()
        worker = importlib.import_module("saq").Worker(
            queue, functions=[("noop", noop)], concurrency=CONCURRENCY
        )
        return _Worker(worker.start(), end=worker.stop, close=queue.disconnect)


class Taskiq:
    """taskiq-redis on a list: as it comes it stores no result at all.

    Args:
        stores_results: whether with its result backend besides.
    """

    def __init__(self, *, stores_results: bool) -> None:
        self.name = "taskiq_results" if stores_results else "taskiq"
        self.result_keys: str | None = "bench-result:*" if stores_results else None

    async def _broker(self, url: str) -> Any:
        redis_package = importlib.import_module("taskiq_redis")
        broker = redis_package.ListQueueBroker(url)
        if self.result_keys is not None:
            backend = redis_package.RedisAsyncResultBackend(
                url, result_ex_time=3600, prefix_str="bench-result"
            )
            broker = broker.with_result_backend(backend)
        broker.register_task(noop, task_name="noop")
        await broker.startup()
        return broker

    async def submitter(self, url: str) -> Submitter:
        broker = await self._broker(url)
        task = broker.find_task("noop")
        return _Submitter(lambda _number: task.kiq(), broker.shutdown)

    async def start(self, url: str) -> Running:
        broker = await self._broker(url)
        run_receiver_task = importlib.import_module("taskiq.api").run_receiver_task
        return _Worker(
            run_receiver_task(broker, max_async_tasks=CONCURRENCY), close=broker.shutdown
        )


def libraries() -> dict[str, Library]:
    """Return the libraries that are installed, by name."""
    found: list[Library] = [Forebay(), Arq()]
    if find_spec("saq"):
        found.append(Saq())
    if find_spec("taskiq_redis"):
        found += [Taskiq(stores_results=False), Taskiq(stores_results=True)]
    return {library.name: library for library in found}
