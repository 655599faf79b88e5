"""A job runs once, whatever of its admission, its push or its end is lost on the way.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

import pytest

from forebay.contracts.errors import TaskFailed
from forebay.contracts.settings import MemberSettings
from forebay.workers.arq.pool import create_pool
from tests.support import wait_until
from tests.support_arq import Gate, check_books, result_of, working
from tests.support_proxy import Fault, FaultyProxy

SETTINGS = MemberSettings(ttl_seconds=3600.0, recheck_seconds=0.1)


class Runs:
    """A job that notes each of its runs."""

    def __init__(self):
        self.tries = []

    async def job(self, ctx, value):
        self.tries.append(ctx["job_try"])
        return value


@pytest.fixture
async def jobs(redis_url):
    async with await create_pool(redis_url) as jobs:
        yield jobs
    await check_books(redis_url)


@pytest.fixture
async def proxy(redis_url):
    async with FaultyProxy(redis_url) as proxy:
        yield proxy


async def test_a_job_whose_admission_was_lost_on_the_way_back_is_fetched_and_runs_once(jobs, proxy):
    runs = Runs()
    job = await jobs.enqueue_job("job", "value")
    trap = proxy.trap("admit", Fault.CUT_AFTER)
    async with working(proxy.url, runs.job, member=SETTINGS) as worker:
        assert await result_of(job) == "value"
        await wait_until(lambda: len(proxy.replies_to(trap.batch)) > 1)
        assert worker.jobs_complete == 1
    lost, repeated = proxy.replies_to(trap.batch)
    assert isinstance(lost, list)
    assert lost[0] == repeated  # the repeat brings no payload
    assert runs.tries == [1]


@pytest.mark.parametrize("word", ["admit", "finish"])
@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER])
async def test_a_job_runs_and_ends_once_whichever_call_of_its_worker_is_cut(
    jobs, proxy, word, fault
):
    runs = Runs()
    queued = [await jobs.enqueue_job("job", n) for n in range(3)]
    trap = proxy.trap(word, fault)
    async with working(proxy.url, runs.job, member=SETTINGS) as worker:
        assert [await result_of(job) for job in queued] == [0, 1, 2]
        await wait_until(lambda: worker.jobs_complete == 3)
    assert trap.sprung.is_set()
    assert runs.tries == [1, 1, 1]


async def test_a_job_whose_push_was_lost_is_told_of_again_and_runs_once(jobs, proxy):
    runs = Runs()
    async with working(proxy.url, runs.job, member=SETTINGS):
        await wait_until(lambda: jobs.exists("fb:{pool:default}:idle"))
        proxy.mute_pushes()
        job = await jobs.enqueue_job("job", "value")
        assert await job.status() == "in_progress"  # it was pushed
        assert await result_of(job) == "value"
    assert runs.tries == [1]


async def test_what_is_admitted_while_a_worker_stops_goes_back_unstarted_at_no_cost(jobs, proxy):
    gate = Gate()
    job = await jobs.enqueue_job("gated", _job_id="one")
    trap = proxy.trap("admit", Fault.HOLD)
    async with working(proxy.url, gate.gated, member=SETTINGS) as worker:
        await trap.sprung.wait()
        assert await job.status() == "in_progress"
        worker._stop_pulling()
        trap.let_go.set()

        async def is_back():
            return await job.status() == "queued"

        await wait_until(is_back)
    assert gate.inside == []
    gate.open.set()
    async with working(proxy.url, gate.gated, member=SETTINGS):
        assert await result_of(job) == "let go"
    assert (await job.result_info()).job_try == 1


async def a_job_that_expires(jobs, value):
    job = await jobs.enqueue_job("job", value, _job_id="one", _expires=0.001)

    async def has_expired():
        return not await jobs.exists("arq:job:one")

    await wait_until(has_expired)
    return job


async def test_a_job_that_expired_is_in_the_queue_until_its_result_is_there(jobs, proxy):
    runs = Runs()
    job = await a_job_that_expires(jobs, "value")
    trap = proxy.trap("expire", Fault.CUT_BEFORE)
    async with working(proxy.url, runs.job, member=SETTINGS) as worker:
        await trap.sprung.wait()
        with pytest.raises(TaskFailed, match="job expired"):
            await result_of(job)  # which raises ResultNotFound of a job that is nowhere
        assert worker.jobs_failed == 1
    assert runs.tries == []


async def test_a_job_that_comes_anew_as_its_expiry_is_told_is_not_ended_by_it(jobs, proxy):
    runs = Runs()
    await a_job_that_expires(jobs, "old")
    trap = proxy.trap("admit", Fault.HOLD)
    async with working(proxy.url, runs.job, member=SETTINGS):
        await trap.sprung.wait()
        job = await jobs.enqueue_job("job", "new", _job_id="one")
        trap.let_go.set()
        assert await result_of(job) == "new"
    assert runs.tries == [1]
