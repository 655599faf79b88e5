"""``enqueue_job`` through Forebay's pool takes arq's arguments, a group and resources.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from arq.connections import ArqRedis
from arq.jobs import JobStatus
from arq.utils import timestamp_ms, to_unix_ms
from arq.worker import Retry

from forebay.contracts.errors import ConfigurationError, TaskFailed
from forebay.contracts.identity import TaskGroupKey, TaskGroupKind, TaskGroupSpec
from forebay.contracts.settings import MemberSettings
from forebay.contracts.tasks import SchedulerResourceRequest, TaskAdmissionError
from forebay.workers.arq.pool import create_pool
from forebay.workers.arq.serialization import load_job
from tests.support import wait_until
from tests.support_arq import Gate, result_of, working

HOUR = timedelta(hours=1)


async def echo(ctx, *args, **kwargs):
    return {"args": args, "kwargs": kwargs, "try": ctx["job_try"]}


async def test_arguments_reach_the_function_by_position_and_by_name(redis_url, jobs):
    job = await jobs.enqueue_job("echo", 1, None, {"a": [True, "ü"]}, by_name=2.5, _job_id="one")
    info = await job.info()
    assert (info.args, info.kwargs) == ((1, None, {"a": [True, "ü"]}), {"by_name": 2.5})
    async with working(redis_url, echo):
        result = await result_of(job)
    assert result["args"] == [1, None, {"a": [True, "ü"]}]
    assert result["kwargs"] == {"by_name": 2.5}


async def test_jobs_without_an_id_are_jobs_of_their_own(redis_url, jobs):
    enqueued = [await jobs.enqueue_job("echo", n) for n in range(3)]
    assert len({job.job_id for job in enqueued}) == 3
    async with working(redis_url, echo):
        assert [(await result_of(job))["args"] for job in enqueued] == [[0], [1], [2]]


async def test_a_group_takes_its_name_and_weight_from_the_call(redis_url, jobs):
    spec = TaskGroupSpec(
        key=TaskGroupKey(kind=TaskGroupKind.MODEL, identity=("lab", "large")),
        weight=2.0,
        admitted_limit=4,
    )

    class Weight(float):
        """As numpy has them: its repr is no number."""

        def __repr__(self):
            return "Weight(3.0)"

    await jobs.enqueue_job("echo", _group="gold", _weight=Weight(3.0))
    await jobs.enqueue_job("echo", _group=spec)
    await jobs.enqueue_job("echo")
    view = await jobs.tasks.queue.view()
    assert view.queued_by_group == {"local/gold": 1, "model/lab/large": 1, "local/default": 1}
    weights = {name: (group.weight, group.admitted_limit) for name, group in view.groups.items()}
    assert weights == {
        "local/gold": (3.0, None),
        "model/lab/large": (2.0, 4),
        "local/default": (1.0, None),
    }


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        (None, {"submission": 1}),
        ({"gpu": 2}, {"submission": 1, "gpu": 2}),
        ({"submission": 3}, {"submission": 3}),
        (SchedulerResourceRequest(amounts={"gpu": 1}), {"gpu": 1}),
    ],
)
async def test_resources_are_taken_while_a_job_runs_and_no_longer(redis_url, jobs, asked, taken):
    gate = Gate()
    await jobs.tasks.set_limit("gpu", 2)
    async with working(redis_url, gate.gated):
        job = await jobs.enqueue_job("gated", _resources=asked)
        await wait_until(lambda: gate.inside)
        leased = (await jobs.tasks.view()).leased
        assert {name: units for name, units in leased.items() if units} == taken
        gate.open.set()
        await result_of(job)
        assert not any((await jobs.tasks.view()).leased.values())


async def test_jobs_share_a_resource_up_to_its_limit(redis_url, jobs):
    gate = Gate()
    await jobs.tasks.set_limit("gpu", 2)
    async with working(redis_url, gate.gated, echo):
        queued = [await jobs.enqueue_job("gated", _resources={"gpu": 1}) for _ in range(3)]
        await wait_until(lambda: len(gate.inside) == 2)
        assert (await result_of(await jobs.enqueue_job("echo", _group="peers")))["try"] == 1
        assert await queued[2].status() is JobStatus.queued
        gate.open.set()
        for job in queued:
            await result_of(job)
    assert gate.inside == [job.job_id for job in queued]


@pytest.mark.parametrize(
    "defer",
    [
        {"_defer_by": 3600},
        {"_defer_by": HOUR},
        {"_defer_until": HOUR},
    ],
    ids=["seconds", "timedelta", "until"],
)
async def test_a_deferred_job_waits_for_its_time(redis_url, jobs, defer):
    before = datetime.now(UTC)
    if "_defer_until" in defer:
        defer = {"_defer_until": before + HOUR}
    job = await jobs.enqueue_job("echo", **defer)
    assert await job.status() is JobStatus.deferred
    due = datetime.fromtimestamp((await job.info()).score / 1000, UTC)
    assert before + HOUR - timedelta(seconds=1) < due < before + HOUR + timedelta(seconds=60)


@pytest.mark.parametrize(
    "until",
    [
        datetime(2032, 1, 1, tzinfo=UTC),
        datetime(2031, 7, 1, 12, 30, 15, 999_600),  # noqa: DTZ001 - of the local time, as in arq
        datetime(2001, 9, 9, 1, 46, 40, 400, tzinfo=timezone(HOUR)),
    ],
    ids=["later", "without a zone", "past"],
)
async def test_an_instant_is_the_score_of_its_job_as_in_arq(jobs, until):
    job = await jobs.enqueue_job("echo", _defer_until=until)
    assert (await job.info()).score == to_unix_ms(until)
    is_later = until.timestamp() > datetime.now(UTC).timestamp()
    assert await job.status() is (JobStatus.deferred if is_later else JobStatus.queued)


async def test_a_negative_span_makes_a_job_older_and_lets_it_run(redis_url, jobs):
    before_ms = timestamp_ms()
    job = await jobs.enqueue_job("echo", _defer_by=-2)
    assert before_ms - 2000 <= (await job.info()).score <= timestamp_ms() - 2000
    async with working(redis_url, echo):
        await result_of(job)


@pytest.mark.parametrize("by", ["_defer_by", "_defer_until"])
async def test_a_deferred_job_runs_when_its_time_has_come_and_not_before(redis_url, jobs, by):
    ran_at = []

    async def note(ctx):
        ran_at.append(datetime.now(UTC))

    rarely = MemberSettings(recheck_seconds=60.0)  # an idle worker is told when to look again
    async with working(redis_url, note, member=rarely) as worker:
        await wait_until(lambda: jobs.exists(worker.tasks_admission.keys["idle"]))
        due = datetime.now(UTC) + timedelta(seconds=0.2)
        defer = due if by == "_defer_until" else 0.2
        await result_of(await jobs.enqueue_job("note", **{by: defer}))
    assert ran_at[0] >= due


async def test_a_time_that_has_passed_is_now(redis_url, jobs):
    job = await jobs.enqueue_job("echo", _defer_until=datetime.now(UTC) - HOUR)
    assert await job.status() is JobStatus.queued
    async with working(redis_url, echo):
        await result_of(job)


async def test_two_ways_to_defer_are_refused(jobs):
    with pytest.raises(ConfigurationError, match="_defer_until or _defer_by"):
        await jobs.enqueue_job("echo", _defer_by=1, _defer_until=datetime.now(UTC))
    assert await jobs.keys("arq:*") == []


async def test_a_job_that_expired_in_the_queue_is_not_run_and_says_so(redis_url, jobs):
    gate = Gate()
    async with working(redis_url, gate.gated, echo, max_jobs=1) as worker:
        await jobs.enqueue_job("gated")
        await wait_until(lambda: gate.inside)
        job = await jobs.enqueue_job("echo", _job_id="late", _expires=timedelta(seconds=0.01))
        await wait_until(lambda: is_gone(jobs, "arq:job:late"))
        gate.open.set()
        with pytest.raises(TaskFailed, match="JobExecutionFailed: job expired"):
            await result_of(job)
        assert worker.jobs_failed == 1


async def test_an_id_whose_job_expired_in_the_queue_is_enqueued_anew(redis_url, jobs):
    await jobs.enqueue_job("echo", "old", _job_id="late", _expires=0.01)
    await wait_until(lambda: is_gone(jobs, "arq:job:late"))
    job = await jobs.enqueue_job("echo", "new", _job_id="late")
    assert (await jobs.tasks.queue.view()).queued_total == 1
    async with working(redis_url, echo):
        assert (await result_of(job))["args"] == ["new"]


async def is_gone(jobs, key):
    return not await jobs.exists(key)


async def test_tries_are_counted_from_job_try_on(redis_url, jobs):
    tries = []

    async def again(ctx):
        tries.append(ctx["job_try"])
        raise Retry

    job = await jobs.enqueue_job("again", _job_try=3)
    assert (await job.info()).job_try == 3
    async with working(redis_url, again, max_tries=4):
        with pytest.raises(TaskFailed, match="max 4 retries exceeded"):
            await result_of(job)
    assert tries == [3, 4]


async def test_an_id_is_enqueued_once_while_its_job_waits_runs_or_has_a_result(redis_url, jobs):
    gate = Gate()
    await jobs.enqueue_job("echo", _job_id="deferred", _defer_by=HOUR)
    assert await jobs.enqueue_job("echo", _job_id="deferred") is None
    job = await jobs.enqueue_job("gated", _job_id="one")
    assert await jobs.enqueue_job("echo", _job_id="one") is None
    async with working(redis_url, gate.gated, echo):
        await wait_until(lambda: gate.inside)
        assert await jobs.enqueue_job("echo", _job_id="one") is None
        gate.open.set()
        await result_of(job)
        assert await jobs.enqueue_job("echo", _job_id="one") is None
        await jobs.delete("arq:result:one")
        again = await jobs.enqueue_job("echo", "again", _job_id="one")
        assert (await result_of(again))["args"] == ["again"]
    assert gate.inside == ["one"]


async def test_an_id_that_another_pool_has_queued_is_not_taken_from_it(redis_url, jobs):
    job = await jobs.enqueue_job("echo", "first", _job_id="one")
    async with await create_pool(redis_url, pool="other") as others:
        with pytest.raises(TaskAdmissionError, match="'one' is held by pool 'default'"):
            await others.enqueue_job("echo", "second", _job_id="one")
        other = await others.enqueue_job("echo", "other")
        async with working(redis_url, echo, pool="other"):
            assert (await result_of(other))["args"] == ["other"]
        with pytest.raises(ConfigurationError, match=r"fb:\{pool:other\}:queue.*pool="):
            await jobs.enqueue_job("echo", _queue_name=others.default_queue_name)
    async with working(redis_url, echo):
        assert (await result_of(job))["args"] == ["first"]


async def test_all_that_wait_and_all_results_are_listed_by_arqs_own_client(redis_url, jobs):
    client = ArqRedis(
        jobs.connection_pool,
        job_deserializer=load_job,
        default_queue_name=jobs.default_queue_name,
    )
    await jobs.enqueue_job("echo", "later", _job_id="b:later", _defer_by=HOUR)
    await jobs.enqueue_job("echo", "now", _job_id="a:now")
    for reader in (client, jobs):
        assert [(job.job_id, [*job.args]) for job in await reader.queued_jobs()] == [
            ("a:now", ["now"]),
            ("b:later", ["later"]),
        ]
    async with working(redis_url, echo):
        await wait_until(lambda: jobs.exists("arq:result:a:now"))
    for reader in (client, jobs):
        assert [job.job_id for job in await reader.queued_jobs()] == ["b:later"]
        results = [(result.job_id, result.success) for result in await reader.all_job_results()]
        assert results == [("a:now", True)]
