"""Results: how long they are kept, how they are written, and what is never read.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

import pickle

import pytest
from arq.jobs import Job, JobStatus, ResultNotFound, SerializationError
from arq.worker import Retry, func

from forebay.contracts.errors import TaskFailed
from forebay.contracts.tasks import SchedulableTask
from forebay.workers.arq.pool import create_pool
from forebay.workers.arq.serialization import load_job
from tests.support import wait_until
from tests.support_arq import GROUP, result_of, working

FOR_EVER = -1
GONE = -2


async def succeed(ctx):
    return "done"


async def fail(ctx):
    raise ValueError("no")


async def again(ctx):
    raise Retry


async def echo(ctx, *values):
    return values


async def is_over(jobs):
    return await jobs.zcard(jobs.default_queue_name) == 0


@pytest.mark.parametrize("function", [succeed, fail], ids=["succeeds", "fails"])
@pytest.mark.parametrize(
    ("of_worker", "of_function", "kept_seconds"),
    [
        ({}, {}, 3600),
        ({"keep_result": 60}, {}, 60),
        ({"keep_result": 0}, {}, GONE),
        ({"keep_result_forever": True}, {}, FOR_EVER),
        ({"keep_result": 60}, {"keep_result": 30}, 30),
        ({"keep_result": 60}, {"keep_result": 0}, GONE),
        ({"keep_result": 0}, {"keep_result": 30}, 30),
        ({"keep_result": 60}, {"keep_result_forever": True}, FOR_EVER),
        ({"keep_result_forever": True}, {"keep_result_forever": False}, 3600),
    ],
    ids=repr,
)
async def test_a_result_is_kept_as_long_as_worker_or_function_say(
    redis_url, jobs, function, of_worker, of_function, kept_seconds
):
    job = await jobs.enqueue_job("run")
    async with working(redis_url, func(function, name="run", **of_function), **of_worker):
        await wait_until(lambda: is_over(jobs))
    ttl = await jobs.ttl(f"arq:result:{job.job_id}")
    if kept_seconds > 0:
        assert kept_seconds - 10 < ttl <= kept_seconds
    else:
        assert ttl == kept_seconds
    assert set(await jobs.keys("arq:*")) <= {f"arq:result:{job.job_id}".encode()}
    if kept_seconds == GONE:
        assert await job.status() is JobStatus.not_found
        with pytest.raises(ResultNotFound):
            await job.result(timeout=5)


@pytest.mark.parametrize(
    ("of_worker", "kept_seconds"),
    [({"keep_result": 60}, 60), ({"keep_result": 0}, GONE), ({"keep_result_forever": True}, -1)],
    ids=repr,
)
async def test_the_result_of_a_job_that_was_tried_too_often_is_kept_as_long(
    redis_url, jobs, of_worker, kept_seconds
):
    job = await jobs.enqueue_job("again")
    async with working(redis_url, again, max_tries=1, **of_worker):
        await wait_until(lambda: is_over(jobs))
    ttl = await jobs.ttl(f"arq:result:{job.job_id}")
    assert kept_seconds - 10 < ttl <= kept_seconds


VALUES = [None, True, -3, 2.5, "ü\n\0", [], {"a": [{"b": None}]}, 2**63 - 1]


@pytest.mark.parametrize(
    ("serializer", "values"), [("json", VALUES), ("msgpack", [*VALUES, b"\x80\xff"])]
)
async def test_values_come_back_as_they_went(redis_url, serializer, values):
    async with (
        await create_pool(redis_url, serializer=serializer) as jobs,
        working(redis_url, echo, fail, serializer=serializer),
    ):
        job = await jobs.enqueue_job("echo", *values)
        assert await result_of(job) == values
        assert (await job.result_info()).args == tuple(values)
        with pytest.raises(TaskFailed, match="ValueError: no") as failure:
            await result_of(await jobs.enqueue_job("fail"))
        assert "in fail" in failure.value.traceback_text


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
async def test_a_result_that_cannot_be_written_says_so(redis_url, serializer):
    async def odd(ctx):
        return object()

    async with (
        await create_pool(redis_url, serializer=serializer) as jobs,
        working(redis_url, odd, serializer=serializer),
    ):
        with pytest.raises(SerializationError, match="unable to serialize result"):
            await result_of(await jobs.enqueue_job("odd"))


class Trap:
    """Tells whether a pickle was read."""

    sprung = False

    def __reduce__(self):
        return (setattr, (Trap, "sprung", True))


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
async def test_a_pickle_is_never_read_and_its_job_says_why(redis_url, serializer, protocol):
    job = {"t": None, "f": "echo", "a": (Trap(),), "k": {}, "et": 1}
    payload = pickle.dumps(job, protocol=protocol)
    task = SchedulableTask(task_id="one", payload=payload, group=GROUP)
    async with (
        await create_pool(redis_url, serializer=serializer) as jobs,
        working(redis_url, echo, serializer=serializer) as worker,
    ):
        assert await jobs.tasks.queue.submit(task)
        known = Job(
            "one",
            jobs,
            _queue_name=jobs.default_queue_name,
            _deserializer=jobs.job_deserializer,
        )
        with pytest.raises(TaskFailed, match="DeserializationError") as failure:
            await result_of(known)
        assert "Pickles are never read" in failure.value.traceback_text
        assert worker.jobs_failed == 1
        assert await result_of(await jobs.enqueue_job("echo", 1)) == [1]
    assert not Trap.sprung


async def test_a_job_of_another_serializer_fails_and_the_worker_goes_on(redis_url, jobs):
    async with await create_pool(redis_url, serializer="msgpack") as packed:
        await packed.enqueue_job("echo", 1, _job_id="one")
    async with working(redis_url, echo):
        job = Job("one", jobs, _queue_name=jobs.default_queue_name, _deserializer=load_job)
        with pytest.raises(TaskFailed, match="DeserializationError"):
            await result_of(job)
        assert await result_of(await jobs.enqueue_job("echo", 1)) == [1]
