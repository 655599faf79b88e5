"""A worker that lost its membership stops its jobs, and takes part anew.

Rules: design 04, *From submit to finish*; design 06, *Members*.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from forebay.contracts.event_kinds import SchedulerEventKind
from forebay.contracts.settings import MemberSettings
from forebay.contracts.task_policies import TaskAdmissionConfig
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.workers.arq.pool import create_pool
from tests.support import wait_until
from tests.support_arq import Gate, check_books, result_of, working
from tests.support_records import make_overdue

KEYS = pool_shard("default")
SETTINGS = MemberSettings(ttl_seconds=0.3, recheck_seconds=0.1)


@pytest.fixture
async def jobs(redis_url):
    async with await create_pool(redis_url) as jobs:
        yield jobs
    await check_books(redis_url)


async def lose_membership(jobs, worker):
    """Let the server expire a worker, as if it had not beaten; wait until it is a member anew."""
    channel = worker.tasks_admission.session
    lost = channel.membership
    for kind in ("members", "checks"):
        await jobs.zadd(KEYS[kind], {lost.member_id: 1})
    await wait_until(lambda: channel.membership is not None and channel.membership is not lost)


async def test_what_it_had_to_say_of_a_lease_is_not_said_under_its_next_membership(redis_url, jobs):
    controller = jobs.tasks
    await controller.configure(TaskAdmissionConfig(events="full"))
    await controller.ask("serve", "job")
    await jobs.enqueue_job("job", _job_id="one")
    (lease,) = (await controller.admit(1)).leases
    with open_sync(parse_url(redis_url)) as client:
        make_overdue(client, KEYS, lease.member_id)
    controller.emit(SchedulerEventKind.WORKER_SPAWNED, lease)
    await controller.set_state("open")
    assert controller.session.membership.member_id != lease.member_id
    kinds = [fields[b"kind"] for _id, fields in await jobs.xrange(KEYS["events"])]
    assert b"task_lease_expired" in kinds
    assert b"worker_spawned" not in kinds


async def test_its_job_is_cancelled_writes_nothing_and_is_tried_again(redis_url, jobs):
    gate = Gate()
    async with working(redis_url, gate.gated, member=SETTINGS) as worker:
        job = await jobs.enqueue_job("gated", _job_id="one")
        await wait_until(lambda: gate.inside)
        await jobs.tasks.set_state("paused")
        await lose_membership(jobs, worker)
        await wait_until(lambda: gate.cancelled == ["one"])
        await jobs.tasks.set_state("open")
        await wait_until(lambda: len(gate.inside) == 2)
        assert await jobs.exists("arq:result:one") == 0
        gate.open.set()
        assert await result_of(job) == "let go"
    assert (await job.result_info()).job_try == 1  # a loss is no try


async def test_it_takes_jobs_of_a_server_that_was_flushed(redis_url, jobs):
    gate = Gate()
    gate.open.set()
    async with working(redis_url, gate.gated, member=SETTINGS):
        for _ in range(2):
            assert await result_of(await jobs.enqueue_job("gated")) == "let go"
            await jobs.flushall()
        assert await result_of(await jobs.enqueue_job("gated", _job_id="last")) == "let go"
    assert gate.inside[-1] == "last"


@pytest.mark.parametrize("name", ["on_job_start", "on_job_end"])
async def test_a_hook_of_its_job_is_cancelled_and_no_job_begins_without_a_lease(
    redis_url, jobs, name
):
    gate, tries = Gate(), []

    async def job(ctx):
        tries.append(ctx["job_try"])

    async with working(redis_url, job, member=SETTINGS, **{name: gate.gated}) as worker:
        enqueued = await jobs.enqueue_job("job", _job_id="one")
        await wait_until(lambda: gate.inside)
        await jobs.tasks.set_state("paused")
        await lose_membership(jobs, worker)
        await wait_until(lambda: gate.cancelled == ["one"] and not worker.tasks)
        assert not worker.main_task.done()
        gate.open.set()
        await jobs.tasks.set_state("open")
        await result_of(enqueued)
    assert tries == ([1] if name == "on_job_start" else [1, 1])
    assert (await enqueued.result_info()).job_try == 1


async def test_a_job_that_is_slow_to_stop_never_runs_beside_its_next_try(redis_url, jobs):
    running, tries, beside, may_stop = [], [], [], asyncio.Event()

    async def slow(ctx):
        tries.append(ctx["job_try"])
        running.append(ctx["job_try"])
        beside.append(len(running) > 1)
        try:
            if len(tries) == 1:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            while not may_stop.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await may_stop.wait()
            raise
        finally:
            running.pop()
        return "done"

    async with working(redis_url, slow, member=SETTINGS) as worker:
        job = await jobs.enqueue_job("slow", _job_id="one")
        try:
            await wait_until(lambda: running)
            await lose_membership(jobs, worker)
            await wait_until(lambda: len(worker.scheduler.running) == 2)
        finally:
            may_stop.set()
        assert await result_of(job) == "done"
        assert (worker.jobs_complete, worker.jobs_failed) == (1, 0)
    assert (tries, beside) == ([1, 1], [False, False])


async def test_it_comes_back_by_itself_though_it_had_nothing_to_do(redis_url, jobs):
    gate = Gate()
    gate.open.set()
    member = MemberSettings(ttl_seconds=0.3, recheck_seconds=60.0)
    async with working(redis_url, gate.gated, member=member) as worker:
        await wait_until(lambda: worker.tasks_admission.session.membership is not None)
        await lose_membership(jobs, worker)
        assert await result_of(await jobs.enqueue_job("gated")) == "let go"


async def test_it_outlives_the_loss_of_a_lease_whose_job_has_not_begun(
    redis_url, jobs, monkeypatch
):
    gate = Gate()
    gate.open.set()
    async with working(redis_url, gate.gated, member=SETTINGS) as worker:
        session, start = worker.tasks_admission.session, worker.scheduler._puller._start
        cancelled = []

        def start_and_lose(lease):
            start(lease)
            if not cancelled:
                cancelled.append(worker.tasks[lease.item.task_id])
                session._memberships.expire(session.membership)

        monkeypatch.setattr(worker.scheduler._puller, "_start", start_and_lose)
        assert await result_of(await jobs.enqueue_job("gated", _job_id="one")) == "let go"
        assert not worker.main_task.done()
    assert cancelled[0].cancelled()
    assert gate.inside == ["one"]


async def test_hooks_and_counters_tell_of_each_start(redis_url, jobs):
    gate, entries = Gate(), []

    def hook(name):
        async def hook(ctx):
            entries.append(name)

        return hook

    hooks = {name: hook(name) for name in ("on_job_start", "on_job_end", "after_job_end")}
    async with working(redis_url, gate.gated, member=SETTINGS, **hooks) as worker:
        job = await jobs.enqueue_job("gated", _job_id="one")
        await wait_until(lambda: gate.inside)
        await lose_membership(jobs, worker)
        await wait_until(lambda: len(gate.inside) == 2)
        gate.open.set()
        assert await result_of(job) == "let go"
        await wait_until(lambda: not worker.scheduler.running)
        assert (worker.jobs_complete, worker.jobs_failed, worker.jobs_retried) == (1, 0, 1)
    assert sorted(entries) == sorted([*hooks, *hooks])
