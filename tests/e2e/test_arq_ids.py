"""A job is found by arq's own means under any id that a program gives it.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

import asyncio

import pytest
import redis
from arq.connections import ArqRedis
from arq.jobs import JobStatus, serialize_result

from forebay.contracts.errors import CoordinatorUnavailable
from forebay.contracts.tasks import TaskAdmissionError
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.tasks.id_holders import holder_of
from forebay.coordinator.tasks.snapshots import audit_pool
from forebay.workers.arq.pool import create_pool
from tests.support_arq import PATIENCE_SECONDS, result_of, working
from tests.support_tasks import task

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


# -- ids count for the whole server


async def hold_queued(redis_url, jobs):
    async with await create_pool(redis_url, pool="billing: 1") as others:
        await others.enqueue_job("echo", 1, _job_id="one")
    return "pool 'billing: 1'"


async def hold_running(redis_url, jobs):
    """As a job that has just been put in arq's place: its mark is all that is there."""
    await jobs.set("arq:in-progress:one", pool_shard("billing")["queue"])
    return "pool 'billing'"


async def hold_by_a_result(redis_url, jobs):
    async with (
        await create_pool(redis_url, pool="billing", serializer="msgpack") as others,
        working(redis_url, echo, pool="billing", serializer="msgpack"),
    ):
        await result_of(await others.enqueue_job("echo", 1, _job_id="one"))
    return "pool 'billing'"


async def hold_by_arq(redis_url, jobs):
    await ArqRedis(jobs.connection_pool).enqueue_job("echo", 1, _job_id="one")
    return "arq's own queue"


async def hold_by_a_result_of_arq(redis_url, jobs):
    result = serialize_result("f", (), {}, 1, 1, True, 1, 1, 1, "f", "arq:queue", "one")
    await jobs.set("arq:result:one", result)
    return "arq's own queue"


async def hold_by_a_result_that_nobody_can_read(redis_url, jobs):
    await jobs.set("arq:result:one", b"\x00")
    return "a program that left a result which names no pool"


async def hold_by_a_key_of_another_type(redis_url, jobs):
    await jobs.rpush("arq:job:one", "x")
    return "another program"


HOLDS = [
    hold_queued,
    hold_running,
    hold_by_a_result,
    hold_by_arq,
    hold_by_a_result_of_arq,
    hold_by_a_result_that_nobody_can_read,
    hold_by_a_key_of_another_type,
]


@pytest.mark.parametrize("hold", HOLDS, ids=lambda hold: hold.__name__)
async def test_an_id_that_is_held_elsewhere_is_an_error_that_names_the_holder(
    redis_url, jobs, hold
):
    holder = await hold(redis_url, jobs)
    before = sorted(await jobs.keys("arq:*"))
    with pytest.raises(TaskAdmissionError) as raised:
        await jobs.enqueue_job("echo", 2, _job_id="one")
    assert f"'one' is held by {holder}, expected" in str(raised.value)
    assert raised.value.reason == "id_of_another_pool"
    assert raised.value.denied.diagnostics["holder"] == holder
    with pytest.raises(TaskAdmissionError, match="is held by"):
        await jobs.tasks.queue.enqueue([task("one"), task("two")])
    assert await jobs.tasks.queue.discard("two")
    assert sorted(await jobs.keys("arq:*")) == before
    assert await jobs.zcard(jobs.default_queue_name) == 0
    await jobs.flushall()


async def test_who_holds_an_id_cannot_be_told_where_the_server_is_away(redis_url, jobs):
    class Away:
        address = jobs._connection.address
        settings = jobs._connection.settings

        class client:  # noqa: N801 - an attribute
            @staticmethod
            async def type(_key):
                raise redis.exceptions.ConnectionError("gone")

    with pytest.raises(CoordinatorUnavailable):
        await holder_of(Away(), "one")


async def test_the_audit_names_a_stray_in_the_queue_in_safe_letters(redis_url, jobs):
    await jobs.enqueue_job("echo", 1, _job_id="here: 1")
    queue = pool_shard("default")["queue"]
    await jobs.zadd(queue, {"stray: \x1b[1m": 1})
    report = await audit_pool(jobs._connection, "default")
    assert "stray%3A%20%1B%5B1m" in report.differences[1]
    await jobs.zrem(queue, "stray: \x1b[1m")
