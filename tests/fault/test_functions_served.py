"""A member is given only what it serves: old and new versions share a pool (design 04)."""

from __future__ import annotations

import contextlib

import pytest

from forebay.contracts.tasks import TaskDenialReason
from forebay.workers.arq.pool import create_pool
from tests.support import wait_until
from tests.support_arq import check_books
from tests.support_arq_fleet import START_SECONDS, ArqFleet

OLD = "tests.arq_versions.OldSettings"
NEW = "tests.arq_versions.NewSettings"
SECONDS = 60.0


@pytest.fixture
async def jobs(redis_url):
    async with await create_pool(redis_url) as jobs:
        yield jobs
    await check_books(redis_url)


@pytest.fixture
def fleet(redis_url, jobs, tmp_path):
    with contextlib.ExitStack() as stack:
        yield ArqFleet(redis_url, tmp_path, stack)


async def results_of(jobs, count):
    async def are_there():
        return len(await jobs.keys("arq:result:*")) == count

    await wait_until(are_there, timeout=SECONDS)
    return await jobs.all_job_results()


async def test_jobs_succeed_by_two_workers_of_which_one_lacks_the_function(jobs, fleet):
    fleet.start(1, "--slots", "10", settings=OLD)
    fleet.start(1, "--slots", "10", settings=NEW)
    await fleet.until_idle(2)
    for n in range(200):
        await jobs.enqueue_job("newer" if n % 2 else "older", n, _group=f"g{n % 5}")
    results = await results_of(jobs, 200)
    assert {result.success for result in results} == {True}
    assert sorted(result.args[0] for result in results) == list(range(200))
    served = {(result.function, result.result) for result in results}
    assert ("newer", "old") not in served
    assert {function for function, _version in served} == {"older", "newer"}


async def test_a_job_that_nobody_serves_waits_and_a_late_worker_takes_it(jobs, fleet):
    fleet.start(1, "--slots", "10", settings=OLD)
    await fleet.until_idle(1)
    waiting = [await jobs.enqueue_job("newer", n) for n in range(5)]
    after = await jobs.enqueue_job("older", 5)
    assert await after.result(timeout=START_SECONDS, poll_delay=0.05) == "old"
    blocked = await jobs.tasks.explain_blocked()
    assert (blocked.queued_count, blocked.reasons) == (5, {TaskDenialReason.NOT_SERVED: 5})
    assert len(await jobs.keys("arq:result:*")) == 1

    fleet.start(1, "--slots", "10", settings=NEW)
    for job in waiting:
        assert await job.result(timeout=START_SECONDS, poll_delay=0.05) == "new"
