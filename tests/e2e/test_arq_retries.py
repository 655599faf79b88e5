"""Tries of a job: ``Retry``, its delay, the bound of tries and the time that each has.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from arq.jobs import JobStatus
from arq.worker import Retry, RetryJob, func

from forebay.contracts.errors import TaskFailed
from tests.support import wait_until
from tests.support_arq import Gate, result_of, working


def job_that_fails(errors):
    """Return a function that raises these, one a try, and then returns what its tries saw."""
    tries = []

    async def stubborn(ctx):
        tries.append(ctx["job_try"])
        if len(tries) <= len(errors):
            raise errors[len(tries) - 1]
        return tries

    return stubborn


@pytest.mark.parametrize(
    "errors",
    [
        [Retry(), Retry()],
        [Retry(defer=0.01), Retry(defer=timedelta(milliseconds=10))],
        [RetryJob(), RetryJob()],
        [asyncio.CancelledError(), asyncio.CancelledError()],
    ],
    ids=["at once", "deferred", "retry job", "cancelled"],
)
async def test_a_job_that_asks_for_it_is_tried_again_until_it_ends(redis_url, jobs, errors):
    async with working(redis_url, job_that_fails(errors)) as worker:
        job = await jobs.enqueue_job("stubborn")
        assert await result_of(job) == [1, 2, 3]
        assert (worker.jobs_complete, worker.jobs_failed, worker.jobs_retried) == (1, 0, 2)
    assert (await job.result_info()).job_try == 3
    assert await jobs.keys("arq:retry:*") == []


async def test_a_job_that_put_itself_off_waits_for_its_time_and_holds_nothing(redis_url, jobs):
    async with working(redis_url, job_that_fails([Retry(defer=3600)])) as worker:
        job = await jobs.enqueue_job("stubborn", _resources={"submission": 2})
        await wait_until(lambda: worker.jobs_retried == 1 and not worker.scheduler.running)
        assert await job.status() is JobStatus.deferred
        due = (await job.info()).score / 1000
        assert time.time() + 3500 < due < time.time() + 3601
        assert not any((await jobs.tasks.view()).leased.values())
        assert await jobs.enqueue_job("stubborn", _job_id=job.job_id) is None


async def test_a_job_that_put_itself_off_lets_others_run_meanwhile(redis_url, jobs):
    gate = Gate()
    async with working(redis_url, job_that_fails([Retry(defer=3600)]), gate.gated, max_jobs=1):
        await jobs.enqueue_job("stubborn")
        job = await jobs.enqueue_job("gated")
        gate.open.set()
        assert await result_of(job) == "let go"


async def test_a_failure_is_not_tried_again(redis_url, jobs):
    async with working(redis_url, job_that_fails([ValueError("no")])) as worker:
        with pytest.raises(TaskFailed, match="ValueError: no"):
            await result_of(await jobs.enqueue_job("stubborn"))
        assert (worker.jobs_failed, worker.jobs_retried) == (1, 0)


@pytest.mark.parametrize(
    ("error", "raised"), [(Retry(defer=1), TaskFailed), (asyncio.CancelledError(),) * 2]
)
async def test_a_worker_that_retries_no_jobs_lets_them_fail(redis_url, jobs, error, raised):
    raised = raised if isinstance(raised, type) else type(raised)
    async with working(redis_url, job_that_fails([error]), retry_jobs=False):
        with pytest.raises(raised):
            await result_of(await jobs.enqueue_job("stubborn"))


@pytest.mark.parametrize(("of_worker", "of_function"), [(3, None), (99, 3)])
async def test_tries_end_at_their_bound(redis_url, jobs, of_worker, of_function):
    stubborn = job_that_fails([Retry()] * 99)
    function = func(stubborn, name="stubborn", max_tries=of_function)
    async with working(redis_url, function, max_tries=of_worker) as worker:
        job = await jobs.enqueue_job("stubborn")
        with pytest.raises(TaskFailed, match="JobExecutionFailed: max 3 retries exceeded"):
            await result_of(job)
        assert (worker.jobs_retried, worker.jobs_failed) == (3, 1)
    result = await job.result_info()
    assert (result.function, result.success, result.job_try) == ("stubborn", False, 4)
    assert await jobs.keys("arq:job:*") == []


@pytest.mark.parametrize(("of_worker", "of_function"), [(0.05, None), (3600, 0.05)])
async def test_a_job_beyond_its_time_is_cancelled_and_fails(
    redis_url, jobs, of_worker, of_function
):
    gate = Gate()
    function = func(gate.gated, name="gated", timeout=of_function)
    async with working(redis_url, function, job_timeout=of_worker, max_jobs=1) as worker:
        job = await jobs.enqueue_job("gated")
        with pytest.raises(TaskFailed, match="TimeoutError"):
            await result_of(job)
        assert gate.cancelled == [job.job_id]
        assert (worker.jobs_failed, worker.jobs_retried) == (1, 0)
        gate.open.set()
        assert await result_of(await jobs.enqueue_job("gated")) == "let go"
