"""What arq's own tests promise of workers and jobs holds on a pool, where no other file says it."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta, timezone

import pytest
from arq.cron import cron
from arq.jobs import JobStatus, ResultNotFound
from arq.worker import FailedJobs, Retry, func

from forebay.contracts.errors import JobUnreadable, TaskFailed
from forebay.workers.arq.open_worker import open_worker
from tests.support import wait_until
from tests.support_arq import Gate, named, result_of, working


async def echo(ctx, value=None):
    return value


async def fail(ctx):
    raise ValueError("no")


async def again(ctx):
    raise Retry(defer=0.01)


async def burst(url, *functions, **settings):
    """Return a worker that ends by itself."""
    settings = {"burst": True, "poll_delay": 0.01, "handle_signals": False, **settings}
    return await open_worker(url, functions=named(*functions), **settings)


# -- workers


def test_a_worker_runs_without_a_loop_of_the_program_and_closes_itself(redis_url):
    ended = []

    async def on_shutdown(ctx):
        ended.append("shutdown")

    async def enqueue(worker):
        await worker.pool.enqueue_job("echo", 1)

    loop = asyncio.new_event_loop()
    try:
        worker = loop.run_until_complete(burst(redis_url, echo, on_shutdown=on_shutdown))
        loop.run_until_complete(enqueue(worker))
        worker.run()
    finally:
        loop.close()
    assert repr(worker) == "<Worker j_complete=1 j_failed=0 j_retried=0 j_ongoing=0>"
    assert ended == ["shutdown"]


async def test_a_try_that_is_put_off_counts_as_one_of_a_bursts_jobs(redis_url, jobs):
    await jobs.enqueue_job("again", _job_id="one")
    worker = await burst(redis_url, again)
    try:
        assert await worker.run_check(max_burst_jobs=1) == 0
        assert (worker.jobs_complete, worker.jobs_failed, worker.jobs_retried) == (0, 0, 1)
    finally:
        await worker.close()
    await jobs.tasks.queue.discard("one")


async def test_a_check_that_allows_no_retries_tells_of_the_retry_as_a_failure(redis_url, jobs):
    await jobs.enqueue_job("again")
    worker = await burst(redis_url, again)
    try:
        with pytest.raises(FailedJobs, match=r"1 job failed.*Retry"):
            await worker.run_check(retry_jobs=False)
    finally:
        await worker.close()


async def test_a_check_tells_of_each_job_that_failed(redis_url, jobs):
    for function in ("fail", "echo", "fail"):
        await jobs.enqueue_job(function)
    worker = await burst(redis_url, fail, echo)
    try:
        with pytest.raises(FailedJobs) as failed:
            await worker.run_check()
    finally:
        await worker.close()
    assert repr(failed.value).startswith("<2 jobs failed:\n")
    assert [type(one.result) for one in failed.value.job_results] == [TaskFailed] * 2


async def test_a_function_may_be_named_for_import(redis_url, jobs):
    async with working(redis_url, "asyncio.sleep") as worker:
        with pytest.raises(TaskFailed, match="TypeError"):  # it takes arq's context for a delay
            await result_of(await jobs.enqueue_job("asyncio.sleep"))
        assert worker.jobs_failed == 1


async def test_a_result_may_be_kept_for_a_part_of_a_millisecond_more(redis_url, jobs):
    job = await jobs.enqueue_job("echo", 1)
    async with working(redis_url, echo, keep_result=60.0005):
        assert await result_of(job) == 1
    assert 50_000 < await jobs.pttl(f"arq:result:{job.job_id}") <= 60_001


# -- jobs and results


async def test_a_job_may_return_an_exception_and_has_succeeded(redis_url, jobs):
    async def found(ctx):
        return TypeError("of another")

    job = await jobs.enqueue_job("found")
    async with working(redis_url, found) as worker:
        result = await result_of(job)
        assert isinstance(result, TaskFailed)
        assert (result.error_type, result.error_message) == ("TypeError", "of another")
        assert (worker.jobs_complete, worker.jobs_failed) == (1, 0)
    assert (await job.result_info()).success is True


async def test_who_waits_for_a_result_that_is_not_kept_is_told(redis_url, jobs):
    gate = Gate()
    async with working(redis_url, func(gate.gated, name="gated", keep_result=0)):
        job = await jobs.enqueue_job("gated")
        await wait_until(lambda: gate.inside)
        waiting = asyncio.create_task(result_of(job))
        gate.open.set()
        with pytest.raises(ResultNotFound):
            await waiting


async def test_a_result_or_job_that_is_spoilt_is_told_as_such(redis_url, jobs):
    job = await jobs.enqueue_job("echo", 1, _job_id="one")
    await jobs.set("arq:job:one", b"spoilt")
    with pytest.raises(JobUnreadable, match="the payload of job 'one'"):
        await job.info()
    await jobs.set("arq:result:one", b"spoilt")
    with pytest.raises(JobUnreadable, match="the result of job 'one'"):
        await job.result()
    await jobs.delete("arq:result:one")
    await jobs.tasks.queue.discard("one")


async def test_of_many_that_enqueue_one_id_at_once_one_does(redis_url, jobs):
    ran = Counter()

    async def count(ctx, name):
        ran[name] += 1

    names = [f"v-{n % 20}" for n in range(100)]
    enqueued = await asyncio.gather(
        *(jobs.enqueue_job("count", name, _job_id=name) for name in names)
    )
    assert sum(job is not None for job in enqueued) == 20
    worker = await burst(redis_url, count)
    try:
        assert await worker.run_check() == 20
    finally:
        await worker.close()
    assert set(ran.values()) == {1}
    assert len(ran) == 20


async def test_a_retry_counts_on_from_the_try_that_a_job_began_with(redis_url, jobs):
    async def stubborn(ctx):
        if ctx["job_try"] == 3:
            raise Retry
        return ctx["job_try"]

    async with working(redis_url, stubborn):
        assert await result_of(await jobs.enqueue_job("stubborn", _job_try=3)) == 4


# -- cron jobs


def tomorrow():
    """Return an hour that a test does not live to see."""
    return (datetime.now().astimezone().hour + 2) % 24


async def test_cron_jobs_of_one_id_run_once_and_those_of_two_run_both(redis_url, jobs):
    ran = []

    async def note(ctx):
        ran.append(ctx["job_id"])

    async def other(ctx):
        ran.append(ctx["job_id"])

    one = {"hour": tomorrow(), "run_at_startup": True, "job_id": "single"}
    two = {"hour": tomorrow(), "run_at_startup": True, "job_id": "double"}
    crons = [cron(note, **one), cron(other, **one), cron(note, name="again", **two)]
    worker = await burst(redis_url, cron_jobs=crons)
    try:
        assert await worker.run_check() == 2
    finally:
        await worker.close()
    assert len(ran) == len(set(ran)) == 2


async def test_a_cron_job_named_twice_runs_once_at_startup(redis_url, jobs):
    at_startup = {"hour": tomorrow(), "run_at_startup": True}
    worker = await burst(redis_url, cron_jobs=[cron(echo, **at_startup), cron(echo, **at_startup)])
    try:
        assert await worker.run_check() == 1
    finally:
        await worker.close()


async def test_a_cron_job_that_is_cancelled_is_tried_again_as_often_as_it_may(redis_url, jobs):
    tries = []

    async def stubborn(ctx):
        tries.append(ctx["job_try"])
        if ctx["job_try"] == 1:
            raise asyncio.CancelledError

    crons = [cron(stubborn, hour=tomorrow(), run_at_startup=True, max_tries=2)]
    worker = await burst(redis_url, cron_jobs=crons)
    try:
        assert await worker.run_check() == 1
        assert (worker.jobs_complete, worker.jobs_failed, worker.jobs_retried) == (1, 0, 1)
    finally:
        await worker.close()
    assert tries == [1, 2]


@pytest.mark.parametrize("hours", [-11, 0, 13])
async def test_cron_times_are_those_of_the_workers_timezone(redis_url, jobs, hours):
    zone = timezone(timedelta(hours=hours))
    async with working(
        redis_url, cron_jobs=[cron(echo, name="echo", hour=3, minute=7)], timezone=zone
    ) as worker:
        (job,) = worker.cron_jobs
        await wait_until(lambda: job.next_run is not None)
        assert (job.next_run.hour, job.next_run.minute) == (3, 7)
        assert job.next_run.utcoffset() == timedelta(hours=hours)


async def test_a_health_record_lives_as_long_as_the_pause_between_two(redis_url, jobs):
    async with working(redis_url, echo, health_check_interval=100):
        key = f"{jobs.default_queue_name}:health-check"
        await wait_until(lambda: jobs.exists(key))
        assert 90_000 < await jobs.pttl(key) <= 101_000
        assert await jobs.get(key)
    assert await jobs.exists(key) == 0


async def test_a_job_that_waits_is_queued_for_arqs_status(jobs):
    job = await jobs.enqueue_job("echo", _job_id="one")
    assert await job.status() is JobStatus.queued
    await jobs.tasks.queue.discard("one")
