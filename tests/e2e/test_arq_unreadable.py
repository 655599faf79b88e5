"""What other programs write under arq's keys: never executed, told of its job, others unharmed."""

from __future__ import annotations

import json
import pickle
from datetime import timedelta

import msgpack
import pytest
import redis
from arq.jobs import Job, JobStatus, ResultNotFound

from forebay.contracts.errors import ConfigurationError, JobUnreadable, TaskFailed
from forebay.contracts.tasks import SchedulableTask
from forebay.workers.arq.pool import create_pool
from tests.support import wait_until
from tests.support_arq import GROUP, Gate, result_of, working

JOB = {"t": None, "f": "echo", "a": [1], "k": {}, "et": 1}
RESULT = {**JOB, "t": 1, "s": True, "r": 1, "st": 1, "ft": 1}


class Trap:
    """Tells whether a pickle was read."""

    sprung = False

    def __reduce__(self):
        return (setattr, (Trap, "sprung", True))


@pytest.fixture(autouse=True)
def _no_trap_sprung():
    Trap.sprung = False
    yield
    assert not Trap.sprung


async def echo(ctx, *values):
    return values


PICKLES = {
    f"pickle protocol {protocol}": pickle.dumps({**RESULT, "a": (Trap(),)}, protocol=protocol)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
}
FOREIGN = PICKLES | {
    "bytes": b"\xff\xfe\x00garbage",
    "text": b"garbage",
    "null": b"null",
    "a list": b"[]",
    "a number": b"5",
    "an empty table": b"{}",
    "deep nesting": b"[" * 100_000 + b"]" * 100_000,
    "deep nesting in it": json.dumps(JOB).encode().replace(b"[1]", b"[" * 100_000 + b"]" * 100_000),
    "long number": b'{"t": ' + b"9" * 5000 + b"}",
    "msgpack": msgpack.packb(RESULT),
    "half an error": json.dumps({**RESULT, "f": {"__forebay_error__": "X"}}).encode(),
    **{
        f"wrong {name} {value!r}"[:40]: json.dumps({**RESULT, name: value}).encode()
        for name, values in {
            "f": [None, 5, [], {}],
            "a": [None, "text", {}],
            "k": [None, [], "text"],
            "t": ["1", [], True],
            "et": [None, "1", 1.5, -1, 10**15, 10**300, True],
        }.items()
        for value in values
    },
    **{
        f"lacks {name}": json.dumps({key: RESULT[key] for key in RESULT if key != name}).encode()
        for name in JOB
    },
}
FOREIGN_RESULTS = FOREIGN | {
    **{
        f"wrong {name} {value!r}"[:40]: json.dumps({**RESULT, name: value}).encode()
        for name, values in {"s": [None, 1], "st": [None, "1"], "ft": [-1, 10**300]}.items()
        for value in values
    },
    **{
        f"lacks {name}": json.dumps({key: RESULT[key] for key in RESULT if key != name}).encode()
        for name in ("s", "r", "st", "ft")
    },
}


def each(stored):
    return pytest.mark.parametrize("stored", list(stored.values()), ids=list(stored))


def made_by_hand(job_id, pool):
    return Job(job_id, pool)


ways = pytest.mark.parametrize(
    "job_of", [made_by_hand, lambda job_id, pool: pool.job(job_id)], ids=["by hand", "pool.job"]
)


def check_told(error, job_id="one"):
    assert error.job_id == job_id
    assert f"job {job_id!r}" in str(error)
    assert f"pool.job({job_id!r})" in str(error)
    assert len(str(error)) < 600


# -- reading


@each(FOREIGN_RESULTS)
@ways
async def test_foreign_result_is_one_typed_error_and_runs_no_code(jobs, job_of, stored):
    await jobs.set("arq:result:one", stored)
    job = job_of("one", jobs)
    for reading in (job.result(timeout=5), job.result_info(), job.info()):
        with pytest.raises(JobUnreadable) as refused:
            await reading
        check_told(refused.value)
    assert await job.status() is JobStatus.complete
    await jobs.delete("arq:result:one")


@each(FOREIGN)
@ways
async def test_foreign_payload_is_one_typed_error_and_runs_no_code(jobs, job_of, stored):
    await jobs.set("arq:job:one", stored)
    job = job_of("one", jobs)
    for reading in (job.info(), job.abort(timeout=5)):
        with pytest.raises(JobUnreadable) as refused:
            await reading
        check_told(refused.value)
    await jobs.delete("arq:job:one")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
async def test_a_pool_of_msgpack_runs_no_code_either(redis_url, protocol):
    stored = pickle.dumps({**RESULT, "a": (Trap(),)}, protocol=protocol)
    async with await create_pool(redis_url, serializer="msgpack") as packed:
        for key in ("arq:result:one", "arq:job:two"):
            await packed.set(key, stored)
        for reading in (Job("one", packed).result(), Job("two", packed).info()):
            with pytest.raises(JobUnreadable):
                await reading
        await packed.set("arq:result:one", json.dumps(RESULT))
        with pytest.raises(JobUnreadable, match="not msgpack"):
            await packed.job("one").result()


async def test_every_way_to_read_a_key_is_guarded(jobs):
    await jobs.set("arq:result:one", PICKLES["pickle protocol 4"])
    await jobs.set("other", b"5")

    async def by_pipeline(transaction):
        async with jobs.pipeline(transaction=transaction) as pipe:
            await pipe.get("other").get("arq:result:one").execute()

    async def while_watching():
        async with jobs.pipeline() as pipe:
            await pipe.watch("other")
            await pipe.get("arq:result:one")

    for reading in (
        jobs.get("arq:result:one"),
        jobs.get(b"arq:result:one"),
        jobs.mget(["other", "arq:result:one"]),
        jobs.mget("other", b"arq:result:one"),
        jobs.getex("arq:result:one", ex=60),
        jobs.execute_command("get", "arq:result:one"),
        by_pipeline(transaction=True),
        by_pipeline(transaction=False),
        while_watching(),
    ):
        with pytest.raises(JobUnreadable):
            await reading
    assert await jobs.get("other") == b"5"
    assert await jobs.mget("other", "absent") == [b"5", None]
    await jobs.delete("arq:result:one", "other")


async def test_lists_of_jobs_leave_out_what_others_wrote(redis_url, jobs, caplog):
    await jobs.enqueue_job("echo", _job_id="ours", _defer_by=60)
    await jobs.enqueue_job("echo", _job_id="spoiled", _defer_by=60)
    await jobs.set("arq:job:spoiled", b"garbage")
    await jobs.set("arq:result:done", json.dumps(RESULT | {"q": jobs.default_queue_name}))
    await jobs.set("arq:result:foreign", PICKLES["pickle protocol 4"])
    await jobs.set(b"arq:result:\xff", b"garbage")
    assert [job.job_id for job in await jobs.queued_jobs()] == ["ours"]
    assert [result.job_id for result in await jobs.all_job_results()] == ["done"]
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "spoiled" in told
    assert "foreign" in told
    for job_id in ("ours", "spoiled"):
        assert await jobs.tasks.queue.discard(job_id)


ODD_TYPES = {
    "list": ("rpush", "x"),
    "hash": ("hset", "x", "y"),
    "set": ("sadd", "x"),
    "sorted set": ("zadd", {"x": 1}),
    "stream": ("xadd", {"x": "y"}),
}
odd_types = pytest.mark.parametrize("odd", ODD_TYPES.values(), ids=ODD_TYPES)


async def write(jobs, key, odd):
    command, *value = odd
    await getattr(jobs, command)(key, *value)


@odd_types
@ways
async def test_a_key_of_another_type_is_one_typed_error_of_its_job(jobs, job_of, odd, caplog):
    await write(jobs, "arq:result:one", odd)
    await write(jobs, "arq:job:two", odd)
    one, two = job_of("one", jobs), job_of("two", jobs)
    for reading in (one.result(timeout=5), one.result_info(), one.info(), one.abort(timeout=5)):
        with pytest.raises(JobUnreadable, match="the key is of another type") as refused:
            await reading
        check_told(refused.value)
    with pytest.raises(JobUnreadable, match="the payload of job 'two'"):
        await two.info()
    assert await jobs.all_job_results() == []
    assert "task_id='one'" in caplog.text
    await jobs.delete("arq:result:one", "arq:job:two")


@pytest.mark.parametrize("transaction", [True, False])
async def test_a_pipelines_other_errors_are_redis_own(jobs, transaction):
    await jobs.rpush("other", "x")
    async with jobs.pipeline(transaction=transaction) as pipe:
        with pytest.raises(redis.ResponseError, match=r"^Command # 2 \(GET other\)"):
            await pipe.ping().get("other").execute()
    async with jobs.pipeline(transaction=transaction) as pipe:
        answers = await pipe.get("absent").get("other").execute(raise_on_error=False)
    assert answers[0] is None
    assert isinstance(answers[1], redis.ResponseError)
    await jobs.delete("other")


@odd_types
@pytest.mark.parametrize("kind", ["result", "in-progress", "retry"])
async def test_a_key_of_another_type_beside_a_job_holds_up_nothing(redis_url, jobs, kind, odd):
    await jobs.tasks.set_state("paused")
    job = await jobs.enqueue_job("echo", 1, _job_id="one")
    await write(jobs, f"arq:{kind}:one", odd)
    async with working(redis_url, echo) as worker:
        await jobs.tasks.set_state("open")
        await wait_until(lambda: worker.jobs_complete == 1)
        assert await result_of(job) == [1]
        assert not worker.main_task.done()
    await jobs.delete(f"arq:{kind}:one")


# -- a job made by hand


async def test_job_made_by_hand_is_answered_as_one_of_the_pool(redis_url, jobs):
    gate = Gate()
    by_hand = Job("one", jobs)
    assert await by_hand.status() is JobStatus.not_found
    with pytest.raises(ResultNotFound):
        await by_hand.result(timeout=5)
    await jobs.enqueue_job("gated", _job_id="one", _defer_by=timedelta(hours=1))
    assert await by_hand.status() is JobStatus.deferred
    assert (await by_hand.info()).function == "gated"
    await jobs.tasks.queue.discard("one")

    await jobs.enqueue_job("gated", _job_id="one")
    assert await by_hand.status() is JobStatus.queued
    async with working(redis_url, gate.gated):
        await wait_until(lambda: gate.inside)
        assert await by_hand.status() is JobStatus.in_progress
        gate.open.set()
        assert await by_hand.result(timeout=10, poll_delay=0.01) == "let go"
        assert await by_hand.status() is JobStatus.complete
        assert (await by_hand.info()).result == "let go"
    assert await jobs.exists("arq:queue") == 0


async def test_job_made_by_hand_is_told_how_it_failed(redis_url, jobs):
    async def fail(ctx):
        raise ValueError("no")

    await jobs.enqueue_job("fail", _job_id="one")
    async with working(redis_url, fail):
        with pytest.raises(TaskFailed, match="ValueError: no"):
            await result_of(Job("one", jobs))


@pytest.mark.parametrize("delay", [None, 3600], ids=["runs", "deferred"])
async def test_job_made_by_hand_can_be_aborted_and_leaves_arqs_own_queue_alone(
    redis_url, jobs, delay
):
    gate = Gate()
    async with working(redis_url, gate.gated, allow_abort_jobs=True):
        await jobs.enqueue_job("gated", _job_id="one", _defer_by=delay)
        if delay is None:
            await wait_until(lambda: gate.inside)
        assert await Job("one", jobs).abort(timeout=10, poll_delay=0.01)
    assert await jobs.exists("arq:queue") == 0


async def test_workers_own_client_answers_alike(redis_url, jobs):
    seen = []

    async def ask(ctx, job_id):
        seen.append(await Job(job_id, ctx["redis"]).result(timeout=10))
        seen.append(await ctx["redis"].job(job_id).result(timeout=10))
        await ctx["redis"].set("arq:result:trap", PICKLES["pickle protocol 4"])
        try:
            await Job("trap", ctx["redis"]).result(timeout=10)
        except JobUnreadable as error:
            seen.append(error.job_id)

    async with working(redis_url, echo, ask):
        await result_of(await jobs.enqueue_job("echo", 7, _job_id="one"))
        await result_of(await jobs.enqueue_job("ask", "one"))
    assert seen == [[7], [7], "trap"]


@pytest.mark.parametrize("job_id", ["", None, 5, "x" * 513, "\udc80"])
async def test_id_that_no_job_can_have_is_refused(jobs, job_id):
    with pytest.raises(ConfigurationError, match="job id"):
        jobs.job(job_id)


# -- running


@each(FOREIGN)
async def test_foreign_payload_fails_its_job_in_a_sentence_and_ends_no_worker(
    redis_url, jobs, stored
):
    task = SchedulableTask(task_id="one", payload=stored, group=GROUP)
    async with working(redis_url, echo) as worker:
        assert await jobs.tasks.queue.submit(task)
        with pytest.raises(TaskFailed, match="DeserializationError: the payload of job 'one'"):
            await result_of(jobs.job("one"))
        assert (worker.jobs_failed, worker.jobs_complete) == (1, 0)
        assert await result_of(await jobs.enqueue_job("echo", 1)) == [1]
        assert not worker.main_task.done()


SPOILT = {
    "garbage": ("set", "garbage"),
    "pickle": ("set", PICKLES["pickle protocol 2"]),
    "empty": ("set", ""),
    "list": ("rpush", "x"),
    "hash": ("hset", "x", "y"),
}


@pytest.mark.parametrize("spoilt", SPOILT.values(), ids=SPOILT)
@pytest.mark.parametrize("idle", [True, False], ids=["pushed", "asked for"])
async def test_payload_that_was_overwritten_fails_its_job_alone(redis_url, jobs, spoilt, idle):
    async def spoil_one():
        await jobs.tasks.set_state("paused")
        await jobs.enqueue_job("echo", _job_id="one")
        if not idle:
            await jobs.enqueue_job("echo", 2, _job_id="two")
        await jobs.delete("arq:job:one")
        write, *value = spoilt
        await getattr(jobs, write)("arq:job:one", *value)

    if not idle:
        await spoil_one()
    async with working(redis_url, echo) as worker:
        if idle:
            await spoil_one()
        await jobs.tasks.set_state("open")
        with pytest.raises(TaskFailed, match="DeserializationError: the payload of job 'one'"):
            await result_of(jobs.job("one"))
        assert await result_of(await jobs.enqueue_job("echo", 2, _job_id="three")) == [2]
        assert not worker.main_task.done()
    assert await jobs.exists("arq:job:one") == 0


async def test_foreign_abort_requests_are_dropped_and_the_others_heard(redis_url, jobs):
    gate = Gate()
    async with working(redis_url, gate.gated, allow_abort_jobs=True) as worker:
        await jobs.enqueue_job("gated", _job_id="one")
        await wait_until(lambda: gate.inside)
        await jobs.zadd("arq:abort", {b"\xff": 1, b"": 2, b"x" * 600: 3})
        assert await jobs.job("one").abort(timeout=10, poll_delay=0.01)
        assert not worker.main_task.done()
        await wait_until(lambda: _is_gone(jobs, "arq:abort"))


async def _is_gone(jobs, key):
    return await jobs.exists(key) == 0


async def test_abort_requests_under_a_key_of_another_type_hold_up_no_job(redis_url, jobs, caplog):
    await jobs.set("arq:abort", "x")
    async with working(redis_url, echo, allow_abort_jobs=True) as worker:
        assert await result_of(await jobs.enqueue_job("echo", 1)) == [1]
        await wait_until(lambda: any("WRONGTYPE" in one.getMessage() for one in caplog.records))
        assert not worker.main_task.done()
    assert sum("WRONGTYPE" in one.getMessage() for one in caplog.records) <= 2
    await jobs.delete("arq:abort")


async def test_foreign_payload_of_an_aborted_job_is_discarded_with_it(redis_url, jobs):
    await jobs.enqueue_job("echo", _job_id="one", _defer_by=3600)
    await jobs.set("arq:job:one", b"garbage")
    await jobs.zadd("arq:abort", {"one": 1})
    async with working(redis_url, echo, allow_abort_jobs=True):
        await wait_until(lambda: _is_gone(jobs, "arq:job:one"))
    info = await jobs.job("one").result_info()
    assert (info.function, info.success) == ("<unknown>", False)
