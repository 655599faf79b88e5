"""A job is found by arq's own means under any id that a program gives it (spec 04)."""

from __future__ import annotations

import asyncio

import pytest
from arq.jobs import JobStatus

from forebay.coordinator.keys import pool_shard
from forebay.coordinator.tasks.snapshots import audit_pool
from tests.support_arq import PATIENCE_SECONDS, result_of, working

IDS = ["user:42", "a b|c~1", "Straße ☃\n\0", '"100%41" {x}', "%41", "x" * 512]
each_id = pytest.mark.parametrize("job_id", IDS, ids=ascii)


async def echo(ctx, value):
    return [ctx["job_id"], value]


@each_id
async def test_a_job_is_followed_by_its_id_from_the_queue_to_its_result(redis_url, jobs, job_id):
    job = await jobs.enqueue_job("echo", 1, _job_id=job_id)
    assert job.job_id == job_id
    assert await job.status() is JobStatus.queued
    assert (await job.info()).args == (1,)
    assert await jobs.enqueue_job("echo", 2, _job_id=job_id) is None
    async with working(redis_url, echo):
        assert await result_of(job) == [job_id, 1]
    assert (await job.result_info()).job_id == job_id
    assert await job.status() is JobStatus.complete
    await jobs.delete(f"arq:result:{job_id}")
    assert await job.status() is JobStatus.not_found


@each_id
async def test_a_waiting_job_is_aborted_by_its_id(redis_url, jobs, job_id):
    job = await jobs.enqueue_job("echo", 1, _job_id=job_id, _defer_by=3600)
    async with working(redis_url, echo, allow_abort_jobs=True):
        assert await job.abort(timeout=PATIENCE_SECONDS, poll_delay=0.01) is True


async def test_ids_that_look_alike_in_keys_are_two_jobs(redis_url, jobs):
    first = await jobs.enqueue_job("echo", 1, _job_id="a:b")
    second = await jobs.enqueue_job("echo", 2, _job_id="a%3Ab")
    async with working(redis_url, echo):
        assert await asyncio.gather(result_of(first), result_of(second)) == [
            ["a:b", 1],
            ["a%3Ab", 2],
        ]


async def test_the_audit_names_a_stray_in_the_queue_in_safe_letters(redis_url, jobs):
    await jobs.enqueue_job("echo", 1, _job_id="here: 1")
    queue = pool_shard("default")["queue"]
    await jobs.zadd(queue, {"stray: \x1b[1m": 1})
    report = await audit_pool(jobs._coordinator, "default")
    assert "stray%3A%20%1B%5B1m" in report.differences[1]
    await jobs.zrem(queue, "stray: \x1b[1m")
