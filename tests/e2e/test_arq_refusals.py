"""What cannot be run ``enqueue_job`` refuses with a typed error; nothing is queued.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from arq.connections import RedisSettings

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.tasks import TaskAdmissionError, TaskDenialReason
from forebay.coordinator.tasks.queue import MAX_PAYLOAD_BYTES
from forebay.workers.arq.pool import create_pool
from tests.support import wait_until
from tests.support_arq import result_of, working

WEST = timezone(timedelta(hours=-5))


async def echo(ctx, *args):
    return args


async def nothing_is_queued(jobs):
    return await jobs.keys("arq:*") == [] and await jobs.queued_jobs() == []


@pytest.mark.parametrize(
    ("asked", "reason", "named"),
    [
        ({"tpu": 1}, "unknown_resource", "'tpu'"),
        ({"gpu": 3}, "never_fits", "'gpu'"),
        ({"submission": 10_001}, "never_fits", "'submission'"),
        ({"gpu": 1, "tpu": 1}, "unknown_resource", "'tpu'"),
    ],
)
async def test_what_no_limit_can_meet_is_refused(redis_url, jobs, asked, reason, named):
    await jobs.tasks.set_limit("gpu", 2)
    with pytest.raises(TaskAdmissionError, match=named) as refused:
        await jobs.enqueue_job("echo", _job_id="one", _resources=asked)
    assert refused.value.reason == reason
    assert refused.value.denied.reason is TaskDenialReason.NEVER_FITS
    assert refused.value.denied.item.task_id == "one"
    assert await nothing_is_queued(jobs)
    async with working(redis_url, echo):  # the id is as good as new
        assert await result_of(await jobs.enqueue_job("echo", 1, _job_id="one")) == [1]


async def test_a_job_of_a_function_that_no_live_worker_has_waits_for_one(redis_url, jobs, caplog):
    async with working(redis_url, echo) as worker:
        functions = worker.tasks_admission.keys["functions"]
        await wait_until(lambda: jobs.hexists(functions, "echo"))
        waits = await jobs.enqueue_job("ecko", 1)
        done = await jobs.enqueue_job("echo", 2)  # of the same group, and held up by nothing
        assert await done.result(timeout=5) == [2]
        assert (await jobs.tasks.explain_blocked()).reasons == {TaskDenialReason.NOT_SERVED: 1}
    assert "task_waits_for_its_function" in caplog.text

    async def ecko(ctx, n):
        return -n

    async with working(redis_url, ecko):
        assert await waits.result(timeout=5) == -1


async def test_a_function_that_nobody_serves_is_warned_of_once_until_it_was_served(
    redis_url, jobs, caplog
):
    def warned():
        return caplog.text.count("task_waits_for_its_function")

    for n in range(5):
        await jobs.enqueue_job("echo", n)
    await jobs.enqueue_job("ecko", 1)
    assert warned() == 2
    async with working(redis_url, echo):
        await wait_until(lambda: jobs.hexists(jobs.tasks.keys["functions"], "echo"))
        await result_of(await jobs.enqueue_job("echo", 5))
        assert warned() == 2
    for n in range(5):
        await jobs.enqueue_job("echo", n)
    assert warned() == 3
    await jobs.flushall()


async def test_a_pool_that_drains_takes_nothing_new(redis_url, jobs):
    await jobs.tasks.set_state("draining")
    with pytest.raises(TaskAdmissionError, match="draining") as refused:
        await jobs.enqueue_job("echo")
    assert (refused.value.reason, refused.value.denied.reason) == (
        "shutdown",
        TaskDenialReason.SHUTDOWN,
    )
    assert await nothing_is_queued(jobs)


async def test_a_payload_above_the_bound_is_refused_and_one_below_it_passes(redis_url, jobs):
    with pytest.raises(TaskAdmissionError, match="pass a reference") as refused:
        await jobs.enqueue_job("echo", "x" * MAX_PAYLOAD_BYTES)
    assert refused.value.reason == "payload_too_large"
    assert await nothing_is_queued(jobs)
    async with working(redis_url, echo):
        large = "x" * (MAX_PAYLOAD_BYTES - 1000)
        assert await result_of(await jobs.enqueue_job("echo", large)) == [large]


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
@pytest.mark.parametrize(
    "value", [object(), {1, 2}, datetime.now(UTC), len], ids=lambda value: type(value).__name__
)
async def test_arguments_that_the_serializer_cannot_hold_are_refused(redis_url, serializer, value):
    async with await create_pool(redis_url, serializer=serializer) as jobs:
        for arguments in ([value], [[{"deep": value}]]):
            with pytest.raises(ConfigurationError, match=f"'echo' are no {serializer} values"):
                await jobs.enqueue_job("echo", *arguments)
        with pytest.raises(ConfigurationError, match="are no"):
            await jobs.enqueue_job("echo", by_name=value)
        assert await nothing_is_queued(jobs)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"_job_id": "x" * 513}, "task id"),
        ({"_job_id": "\ud800"}, "task id"),
        ({"_job_try": 0}, "first_try"),
        ({"_job_try": "2"}, "first_try"),
        ({"_defer_by": float("inf")}, "_defer_by"),
        ({"_defer_by": float("nan")}, "_defer_by"),
        ({"_defer_by": timedelta.max}, "_defer_by"),
        ({"_defer_until": 5}, "_defer_until is 5.*_defer_by"),
        ({"_defer_until": datetime(1, 1, 1)}, "_defer_until"),  # noqa: DTZ001
        ({"_defer_until": datetime.max.replace(tzinfo=WEST)}, "_defer_until"),
        ({"_expires": float("inf")}, "expires_seconds"),
        ({"_expires": float("nan")}, "expires_seconds"),
        ({"_group": 3}, "group"),
        ({"_group": "x" * 513}, "group"),
        ({"_weight": 0}, "weight"),
        ({"_weight": True}, "weight"),
        ({"_resources": {"gpu": 0}}, "'gpu'"),
        ({"_resources": {"gpu": 1.5}}, "'gpu'"),
    ],
    ids=repr,
)
async def test_a_wrong_name_or_number_is_refused_by_its_name(jobs, wrong, named):
    with pytest.raises(ConfigurationError, match=named):
        await jobs.enqueue_job("echo", **wrong)
    assert await nothing_is_queued(jobs)


@pytest.mark.parametrize("name", ["", "x" * 513, 3])
async def test_a_function_without_a_proper_name_is_refused(jobs, name):
    with pytest.raises(ConfigurationError, match="function"):
        await jobs.enqueue_job(name)
    assert await nothing_is_queued(jobs)


@pytest.mark.parametrize(
    ("function", "settings"),
    [(None, {}), ("echo", {"_resources": ["gpu"]}), ("echo", {"_resources": "gpu"})],
    ids=["no function", "a list of resources", "the name of a resource"],
)
async def test_what_names_no_function_or_no_amounts_is_refused(jobs, function, settings):
    with pytest.raises(ConfigurationError):
        await jobs.enqueue_job(function, **settings)
    assert await nothing_is_queued(jobs)


async def test_what_is_no_url_is_refused_by_its_name():
    with pytest.raises(ConfigurationError, match="url is"):
        await create_pool(RedisSettings())
