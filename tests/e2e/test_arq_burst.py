"""Burst workers, ``run_check``, and the sign of life that arq's health check reads.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

import pytest
from arq.connections import RedisSettings
from arq.worker import FailedJobs, async_check_health

from forebay.coordinator.server.urls import parse_url
from forebay.workers.arq.open_worker import open_worker
from tests.support import wait_until
from tests.support_arq import named, result_of, working


async def echo(ctx, *args):
    return args


async def fail(ctx):
    raise ValueError("no")


async def follow(ctx):
    await ctx["redis"].enqueue_job("echo", _job_id="followed")


async def burst(url, *functions, **settings):
    """Return a worker that ends by itself."""
    return await open_worker(
        url,
        functions=named(*functions),
        handle_signals=False,
        **{"burst": True, "poll_delay": 0.01, **settings},
    )


async def test_a_burst_worker_runs_what_there_is_and_what_comes_of_it_and_ends(redis_url, jobs):
    for n in range(25):
        await jobs.enqueue_job("echo", n)
    await jobs.enqueue_job("follow")
    worker = await burst(redis_url, echo, follow)
    try:
        assert await worker.run_check() == 27
    finally:
        await worker.close()
    assert await jobs.queued_jobs() == []
    assert len(await jobs.all_job_results()) == 27


async def test_a_burst_worker_waits_for_what_was_put_off(redis_url, jobs):
    await jobs.enqueue_job("echo", _defer_by=0.05)
    worker = await burst(redis_url, echo)
    try:
        assert await worker.run_check() == 1
    finally:
        await worker.close()


async def test_a_burst_worker_starts_no_more_than_it_may(redis_url, jobs):
    queued = [await jobs.enqueue_job("echo", n) for n in range(5)]
    worker = await burst(redis_url, echo)
    try:
        assert await worker.run_check(max_burst_jobs=3) == 3
    finally:
        await worker.close()
    assert sorted(job.args for job in await jobs.queued_jobs()) == [(3,), (4,)]
    assert [await result_of(job) for job in queued[:3]] == [[0], [1], [2]]


async def test_a_burst_worker_that_may_start_none_ends(redis_url, jobs):
    await jobs.enqueue_job("echo")
    worker = await burst(redis_url, echo, max_burst_jobs=0)
    try:
        assert await worker.run_check() == 0
    finally:
        await worker.close()
    assert len(await jobs.queued_jobs()) == 1


async def test_run_check_tells_of_jobs_that_failed(redis_url, jobs):
    await jobs.enqueue_job("echo")
    await jobs.enqueue_job("fail")
    worker = await burst(redis_url, echo, fail)
    try:
        with pytest.raises(FailedJobs, match="1 job failed") as failed:
            await worker.run_check()
    finally:
        await worker.close()
    assert failed.value.count == 1
    assert [result.function for result in failed.value.job_results] == ["fail"]


def arq_settings(url):
    return RedisSettings(unix_socket_path=parse_url(url).path)


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # arq's own
async def test_arqs_health_check_finds_a_worker_that_lives_and_none_that_was_closed(
    redis_url, jobs
):
    queue = jobs.default_queue_name
    assert await async_check_health(arq_settings(redis_url), None, queue) == 1
    async with working(redis_url, echo, health_check_interval=60) as worker:
        await result_of(await jobs.enqueue_job("echo"))
        await wait_until(lambda: not worker.scheduler.running)
        worker._last_health_check = 0.0  # a minute later
        await worker.heart_beat()
        assert await async_check_health(arq_settings(redis_url), None, queue) == 0
        said = (await jobs.get(f"{queue}:health-check")).decode()
        assert said.endswith("j_complete=1 j_failed=0 j_retried=0 j_ongoing=0 queued=0")
        assert 0 < await jobs.pttl(f"{queue}:health-check") <= 61_000
    assert await async_check_health(arq_settings(redis_url), None, queue) == 1


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # arq's own
async def test_a_worker_signs_under_the_key_that_it_is_given(redis_url, jobs):
    async with working(redis_url, echo, health_check_key="my:health"):
        assert await async_check_health(arq_settings(redis_url), "my:health") == 0
