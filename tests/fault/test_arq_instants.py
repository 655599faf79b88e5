"""Time in which the server is away is no delay of a job that was put off.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from arq.cron import cron
from arq.jobs import JobStatus
from arq.utils import timestamp_ms, to_unix_ms

from forebay.workers.arq.pool import create_pool
from tests.support import wait_until
from tests.support_arq import check_books, result_of, working
from tests.support_proxy import FaultyProxy

SHORT = timedelta(seconds=0.2)


async def echo(ctx, value=None):
    return value


@pytest.fixture
async def jobs(redis_url):
    async with await create_pool(redis_url) as jobs:
        yield jobs
    await check_books(redis_url)


async def pass_while_stalled(proxy, *, until):
    """Let an instant pass before anything that was sent arrives."""
    await wait_until(lambda: datetime.now(UTC) > until)
    proxy.flow()


@pytest.mark.parametrize("how", ["_defer_until", "_defer_by"])
async def test_job_that_was_put_off_by_an_instant_is_not_put_off_by_a_server_that_is_away(
    redis_url, jobs, how
):
    async with FaultyProxy(redis_url) as proxy, await create_pool(proxy.url) as through:
        await through.tasks.set_state("open")  # it is a member: nothing but the call waits
        proxy.stall()
        called_ms = timestamp_ms()
        due = datetime.now(UTC) + SHORT
        put_off = {"_defer_until": due} if how == "_defer_until" else {"_defer_by": SHORT}
        enqueueing = asyncio.create_task(through.enqueue_job("echo", 1, _job_id="one", **put_off))
        await asyncio.sleep(0)
        sent_ms = timestamp_ms()
        await pass_while_stalled(proxy, until=due + SHORT)
        job = await enqueueing

        score = (await job.info()).score
        if how == "_defer_until":
            assert score == to_unix_ms(due)
        else:
            assert called_ms + 200 <= score <= sent_ms + 200
        assert await job.status() is JobStatus.queued
    async with working(redis_url, echo):
        assert await result_of(await jobs.enqueue_job("echo", 2)) == 2
        await wait_until(lambda: jobs.exists("arq:result:one"))


async def test_cron_job_keeps_its_time_where_the_server_is_away(redis_url, jobs):
    await jobs.tasks.set_state("paused")
    async with (
        FaultyProxy(redis_url) as proxy,
        working(proxy.url, cron_jobs=[cron(echo, name="echo", hour=3)]) as worker,
    ):
        await worker.tasks_admission.set_state("paused")
        proxy.stall()
        now = datetime.now(UTC)
        worker.cron_jobs[0].next_run = due = now + SHORT
        beating = asyncio.create_task(worker.run_cron(now, 0.5))
        await pass_while_stalled(proxy, until=due + SHORT)
        await beating
        (queued,) = await jobs.queued_jobs()
    assert queued.score == to_unix_ms(due)
    await jobs.tasks.set_state("open")
    await jobs.tasks.queue.discard(queued.job_id)
