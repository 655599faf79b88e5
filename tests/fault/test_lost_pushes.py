"""A task whose notice is lost on the way runs all the same, exactly once.

Rules: design 04, *Losses*, ADR 0010.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from arq.worker import func

from forebay.coordinator.keys import pool_shard
from forebay.coordinator.scripts.records import RECORD, parsed
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.snapshots import audit_pool
from forebay.workers.arq.pool import JobPool, create_pool
from forebay.workers.arq.worker import ForebayWorker
from tests.support import wait_until
from tests.support_proxy import FaultyProxy
from tests.support_scene import PATIENCE_SECONDS, settings, soon

# arq closes its pool by a name that redis-py has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")

KEYS = pool_shard("default")
LONG = "long" * 20_000
"""More than travels with a notice: the worker reads it from the job's key."""


class Scene:
    """A worker behind a proxy, and a program on a good line that gives it jobs.

    Attributes:
        calls: what the worker's function was called with, in order.
    """

    def __init__(self, proxy: FaultyProxy, observer: ServerConnection, jobs: JobPool) -> None:
        self.proxy = proxy
        self.observer = observer
        self.jobs = jobs
        self.calls: list[str] = []

    async def note(self, _ctx: dict[str, Any], word: str) -> str:
        self.calls.append(word)
        return word

    async def submit(self, word: str) -> Any:
        """Submit a job once the worker is idle."""

        async def is_idle() -> bool:
            return bool(await self.observer.client.zcount(KEYS["idle"], 1, "+inf"))

        await wait_until(is_idle)
        return await self.jobs.enqueue_job("note", word)

    async def leases_granted(self) -> int:
        text = await self.observer.client.hget(KEYS["meta"], RECORD)
        return int(parsed(text, "tasks").get("admissions", 0))


@contextlib.asynccontextmanager
async def working(connection: ServerConnection, scene: Scene) -> AsyncIterator[None]:
    """Run the scene's worker."""
    worker = ForebayWorker(
        connection,
        functions=[func(scene.note, name="note")],
        handle_signals=False,
        poll_delay=0.02,
    )
    run = asyncio.create_task(worker.async_run())
    try:
        yield
    finally:
        await worker.close()
        with contextlib.suppress(asyncio.CancelledError):
            await run


@pytest.fixture
async def scene(redis_url: str) -> AsyncIterator[Scene]:
    async with contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultyProxy(redis_url))
        observer = await stack.enter_async_context(await ServerConnection.open(redis_url))
        jobs = await stack.enter_async_context(await create_pool(redis_url))
        scene = Scene(proxy, observer, jobs)
        behind = await ServerConnection.open(proxy.url, settings())
        await stack.enter_async_context(working(behind, scene))
        yield scene
        assert (await audit_pool(observer, "default")).ok


async def result(job: Any) -> str:
    return str(await job.result(timeout=PATIENCE_SECONDS, poll_delay=0.01))


@pytest.mark.parametrize("word", ["short", LONG], ids=["with its payload", "without"])
async def test_task_whose_notice_is_lost_runs_exactly_once(scene: Scene, word: str) -> None:
    loss = scene.proxy.lose_message('"task"')
    job = await scene.submit(word)
    await soon(loss.happened.wait())

    assert await result(job) == word
    assert (scene.calls, await scene.leases_granted()) == ([word], 1)
    assert await result(await scene.submit(word)) == word
    assert (scene.calls, await scene.leases_granted()) == ([word, word], 2)


async def test_each_of_several_lost_notices_is_made_good(scene: Scene) -> None:
    losses = [scene.proxy.lose_message('"task"') for _ in range(3)]
    jobs = [await scene.submit(word) for word in ("a", "b", "c")]

    assert [await result(job) for job in jobs] == ["a", "b", "c"]
    assert sorted(scene.calls) == ["a", "b", "c"]
    assert (losses[0].happened.is_set(), await scene.leases_granted()) == (True, 3)
