"""``Job.abort`` of a job that waits, runs, is over or is put off, by workers that allow it."""

from __future__ import annotations

import asyncio

import pytest
from arq.constants import abort_jobs_ss
from arq.jobs import JobStatus
from arq.worker import Retry

from tests.support import wait_until
from tests.support_arq import PATIENCE_SECONDS, Gate, result_of, working


async def abort(job):
    return await job.abort(timeout=PATIENCE_SECONDS, poll_delay=0.01)


async def assert_aborted(jobs, job, *, args):
    """Check what is left of an aborted job."""
    assert await job.status() is JobStatus.complete
    result = await job.result_info()
    assert (result.success, result.function, result.args) == (False, "gated", args)
    assert isinstance(result.result, asyncio.CancelledError)
    assert 0 < await jobs.pttl(f"arq:result:{job.job_id}") <= 3_600_000
    assert await jobs.zscore(jobs.default_queue_name, job.job_id) is None
    assert await jobs.exists(abort_jobs_ss, f"arq:job:{job.job_id}") == 0


async def test_a_running_job_is_cancelled(redis_url, jobs):
    gate = Gate()
    async with working(redis_url, gate.gated, allow_abort_jobs=True) as worker:
        job = await jobs.enqueue_job("gated")
        await wait_until(lambda: gate.inside)
        assert await abort(job) is True
        assert gate.cancelled == [job.job_id]
        assert (worker.jobs_failed, worker.jobs_retried) == (1, 0)
        await assert_aborted(jobs, job, args=())
        assert not any((await jobs.tasks.view()).leased.values())


async def test_a_job_is_cancelled_where_it_runs(redis_url, jobs):
    gates = [Gate(), Gate()]
    async with (
        working(redis_url, gates[0].gated, allow_abort_jobs=True, max_jobs=1),
        working(redis_url, gates[1].gated, allow_abort_jobs=True, max_jobs=1),
    ):
        queued = [await jobs.enqueue_job("gated", _job_id=f"j{n}") for n in range(2)]
        await wait_until(lambda: all(gate.inside for gate in gates))
        assert await abort(queued[1]) is True
        assert sorted(gates[0].cancelled + gates[1].cancelled) == ["j1"]
        for gate in gates:
            gate.open.set()
        assert await result_of(queued[0]) == "let go"


@pytest.mark.parametrize("defer", [None, 3600])
async def test_a_waiting_job_is_dropped_at_once_and_never_runs(redis_url, jobs, defer):
    gate = Gate()
    async with working(redis_url, gate.gated, allow_abort_jobs=True, max_jobs=1):
        await jobs.enqueue_job("gated", _job_id="first")
        await wait_until(lambda: gate.inside)
        job = await jobs.enqueue_job("gated", 1, _job_id="second", _defer_by=defer)
        assert await abort(job) is True
        assert (await jobs.tasks.queue.view()).queued_total == 0
        await assert_aborted(jobs, job, args=(1,))
        gate.open.set()
    assert gate.inside == ["first"]


async def test_a_job_that_was_to_be_aborted_before_any_worker_came_is_not_run(redis_url, jobs):
    gate = Gate()
    job = await jobs.enqueue_job("gated", 1)
    await jobs.zadd(abort_jobs_ss, {job.job_id: 1})
    async with working(redis_url, gate.gated, allow_abort_jobs=True):
        with pytest.raises(asyncio.CancelledError):
            await result_of(job)
        await assert_aborted(jobs, job, args=(1,))
    assert gate.inside == []


async def test_a_job_that_put_itself_off_is_aborted(redis_url, jobs):
    async def gated(ctx):
        raise Retry(defer=3600)

    async with working(redis_url, gated, allow_abort_jobs=True) as worker:
        job = await jobs.enqueue_job("gated")
        await wait_until(lambda: worker.jobs_retried == 1 and not worker.scheduler.running)
        assert await abort(job) is True
        await assert_aborted(jobs, job, args=())


async def test_a_job_that_ends_in_spite_of_it_was_not_aborted(redis_url, jobs):
    inside = []

    async def stubborn(ctx):
        inside.append(ctx["job_id"])
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done all the same"

    async with working(redis_url, stubborn, allow_abort_jobs=True) as worker:
        job = await jobs.enqueue_job("stubborn")
        await wait_until(lambda: inside)
        assert await abort(job) is False
        assert await result_of(job) == "done all the same"
        assert (worker.jobs_complete, worker.jobs_failed) == (1, 0)


async def test_a_job_that_is_over_cannot_be_aborted_and_nothing_is_kept_of_the_wish(
    redis_url, jobs
):
    gate = Gate()
    gate.open.set()
    async with working(redis_url, gate.gated, allow_abort_jobs=True):
        job = await jobs.enqueue_job("gated", _job_id="one")
        await result_of(job)
        assert await abort(job) is False
        await wait_until(lambda: is_gone(jobs, abort_jobs_ss))
        await jobs.delete("arq:result:one")
        assert await result_of(await jobs.enqueue_job("gated", _job_id="one")) == "let go"
    assert gate.inside == ["one", "one"]


async def test_the_wish_to_abort_a_job_of_another_pool_is_left_to_its_workers(redis_url, jobs):
    gate, other = Gate(), Gate()
    async with (
        working(redis_url, gate.gated, allow_abort_jobs=True),
        working(redis_url, other.gated, pool="other", allow_abort_jobs=True) as worker,
    ):
        job = await worker.pool.enqueue_job("gated")
        await wait_until(lambda: other.inside)
        assert await abort(job) is True
    assert other.cancelled == [job.job_id]


async def test_a_worker_that_does_not_allow_it_lets_its_jobs_go_on(redis_url, jobs):
    gate = Gate()
    async with working(redis_url, gate.gated) as worker:
        job = await jobs.enqueue_job("gated")
        await wait_until(lambda: gate.inside)
        with pytest.raises(TimeoutError):
            await job.abort(timeout=0.0, poll_delay=0.001)
        await worker.heart_beat()
        gate.open.set()
        assert await result_of(job) == "let go"
    assert gate.cancelled == []


async def is_gone(jobs, key):
    return not await jobs.exists(key)
