"""Jobs are looked up by their id with arq's own ``Job``, and listed, on a pool (docs/arq.md)."""

from __future__ import annotations

import asyncio
import json
import pickle
from datetime import timedelta
from unittest.mock import MagicMock

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job, JobStatus, ResultNotFound, serialize_job, serialize_result
from arq.worker import func

from forebay.contracts.errors import ConfigurationError, JobUnreadable, TaskFailed
from forebay.contracts.settings import MemberSettings
from forebay.workers.arq.pool import create_pool
from tests.support import wait_until
from tests.support_arq import PATIENCE_SECONDS, Gate, result_of, working

HOUR = timedelta(hours=1)


class Trap:
    """Tells whether a pickle was read."""

    sprung = False

    def __reduce__(self):
        return (setattr, (Trap, "sprung", True))


async def echo(ctx, *args, **kwargs):
    return [*args]


async def fail(ctx):
    raise ValueError("no")


# -- arq's own Job(id, pool)


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
async def test_a_job_made_by_hand_is_the_pools_from_its_queue_to_its_result(redis_url, serializer):
    async with await create_pool(redis_url, serializer=serializer) as pool:
        await pool.enqueue_job("echo", 1, _job_id="now")
        await pool.enqueue_job("echo", 2, _job_id="later", _defer_by=HOUR)
        now, later = Job("now", pool), Job("later", pool)
        assert await now.status() is JobStatus.queued
        assert await later.status() is JobStatus.deferred
        assert ((await now.info()).function, (await now.info()).args) == ("echo", (1,))
        with pytest.raises(TimeoutError):
            await now.result(timeout=0.0, poll_delay=0.001)
        async with working(redis_url, echo, serializer=serializer):
            assert await result_of(now) == [1]
        assert await now.status() is JobStatus.complete
        assert (await now.result_info()).job_id == "now"
        await pool.tasks.queue.discard("later")


async def test_a_job_made_by_hand_raises_what_the_job_raised(redis_url, jobs):
    await jobs.enqueue_job("fail", _job_id="one")
    async with working(redis_url, fail):
        with pytest.raises(TaskFailed, match="ValueError: no"):
            await result_of(Job("one", jobs))


async def test_a_job_made_by_hand_is_aborted(redis_url, jobs):
    gate = Gate()
    async with working(redis_url, gate.gated, allow_abort_jobs=True):
        await jobs.enqueue_job("gated", _job_id="one")
        await wait_until(lambda: gate.inside)
        assert await Job("one", jobs).abort(timeout=PATIENCE_SECONDS, poll_delay=0.01) is True
    assert gate.cancelled == ["one"]


async def test_of_an_unknown_job_there_is_nothing_to_tell(jobs):
    job = Job("absent", jobs)
    assert await job.status() is JobStatus.not_found
    assert await job.info() is None
    assert await job.result_info() is None
    with pytest.raises(ResultNotFound):
        await job.result(timeout=5)
    assert await job.abort(timeout=5) is False
    await jobs.delete("arq:abort")


async def test_a_job_looks_others_up_through_its_context(redis_url, jobs):
    async def look(ctx):
        await ctx["redis"].enqueue_job("echo", 1, _job_id="inner")
        return await Job("inner", ctx["redis"]).result(timeout=PATIENCE_SECONDS, poll_delay=0.01)

    async with working(redis_url, look, echo):
        assert await result_of(await jobs.enqueue_job("look")) == [1]


async def test_the_queue_that_a_caller_names_is_kept_and_a_deserializer_is_refused(jobs):
    job = Job("one", jobs, "another:queue", jobs.job_deserializer)
    assert (job._queue_name, job._deserializer) == ("another:queue", jobs.job_deserializer)
    with pytest.raises(ConfigurationError, match="job 'one' is given a _deserializer"):
        Job("one", jobs, _deserializer=pickle.loads)


async def test_what_lies_under_a_key_is_read_as_it_is_stored(redis_url, jobs):
    async with working(redis_url, echo):
        await result_of(await jobs.enqueue_job("echo", 1, _job_id="one"))
    stored = await jobs.get("arq:result:one")
    assert stored == (await jobs.eval("return redis.call('GET', KEYS[1])", 1, "arq:result:one"))
    assert json.loads(stored)["r"] == [1]


@pytest.mark.parametrize("redis", [ArqRedis(), MagicMock(), None], ids=["arq", "mock", "none"])
def test_a_job_of_another_connection_is_arqs_own(redis):
    job = Job("one", redis)
    assert (job._queue_name, job._deserializer) == ("arq:queue", None)


# -- queued_jobs


async def test_jobs_that_are_not_finished_are_listed_by_the_time_from_which_they_may_run(
    redis_url, jobs
):
    gate = Gate()
    await jobs.enqueue_job("gated", _job_id="running")
    async with working(redis_url, gate.gated, max_jobs=1):
        await wait_until(lambda: gate.inside)
        await jobs.enqueue_job("gated", 1, _job_id="later", _defer_by=HOUR, _job_try=2)
        await jobs.enqueue_job("gated", a=2, _job_id="past", _defer_by=-HOUR)
        await jobs.enqueue_job("gated", _job_id="waiting")
        listed = await jobs.queued_jobs()
        assert [job.job_id for job in listed] == ["past", "running", "waiting", "later"]
        past, *_, later = listed
        assert (past.function, past.args, past.kwargs) == ("gated", (), {"a": 2})
        assert (later.args, later.job_try) == ((1,), 2)
        assert [job.score for job in listed] == sorted(job.score for job in listed)
        for job_id in ("past", "waiting", "later"):
            await jobs.tasks.queue.discard(job_id)
        gate.open.set()
        await result_of(Job("running", jobs))
    assert await jobs.queued_jobs() == []


async def test_a_job_that_expired_in_the_queue_is_not_listed(jobs):
    await jobs.enqueue_job("echo", _job_id="one")
    await jobs.enqueue_job("echo", _job_id="two")
    await jobs.delete("arq:job:one")
    assert [job.job_id for job in await jobs.queued_jobs()] == ["two"]


async def test_jobs_of_another_pool_are_not_listed_and_its_queue_is_refused(redis_url, jobs):
    async with await create_pool(redis_url, pool="other") as others:
        await others.enqueue_job("echo", _job_id="one")
        assert await jobs.queued_jobs() == []
        assert len(await others.queued_jobs(queue_name=others.default_queue_name)) == 1
        with pytest.raises(ConfigurationError, match=r"is not this pool's.*pool="):
            await jobs.queued_jobs(queue_name=others.default_queue_name)
        with pytest.raises(ConfigurationError, match="'arq:queue' is not this pool's"):
            await jobs.queued_jobs(queue_name="arq:queue")
        await others.tasks.queue.discard("one")


async def test_many_jobs_are_listed_over_few_connections(redis_url, jobs):
    count = 100
    await asyncio.gather(*(jobs.enqueue_job("echo", n, _job_id=f"{n:03}") for n in range(count)))
    before = (await jobs.info("stats"))["total_connections_received"]
    listed = await jobs.queued_jobs()
    assert sorted(job.job_id for job in listed) == [f"{n:03}" for n in range(count)]
    async with working(redis_url, echo, burst=True) as worker:
        await wait_until(worker.main_task.done)
    results = await jobs.all_job_results()
    assert [result.result for result in sorted(results, key=lambda one: one.job_id)] == [
        [n] for n in range(count)
    ]
    assert (await jobs.info("stats"))["total_connections_received"] < before + count / 2


# -- all_job_results


async def test_results_are_listed_by_the_time_of_their_enqueueing(redis_url, jobs):
    async with working(redis_url, echo, fail):
        for job_id, function in (("b", "echo"), ("a", "fail"), ("c", "echo")):
            job = await jobs.enqueue_job(function, _job_id=job_id)
            await wait_until(lambda job=job: jobs.exists(f"arq:result:{job.job_id}"))
    results = await jobs.all_job_results()
    assert [(one.job_id, one.function, one.success) for one in results] == [
        ("b", "echo", True),
        ("a", "fail", False),
        ("c", "echo", True),
    ]
    assert {one.queue_name for one in results} == {jobs.default_queue_name}


async def test_results_of_other_pools_and_of_arq_itself_are_not_listed(redis_url, jobs, caplog):
    foreign = serialize_result("f", (), {}, 1, 1, True, 1, 1, 1, "f", "arq:queue", "arqs")
    async with (
        await create_pool(redis_url, pool="other") as others,
        working(redis_url, echo),
        working(redis_url, echo, pool="other"),
    ):
        await result_of(await jobs.enqueue_job("echo", _job_id="one"))
        await result_of(await others.enqueue_job("echo", _job_id="two"))
        assert [one.job_id for one in await jobs.all_job_results()] == ["one"]
        assert caplog.messages == []
        await jobs.set("arq:result:arqs", foreign)
        assert [one.job_id for one in await jobs.all_job_results()] == ["one"]
    (told,) = caplog.messages
    assert "event='job_unreadable' task_id='arqs'" in told
    await jobs.delete("arq:result:arqs")


async def test_a_pickle_is_not_read_by_a_job_made_by_hand_nor_by_the_lists(jobs, caplog):
    job = serialize_job("echo", (Trap(),), {}, None, 1)
    assert job.startswith(pickle.dumps(0)[:2])
    await jobs.enqueue_job("echo", _job_id="one")
    await jobs.set("arq:job:one", job)
    await jobs.set("arq:result:two", job)
    for read in (Job("one", jobs).info, Job("two", jobs).result):
        with pytest.raises(JobUnreadable, match="is not what this pool writes"):
            await read()
    assert await jobs.queued_jobs() == []
    assert await jobs.all_job_results() == []
    assert not Trap.sprung
    await jobs.delete("arq:result:two")
    await jobs.tasks.queue.discard("one")


# -- an expiry for jobs that say none


@pytest.mark.parametrize("defer_seconds", [0, 1000])
async def test_jobs_expire_as_long_after_their_time_as_the_pool_says(redis_url, defer_seconds):
    settings = MemberSettings(ttl_seconds=5.0)
    async with await create_pool(redis_url, settings=settings, expires_extra_ms=600_000) as pool:
        await pool.enqueue_job("echo", _job_id="one", _defer_by=defer_seconds)
        await pool.enqueue_job("echo", _job_id="two", _defer_by=defer_seconds, _expires=50)
        expected_ms = 600_000 + 1000 * defer_seconds
        assert expected_ms - 60_000 < await pool.pttl("arq:job:one") <= expected_ms
        assert await pool.pttl("arq:job:two") <= 50_000
        pool.expires_extra_ms = 1_000_000  # as arq's own, it may be set later
        await pool.enqueue_job("echo", _job_id="three")
        assert 900_000 < await pool.pttl("arq:job:three") <= 1_000_000


async def test_jobs_of_a_pool_that_says_nothing_do_not_expire_while_they_wait(jobs):
    await jobs.enqueue_job("echo", _job_id="one")
    assert await jobs.pttl("arq:job:one") == -1


async def test_jobs_that_a_job_enqueues_expire_as_its_worker_says(redis_url, jobs):
    async def follow(ctx):
        await ctx["redis"].enqueue_job("echo", _job_id="inner", _defer_by=HOUR)

    async with working(redis_url, func(follow, name="follow"), echo, expires_extra_ms=60_000):
        await result_of(await jobs.enqueue_job("follow"))
    assert 3_600_000 < await jobs.pttl("arq:job:inner") <= 3_660_000
    await jobs.tasks.queue.discard("inner")


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "x", True])
async def test_an_expiry_that_is_no_number_of_milliseconds_is_refused(redis_url, wrong):
    with pytest.raises(ConfigurationError, match="expires_extra_ms is"):
        await create_pool(redis_url, expires_extra_ms=wrong)
