"""What arq's ``Job`` tells of a job at each stage of its life on a Forebay pool.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from arq.jobs import Job, JobResult, JobStatus, ResultNotFound

from forebay.contracts.errors import TaskFailed
from forebay.contracts.identity import TaskGroupKey, TaskGroupKind, TaskGroupSpec
from forebay.contracts.tasks import SchedulableTask
from forebay.workers.arq.serialization import dump_job, load_job
from tests.support import wait_until
from tests.support_arq import Gate, result_of, working

GROUP = TaskGroupSpec(key=TaskGroupKey(kind=TaskGroupKind.LOCAL, identity=("tests",)))
SOON = timedelta(seconds=60)


async def add(ctx, left, right=0):
    return left + right


async def fail(ctx):
    raise ValueError("no such customer")


async def follow(ctx):
    job = await ctx["redis"].enqueue_job("add", 20, 1, _job_id="followed", _group="followers")
    return job.job_id


async def assert_waits(job, status):
    """Check what is told of a job that has no result, and return what is known of it."""
    assert await job.status() is status
    info = await job.info()
    assert not isinstance(info, JobResult)
    assert (info.function, info.args, info.kwargs, info.job_try) == ("gated", (), {}, None)
    assert datetime.now(UTC) - SOON < info.enqueue_time <= datetime.now(UTC)
    assert await job.result_info() is None
    with pytest.raises(TimeoutError):
        await job.result(timeout=0.0, poll_delay=0.001)
    return info


async def test_a_job_is_told_of_from_deferred_to_complete(redis_url, jobs):
    gate = Gate()
    later = await jobs.enqueue_job("gated", _defer_by=3600)
    first = await jobs.enqueue_job("gated", _job_id="first")
    second = await jobs.enqueue_job("gated", _job_id="second")
    async with working(redis_url, gate.gated, max_jobs=1) as worker:
        await wait_until(lambda: gate.inside == ["first"])
        deferred = await assert_waits(later, JobStatus.deferred)
        running = await assert_waits(first, JobStatus.in_progress)
        queued = await assert_waits(second, JobStatus.queued)
        now_ms = datetime.now(UTC).timestamp() * 1000
        assert running.score <= queued.score <= now_ms < deferred.score
        gate.open.set()
        for job in (first, second):
            assert await result_of(job) == "let go"
            assert await job.status() is JobStatus.complete
            result = await job.info()
            assert result == await job.result_info()
            assert (result.success, result.result, result.job_try) == (True, "let go", 1)
            assert (result.job_id, result.queue_name) == (job.job_id, jobs.default_queue_name)
            assert result.score is None
            assert result.enqueue_time <= result.start_time <= result.finish_time
        assert await later.status() is JobStatus.deferred
        assert (worker.jobs_complete, worker.jobs_failed, worker.jobs_retried) == (2, 0, 0)


async def test_a_job_is_told_of_to_who_knows_only_its_id(redis_url, jobs):
    await jobs.enqueue_job("add", 2, right=3, _job_id="one")
    known = Job("one", jobs, _queue_name="fb:{pool:default}:queue", _deserializer=load_job)
    async with working(redis_url, add):
        assert await result_of(known) == 5
    result = await known.result_info()
    assert (result.function, result.args, result.kwargs) == ("add", (2,), {"right": 3})


async def test_of_an_unknown_job_there_is_nothing_to_tell(jobs):
    job = Job("absent", jobs, _queue_name=jobs.default_queue_name, _deserializer=load_job)
    assert await job.status() is JobStatus.not_found
    assert await job.info() is None
    assert await job.result_info() is None
    with pytest.raises(ResultNotFound):
        await job.result(timeout=5)


async def test_a_failure_is_raised_as_task_failed_with_type_message_and_traceback(redis_url, jobs):
    job = await jobs.enqueue_job("fail")
    async with working(redis_url, fail) as worker:
        with pytest.raises(TaskFailed) as failure:
            await result_of(job)
        assert (worker.jobs_complete, worker.jobs_failed, worker.jobs_retried) == (0, 1, 0)
    assert (failure.value.error_type, failure.value.error_message) == (
        "ValueError",
        "no such customer",
    )
    assert "in fail" in failure.value.traceback_text
    assert await job.status() is JobStatus.complete
    result = await job.result_info()
    assert (result.success, result.job_try) == (False, 1)
    assert isinstance(result.result, TaskFailed)


async def test_an_unknown_function_fails_its_job_and_not_the_worker(redis_url, jobs):
    payload = dump_job({"t": None, "f": "absent", "a": [], "k": {}, "et": 1})
    task = SchedulableTask(task_id="one", payload=payload, group=GROUP)
    async with working(redis_url, add):
        assert await jobs.tasks.queue.submit(task)
        job = Job("one", jobs, _queue_name=jobs.default_queue_name, _deserializer=load_job)
        with pytest.raises(TaskFailed, match="function 'absent' not found"):
            await result_of(job)
        assert await result_of(await jobs.enqueue_job("add", 1, 1)) == 2


async def test_a_job_enqueues_another_through_its_context(redis_url, jobs):
    async with working(redis_url, add, follow):
        assert await result_of(await jobs.enqueue_job("follow")) == "followed"
        job = Job("followed", jobs, _queue_name=jobs.default_queue_name, _deserializer=load_job)
        assert await result_of(job) == 21
    assert "local/followers" not in (await jobs.tasks.queue.view()).queued_by_group


async def test_no_more_jobs_run_than_a_worker_has_slots_though_their_last_hook_is_slow(
    redis_url, jobs
):
    gate, hook = Gate(), asyncio.Event()

    async def after_job_end(ctx):
        await hook.wait()

    async with working(redis_url, gate.gated, max_jobs=2, after_job_end=after_job_end):
        queued = [await jobs.enqueue_job("gated", _job_id=f"j{n}") for n in range(5)]
        await wait_until(lambda: len(gate.inside) == 2)
        gate.open.set()
        for job in queued[:2]:
            await result_of(job)
        assert len(gate.inside) == 2  # in either order: a push may overtake a reply
        assert await queued[2].status() is JobStatus.queued
        hook.set()
        for job in queued:
            await result_of(job)
