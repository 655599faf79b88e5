"""Hooks of an arq worker on a pool: order, context, and what becomes of jobs where one fails."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest

from forebay.workers.arq.pool_redis import ForebayArqRedis
from tests.support import wait_until
from tests.support_arq import Gate, result_of, working

HOOKS = ("on_startup", "on_job_start", "on_job_end", "after_job_end", "on_shutdown")


class Diary:
    """Hooks and a job that write down when they run and with which context."""

    def __init__(self, jobs):
        self.jobs = jobs
        self.entries = []
        self.contexts = {}

    def hooks(self):
        return {name: self.hook(name) for name in HOOKS}

    def hook(self, name):
        async def hook(ctx):
            await self.note(name, ctx)

        return hook

    async def note(self, name, ctx):
        has_result = await self.jobs.exists("arq:result:one") == 1
        self.entries.append((name, has_result))
        self.contexts[name] = dict(ctx)

    async def job(self, ctx):
        await self.note("job", ctx)
        return ctx["opened"]


async def test_hooks_run_in_order_around_the_worker_and_each_job(redis_url, jobs):
    diary = Diary(jobs)
    async with working(redis_url, diary.job, ctx={"opened": "by ctx"}, **diary.hooks()):
        assert await result_of(await jobs.enqueue_job("job", _job_id="one")) == "by ctx"
        await wait_until(lambda: "after_job_end" in dict(diary.entries))
    assert diary.entries == [
        ("on_startup", False),
        ("on_job_start", False),
        ("job", False),
        ("on_job_end", False),
        ("after_job_end", True),
        ("on_shutdown", True),
    ]


async def test_hooks_of_a_job_run_at_each_try_and_after_a_failure(redis_url, jobs):
    entries = []

    def hook(name):
        async def hook(ctx):
            entries.append((ctx["job_try"], name))

        return hook

    async def fail(ctx):
        entries.append((ctx["job_try"], "job"))
        raise asyncio.CancelledError if ctx["job_try"] == 1 else ValueError("no")

    of_a_try = ["on_job_start", "on_job_end", "after_job_end"]
    hooks = {name: hook(name) for name in of_a_try}
    async with working(redis_url, fail, **hooks) as worker:
        await jobs.enqueue_job("fail")
        await wait_until(lambda: worker.jobs_failed == 1 and not worker.scheduler.running)
    of_a_try.insert(1, "job")
    for job_try in (1, 2):
        assert [name for number, name in entries if number == job_try] == of_a_try


async def test_each_hook_finds_what_arq_promises_in_its_context(redis_url, jobs):
    diary = Diary(jobs)

    async def on_startup(ctx):
        ctx["opened"] = "at startup"
        await diary.note("on_startup", ctx)

    async def on_job_start(ctx):
        ctx["begun_at"] = time.monotonic()
        await diary.note("on_job_start", ctx)

    hooks = diary.hooks() | {"on_startup": on_startup, "on_job_start": on_job_start}
    job = await jobs.enqueue_job("job", _job_id="one")
    score = (await job.info()).score
    async with working(redis_url, diary.job, **hooks) as worker:
        assert await result_of(job) == "at startup"
        await wait_until(lambda: "after_job_end" in diary.contexts)
        enqueued = (await job.result_info()).enqueue_time
    for ctx in diary.contexts.values():
        assert isinstance(ctx["redis"], ForebayArqRedis)
        assert ctx["redis"] is diary.contexts["job"]["redis"]
        assert ctx["forebay"] is worker.request_admission
        assert ctx["opened"] == "at startup"
    for name in ("on_job_start", "job", "on_job_end", "after_job_end"):
        ctx = diary.contexts[name]
        assert (ctx["job_id"], ctx["job_try"], ctx["enqueue_time"]) == ("one", 1, enqueued)
        assert ctx["score"] == score
        assert ctx["begun_at"] == diary.contexts["job"]["begun_at"]
    assert abs((datetime.now(UTC) - enqueued).total_seconds()) < 60
    assert "begun_at" not in diary.contexts["on_shutdown"]
    assert "job_id" not in diary.contexts["on_shutdown"]


@pytest.mark.parametrize("name", ["on_job_start", "on_job_end", "after_job_end"])
async def test_a_hook_that_fails_ends_its_worker_and_gives_its_job_back(redis_url, jobs, name):
    ended = []

    async def job(ctx):
        return ctx["job_try"]

    async def broken(ctx):
        raise RuntimeError("broken hook")

    async def on_shutdown(ctx):
        ended.append("shutdown")

    async def run():
        hooks = {name: broken, "on_shutdown": on_shutdown}
        async with working(redis_url, job, **hooks) as worker:
            await jobs.enqueue_job("job", _job_id="one")
            await wait_until(worker.main_task.done)

    with pytest.raises(RuntimeError, match="broken hook"):
        await run()
    assert ended == ["shutdown"]
    if name == "after_job_end":
        assert (await jobs.all_job_results())[0].result == 1
        return
    assert await jobs.keys("arq:result:*") == []
    assert (await jobs.tasks.queue.view()).queued_total == 1
    async with working(redis_url, job):
        await wait_until(lambda: jobs.exists("arq:result:one"))
    assert (await jobs.all_job_results())[0].result == 2  # it did cost a try


@pytest.mark.parametrize("name", ["on_job_start", "on_job_end"])
async def test_a_worker_closed_while_a_hook_of_a_job_waits_gives_the_job_back_and_shuts_down(
    redis_url, jobs, name
):
    gate, ended = Gate(), []

    async def job(ctx):
        return ctx["job_try"]

    async def on_shutdown(ctx):
        ended.append("shutdown")

    hooks = {name: gate.gated, "on_shutdown": on_shutdown}
    async with working(redis_url, job, **hooks) as worker:
        await jobs.enqueue_job("job", _job_id="one")
        await wait_until(lambda: gate.inside)
    assert ended == ["shutdown"]
    assert gate.cancelled == ["one"]
    assert worker.drained == {"finished": [], "given_back": ["one"]}
    async with working(redis_url, job):
        await wait_until(lambda: jobs.exists("arq:result:one"))
    assert (await jobs.all_job_results())[0].result == 1  # an orderly stop costs no try


async def test_jobs_begin_after_the_startup_hook(redis_url, jobs):
    gate = Gate()
    begun = []

    async def job(ctx):
        begun.append(gate.open.is_set())

    async def on_startup(ctx):
        await gate.gated({"job_id": "startup"})

    await jobs.enqueue_job("job", _job_id="one")

    async def let_go():
        await wait_until(lambda: gate.inside)
        assert not any((await jobs.tasks.view()).leased.values())
        gate.open.set()

    letting_go = asyncio.create_task(let_go())
    async with working(redis_url, job, on_startup=on_startup):
        await letting_go
        await wait_until(lambda: begun)
    assert begun == [True]
