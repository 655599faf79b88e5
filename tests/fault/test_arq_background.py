"""Nothing that a worker does in the background ends it unseen (design 04; design 06)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis
from arq import cron
from arq.worker import Worker
from structlog.testing import capture_logs

from forebay.contracts.settings import MemberSettings
from forebay.coordinator.tasks import operations
from forebay.workers.arq import scheduler
from forebay.workers.arq.pool import create_pool
from forebay.workers.arq.worker import ForebayWorker
from tests.support import wait_until
from tests.support_arq import Gate, check_books, result_of, working
from tests.support_proxy import FaultyProxy
from tests.support_tasks import group, task

SETTINGS = MemberSettings(ttl_seconds=3600.0, recheck_seconds=0.1)
SECRET = "a secret"  # no line of a traceback quotes it, only the message does


@pytest.fixture
async def jobs(redis_url):
    async with await create_pool(redis_url) as jobs:
        yield jobs


async def add(ctx, one, other):
    return one + other


def loud(logs: list[Any], *events: str) -> list[tuple[str, str]]:
    return [(e["event"], e["log_level"]) for e in logs if not events or e["event"] in events]


def is_lost(worker: ForebayWorker) -> bool:
    return worker._turns.is_away


class Broken:
    """Raises the first so many times, and does as another function from then on."""

    def __init__(self, times: int, error: BaseException, then: Any) -> None:
        self.left = times
        self._error = error
        self._then = then

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.left > 0:
            self.left -= 1
            raise self._error
        return self._then(*args, **kwargs)


@pytest.mark.parametrize(
    "broken", ["record_health", "run_cron", "_cancel_aborted_jobs", "refresh", "discard_aborted"]
)
@pytest.mark.parametrize(
    "error", [ValueError(SECRET), redis.ResponseError("odd")], ids=["a bug", "the server"]
)
async def test_a_beat_that_raises_ends_no_worker_and_is_said_once(
    redis_url, jobs, monkeypatch, broken, error
):
    async with working(redis_url, add, member=SETTINGS, allow_abort_jobs=True) as worker:
        if broken == "_cancel_aborted_jobs":
            owner: Any = Worker
        elif broken == "refresh":
            owner = worker._hints
        elif broken == "discard_aborted":
            owner = worker._unstarted
        else:
            owner = worker
        raises = Broken(3, error, getattr(owner, broken))

        async def broken_at_first(*args):
            return await raises(*args)

        with capture_logs() as logs:
            monkeypatch.setattr(owner, broken, broken_at_first)
            await wait_until(lambda: raises.left == 0)
            assert await result_of(await jobs.enqueue_job("add", 1, 2)) == 3
            await wait_until(lambda: not is_lost(worker))
    if isinstance(error, ValueError):
        assert loud(logs, "unexpected_exception") == [("unexpected_exception", "error")]
    else:
        assert loud(logs, "coordinator_unavailable", "coordinator_available") == [
            ("coordinator_unavailable", "warning"),
            ("coordinator_available", "warning"),
        ]
    assert SECRET not in str(logs)


async def test_a_server_that_is_away_for_a_worker_and_its_return_are_said_once_each(
    redis_url, jobs
):
    async with (
        FaultyProxy(redis_url) as proxy,
        working(proxy.url, add, member=SETTINGS, allow_abort_jobs=True) as worker,
    ):
        with capture_logs() as logs:
            proxy.refuse()
            await wait_until(lambda: is_lost(worker))
            await proxy.accept()
            assert await result_of(await jobs.enqueue_job("add", 1, 2)) == 3
            await wait_until(lambda: worker.connection.availability._logged is None)
            await wait_until(lambda: not is_lost(worker))
    assert len(loud(logs, "coordinator_unavailable")) == len(loud(logs, "coordinator_available"))
    assert 1 <= len(loud(logs, "coordinator_unavailable")) <= 3
    assert {level for _event, level in loud(logs, "coordinator_available")} == {"warning"}


async def test_a_cron_job_that_the_pool_refuses_ends_no_worker(redis_url, jobs):
    async def tick(ctx):
        return None

    await jobs.tasks.set_state("draining")
    every_second = cron(tick, second=set(range(60)))
    with capture_logs() as logs:
        async with working(redis_url, add, member=SETTINGS, cron_jobs=[every_second]):
            await wait_until(lambda: bool(loud(logs, "heart_beat_failed")))
            await jobs.tasks.set_state("open")
            assert await result_of(await jobs.enqueue_job("add", 1, 2)) == 3


@pytest.mark.parametrize("how", ["before its first step", "while a hook waits"])
async def test_a_job_whose_task_is_cancelled_by_others_is_put_back_and_ends_no_worker(
    redis_url, jobs, monkeypatch, how
):
    waits: list[asyncio.Event] = []

    async def on_job_start(ctx):
        if how == "while a hook waits" and not waits:
            waits.append(asyncio.Event())
            await waits[0].wait()

    async with working(redis_url, add, member=SETTINGS, on_job_start=on_job_start) as worker:
        if how == "before its first step":
            start = worker.scheduler._start_task

            def start_and_cancel_once(lease):
                start(lease)
                if not waits:
                    waits.append(asyncio.Event())
                    worker.tasks[lease.item.task_id].cancel()

            monkeypatch.setattr(worker.scheduler, "_start_task", start_and_cancel_once)
        with capture_logs() as logs:
            job = await jobs.enqueue_job("add", 1, 2)
            if how == "while a hook waits":
                await wait_until(lambda: bool(waits))
                worker.tasks[job.job_id].cancel()
            assert await result_of(job) == 3
        assert loud(logs, "job_put_back") == [("job_put_back", "warning")]
        assert not worker.main_task.done()
    await check_books(redis_url)


@pytest.mark.parametrize("broken", ["_start_task", "_prefetch"])
async def test_a_job_that_cannot_be_begun_is_put_back_and_costs_no_other(
    redis_url, jobs, monkeypatch, broken
):
    monkeypatch.setattr(scheduler, "UNREAD_SECONDS", 0.05)
    async with working(redis_url, add, member=SETTINGS) as worker:
        raises = Broken(1, ValueError(SECRET), getattr(worker.scheduler, broken))
        monkeypatch.setattr(worker.scheduler, broken, raises)
        with capture_logs() as logs:
            asked = [await jobs.enqueue_job("add", number, 1) for number in range(4)]
            assert [await result_of(job) for job in asked] == [1, 2, 3, 4]
        assert loud(logs, "unexpected_exception") == [("unexpected_exception", "error")]
    await check_books(redis_url)


async def test_a_lease_that_cannot_be_read_is_put_back_and_costs_no_other(
    redis_url, jobs, monkeypatch
):
    monkeypatch.setattr("forebay.coordinator.tasks.controller.UNREAD_SECONDS", 0.05)
    raises = Broken(1, ValueError(SECRET), operations.decode_lease)
    monkeypatch.setattr(operations, "decode_lease", raises)
    asked = [task(str(number), group()) for number in range(4)]
    await jobs.tasks.queue.enqueue(asked)
    admitted: set[str] = set()

    async def are_all_admitted() -> bool:
        admission = await jobs.tasks.admit(4)
        admitted.update(lease.item.task_id for lease in admission.leases)
        return len(admitted) == 4

    await wait_until(are_all_admitted)


async def test_a_watcher_that_raises_is_told_again_and_keeps_no_other_from_being_told(redis_url):
    async with await create_pool(redis_url, settings=SETTINGS) as pool:
        told: list[str] = []
        raises = Broken(2, ValueError(SECRET), lambda: told.append("broken"))
        pool.tasks.watch(raises)
        pool.tasks.watch(lambda: told.append("other"))
        with capture_logs() as logs:
            pool.tasks._upkeep.change()
            await wait_until(lambda: "broken" in told)
    assert told[:3] == ["other", "other", "broken"]
    assert len(loud(logs, "unexpected_exception")) == 1


async def test_each_lost_task_is_told_though_the_first_callback_raises(redis_url, jobs):
    gate = Gate()
    async with working(redis_url, gate.gated, member=SETTINGS, max_jobs=3) as worker:
        told: list[str] = []
        tell = worker.tasks_admission._restating._on_lease_lost

        def raises_once(lease):
            tell(lease)
            told.append(lease.item.task_id)
            if len(told) == 1:
                raise ValueError(SECRET)

        worker.tasks_admission._restating._on_lease_lost = raises_once
        for number in range(3):
            await jobs.enqueue_job("gated", _job_id=str(number))
        await wait_until(lambda: len(gate.inside) == 3)
        membership = worker.tasks_admission.session.membership
        worker.tasks_admission.session._memberships.expire(membership)
        await wait_until(lambda: len(gate.cancelled) == 3)
        assert sorted(told) == ["0", "1", "2"]
        gate.open.set()
        await jobs.flushall()


async def test_hints_are_gone_while_their_server_cannot_be_asked(redis_url):
    class Away:
        async def global_snapshot(self, _provider_model):
            raise OSError("gone")

    from forebay.contracts.identity import ProviderModelKey, SchedulerResourceKey
    from forebay.workers.arq.pressure import RequestPressureHints

    known = [ProviderModelKey(provider_name="p", model_id=name) for name in "ab"]
    hints = RequestPressureHints(Away(), lambda: known)
    hints._resources = frozenset([SchedulerResourceKey("request:p/a")])
    with pytest.raises(OSError, match="gone"):
        await hints.refresh()
    assert hints.resources == frozenset()


async def test_one_part_of_a_worker_that_cannot_be_closed_keeps_no_other_open(
    redis_url, monkeypatch
):
    async def refuse():
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - raised above
        async with working(redis_url, add, member=SETTINGS) as worker:
            monkeypatch.setattr(worker._cells, "aclose", refuse)
    assert worker.tasks_admission.session.is_closed
    assert worker.connection.node.subscriber._is_closed
