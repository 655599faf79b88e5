"""Counters and hooks of a worker, however it ends, beside those of arq's own (docs/arq.md).

Each story is told twice: by a plain ``arq.Worker`` on arq's queue and by a worker of a pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from arq.connections import ArqRedis
from arq.worker import Retry, Worker

from forebay.contracts.errors import CoordinatorUnavailable
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.workers.arq.open_worker import open_worker
from forebay.workers.arq.pool import create_pool
from tests.support import wait_until
from tests.support_arq import PATIENCE_SECONDS, named

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated close")  # arq's own
HOOKS = ("on_startup", "on_job_start", "on_job_end", "after_job_end", "on_shutdown")
SETTINGS = {"poll_delay": 0.02, "handle_signals": False, "allow_abort_jobs": True, "max_tries": 3}


@dataclass(repr=False)
class Story:
    """What happens to a worker, and what its hooks and counters say of it.

    Attributes:
        jobs: where it enqueues.
        entries: hooks and jobs that ran, with the job's id and try.
        open: lets gated jobs end.
        broken: a hook that raises.
    """

    jobs: ArqRedis
    entries: list[tuple[Any, ...]] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    broken: str = ""
    worker: Worker = field(init=False)

    def hook(self, name):
        async def hook(ctx):
            self.note(name, ctx)
            if name == self.broken and ctx.get("job_id") in {None, "one"}:
                raise RuntimeError("broken hook")

        return hook

    def note(self, name, ctx):
        self.entries.append((name, ctx.get("job_id"), ctx.get("job_try")))

    async def gated(self, ctx):
        self.note("job", ctx)
        await self.open.wait()

    async def quick(self, ctx):
        self.note("job", ctx)

    async def fail(self, ctx):
        self.note("job", ctx)
        raise ValueError("no")

    async def again(self, ctx):
        self.note("job", ctx)
        if ctx["job_try"] < 3:
            raise Retry(0.01)

    async def never(self, ctx):
        self.note("job", ctx)
        raise Retry

    @property
    def settings(self):
        functions = named(self.gated, self.quick, self.fail, self.again, self.never)
        return {"functions": functions, **{name: self.hook(name) for name in HOOKS}}

    def count(self, name):
        return sum(entry[0] == name for entry in self.entries)

    async def until(self, name, count=1):
        await wait_until(lambda: self.count(name) >= count, timeout=PATIENCE_SECONDS)

    async def until_ended(self):
        """Wait until the worker's loop has ended, as a signal or a hook makes it."""
        await asyncio.wait({self.worker.main_task}, timeout=PATIENCE_SECONDS)
        assert self.worker.main_task.done()

    @property
    def outcome(self):
        counters = (self.worker.jobs_complete, self.worker.jobs_failed, self.worker.jobs_retried)
        return Counter(self.entries), counters


async def tell(story, plot, worker):
    """Run a worker while a plot lasts, and close it; errors of hooks are expected of some."""
    story.worker = worker
    run = asyncio.create_task(worker.async_run())
    await plot(story)
    if worker._handle_signals and not worker.burst and not worker.main_task.done():
        worker.handle_sig(signal.SIGTERM)
    if worker._handle_signals:
        await asyncio.wait({run}, timeout=PATIENCE_SECONDS)
    closing = asyncio.create_task(worker.close())
    await asyncio.sleep(0)  # it has begun to close before what still runs may end
    story.open.set()
    with contextlib.suppress(RuntimeError):
        await closing
    with contextlib.suppress(asyncio.CancelledError, RuntimeError):
        await run
    return story.outcome


def empty(redis_url):
    """Forget what arq's worker left."""
    with open_sync(parse_url(redis_url)) as client:
        client.flushall()


async def outcome_in_arq(redis_url, plot, *, broken="", **settings):
    redis = ArqRedis(unix_socket_path=parse_url(redis_url).path)
    story = Story(redis, broken=broken)
    worker = Worker(redis_pool=redis, **SETTINGS | story.settings | settings)
    worker._handle_signals = settings.get("handle_signals") is not False
    return await tell(story, plot, worker)


async def outcome_on_a_pool(redis_url, plot, *, broken="", **settings):
    async with await create_pool(redis_url) as jobs:
        story = Story(jobs, broken=broken)
        worker = await open_worker(redis_url, **SETTINGS | story.settings | settings)
        worker._handle_signals = settings.get("handle_signals") is not False
        return await tell(story, plot, worker)


# -- what happens


async def all_kinds_of_jobs(story):
    for name in ("quick", "fail", "again", "never"):
        await story.jobs.enqueue_job(name, _job_id=name)
    await wait_until(
        lambda: story.worker.jobs_complete == 2 and story.worker.jobs_failed == 2,
        timeout=PATIENCE_SECONDS,
    )
    await story.until("after_job_end", 8)


async def a_signal(story):
    await story.jobs.enqueue_job("quick", _job_id="two")
    await story.until("after_job_end")
    await story.jobs.enqueue_job("gated", _job_id="one")
    await story.until("job", 2)
    story.worker.handle_sig(signal.SIGTERM)
    await story.until_ended()


async def a_signal_and_a_job_that_ends_in_time(story):
    await story.jobs.enqueue_job("gated", _job_id="one")
    await story.until("job")
    story.worker.handle_sig_wait_for_completion(signal.SIGINT)
    story.open.set()
    await story.until_ended()


async def a_signal_and_a_job_that_does_not_end_in_time(story):
    await story.jobs.enqueue_job("gated", _job_id="one")
    await story.until("job")
    story.worker.handle_sig_wait_for_completion(signal.SIGINT)
    await story.until_ended()


async def it_is_closed(story):
    await story.jobs.enqueue_job("gated", _job_id="one")
    await story.until("job")


async def an_abort(story):
    job = await story.jobs.enqueue_job("gated", _job_id="one")
    await story.until("job")
    assert await job.abort(timeout=PATIENCE_SECONDS, poll_delay=0.01) is True
    await story.until("after_job_end")


async def an_abort_before_the_start(story):
    job = await story.jobs.enqueue_job("gated", _job_id="one", _defer_by=3600)
    assert await job.abort(timeout=PATIENCE_SECONDS, poll_delay=0.01) is True
    # arq counts a job before it writes its end, and a signal meanwhile would cut that off
    await wait_until(lambda: story.worker.jobs_failed == 1 and not story.worker.tasks)


async def one_quick_job(story):
    await story.jobs.enqueue_job("quick", _job_id="one")
    await story.until_ended()


async def a_broken_hook_beside_a_job_that_ends_in_time(story):
    await story.jobs.enqueue_job("gated", _job_id="two")
    await story.until("job")
    await story.jobs.enqueue_job("quick", _job_id="one")
    await story.until_ended()


STORIES = [
    pytest.param(a_signal, {}, id="signal"),
    pytest.param(
        a_signal_and_a_job_that_ends_in_time, {"job_completion_wait": 60}, id="signal, in time"
    ),
    pytest.param(
        a_signal_and_a_job_that_does_not_end_in_time,
        {"job_completion_wait": 0.05},
        id="signal, too late",
    ),
    pytest.param(
        a_signal_and_a_job_that_does_not_end_in_time,
        {"job_completion_wait": 0.05, "retry_jobs": False},
        id="signal, no retries",
    ),
    pytest.param(it_is_closed, {"handle_signals": False}, id="closed"),
    pytest.param(an_abort, {}, id="abort"),
    pytest.param(an_abort_before_the_start, {}, id="abort before the start"),
    *(
        pytest.param(one_quick_job, {"broken": name}, id=f"broken {name}")
        for name in ("on_startup", "on_job_start", "on_job_end", "after_job_end")
    ),
    *(
        pytest.param(
            a_broken_hook_beside_a_job_that_ends_in_time,
            {"broken": name, "job_completion_wait": 60},
            id=f"broken {name} beside another job",
        )
        for name in ("on_job_start", "on_job_end", "after_job_end")
    ),
]


@pytest.mark.parametrize(("plot", "settings"), STORIES)
async def test_hooks_and_counters_are_those_of_arq_however_a_worker_ends(redis_url, plot, settings):
    expected = await outcome_in_arq(redis_url, plot, **settings)
    empty(redis_url)
    assert await outcome_on_a_pool(redis_url, plot, **settings) == expected
    assert expected[0]["on_shutdown", None, None] == 1


async def fill(jobs):
    for name in ("quick", "fail", "again", "never"):
        await jobs.enqueue_job(name, _job_id=name)


async def nothing(story):
    """Let a burst worker end by itself."""


@pytest.mark.parametrize("broken", ["", "after_job_end"])
async def test_hooks_and_counters_of_a_burst_are_those_of_arq(redis_url, broken):
    async with (
        ArqRedis(unix_socket_path=parse_url(redis_url).path) as redis,
        await create_pool(redis_url) as jobs,
    ):
        await fill(redis)
        expected = await outcome_in_arq(redis_url, nothing, burst=True, broken=broken)
        empty(redis_url)
        await fill(jobs)
        assert await outcome_on_a_pool(redis_url, nothing, burst=True, broken=broken) == expected
    assert expected[1] == (2, 2, 5)


async def test_a_worker_that_is_closed_twice_shuts_down_once(redis_url):
    async with await create_pool(redis_url) as jobs:
        story = Story(jobs)
        worker = await open_worker(redis_url, **SETTINGS | story.settings)
        await tell(story, it_is_closed, worker)
        await worker.close()
    assert story.count("on_shutdown") == 1


@pytest.mark.parametrize("error", [RuntimeError("no"), OSError("no")], ids=repr)
async def test_what_the_last_hook_raises_is_told_and_the_worker_has_left(redis_url, error):
    async def on_shutdown(ctx):
        raise error

    async with await create_pool(redis_url) as jobs:
        settings = {**SETTINGS, **Story(jobs).settings, "on_shutdown": on_shutdown}
        worker = await open_worker(redis_url, **settings)
        run = asyncio.create_task(worker.async_run())
        await wait_until(lambda: worker.scheduler._puller is not None)
        with pytest.raises(type(error), match="no"):
            await worker.close()
        with contextlib.suppress(asyncio.CancelledError):
            await run
        assert await jobs.hlen(worker.tasks_admission.keys["functions"]) == 0


@pytest.mark.parametrize("name", ["on_job_start", "on_job_end", "after_job_end"])
@pytest.mark.parametrize(
    "error",
    [ConnectionRefusedError, redis.ConnectionError, redis.ResponseError, CoordinatorUnavailable],
)
async def test_a_hook_that_raises_what_a_lost_connection_raises_ends_its_worker(
    redis_url, name, error
):
    async def broken(ctx):
        raise error("the program's own server")

    async with await create_pool(redis_url) as jobs:
        settings = {**SETTINGS, **Story(jobs).settings, name: broken}
        worker = await open_worker(redis_url, **settings)
        run = asyncio.create_task(worker.async_run())
        await jobs.enqueue_job("quick", _job_id="one")
        with pytest.raises(error, match="the program's own server"):
            await asyncio.wait_for(run, PATIENCE_SECONDS)
        await worker.close()


async def test_a_job_that_hangs_in_a_hook_is_given_back_beside_another_broken_one(redis_url):
    inside = asyncio.Event()

    async def on_job_start(ctx):
        if ctx["job_id"] == "one":
            raise RuntimeError("broken hook")
        inside.set()
        await asyncio.Event().wait()

    async with await create_pool(redis_url) as jobs:
        settings = {**SETTINGS, **Story(jobs).settings, "on_job_start": on_job_start}
        worker = await open_worker(redis_url, **settings, job_completion_wait=0.05)
        worker._handle_signals = True
        run = asyncio.create_task(worker.async_run())
        await jobs.enqueue_job("quick", _job_id="two")
        await inside.wait()
        await jobs.enqueue_job("quick", _job_id="one")
        with pytest.raises(RuntimeError, match="broken hook"):
            await asyncio.wait_for(run, PATIENCE_SECONDS)
        await asyncio.wait_for(worker.close(), PATIENCE_SECONDS)
        assert worker.drained["given_back"] == ["two"]
