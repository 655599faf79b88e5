"""How a worker stops: its jobs end or go back, and it says which.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

import pytest
from arq.jobs import JobStatus

from tests.support import wait_until
from tests.support_arq import PATIENCE_SECONDS, Gate, result_of, working


class Stubborn:
    """A job that takes no notice of its first cancellations."""

    def __init__(self, deaf_to):
        self.heard = 0
        self.inside = asyncio.Event()
        self._deaf_to = deaf_to

    async def stubborn(self, ctx):
        self.inside.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.heard += 1
                if self.heard > self._deaf_to:
                    raise


async def test_a_closed_worker_gives_its_jobs_back_at_no_cost_and_says_which(
    redis_url, jobs, caplog
):
    caplog.set_level(logging.INFO, logger="forebay.worker")
    gate = Gate()
    async with working(redis_url, gate.gated) as worker:
        for name in ("a", "b"):
            await jobs.enqueue_job("gated", _job_id=name)
        await wait_until(lambda: len(gate.inside) == 2)
    assert sorted(gate.cancelled) == ["a", "b"]
    assert worker.drained == {"finished": [], "given_back": gate.cancelled}
    said = [record.getMessage() for record in caplog.records if "worker_drained" in record.msg]
    assert said == [f"event='worker_drained' finished=[] given_back={gate.cancelled}"]
    assert not any((await jobs.tasks.view()).leased.values())
    assert await jobs.keys("arq:in-progress:*") == []
    gate.open.set()
    async with working(redis_url, gate.gated):
        await wait_until(lambda: len(gate.inside) == 4)
    assert {result.job_try for result in await jobs.all_job_results()} == {1}


async def test_on_a_signal_with_grace_what_ends_in_time_is_finished_and_the_rest_given_back(
    redis_url, jobs
):
    quick, slow = Gate(), Gate()

    async def quick_job(ctx):
        return await quick.gated(ctx)

    settings = {"job_completion_wait": 3600, "poll_delay": 0.02}
    async with working(redis_url, quick_job, slow.gated, **settings) as worker:
        finished = await jobs.enqueue_job("quick_job", _job_id="quick")
        given_back = await jobs.enqueue_job("gated", _job_id="slow")
        await wait_until(lambda: quick.inside and slow.inside)
        worker.handle_sig_wait_for_completion(signal.SIGTERM)
        late = await jobs.enqueue_job("quick_job", _job_id="late")
        quick.open.set()
        assert await result_of(finished) == "let go"
        assert await late.status() is JobStatus.queued
        assert await given_back.status() is JobStatus.in_progress
    assert quick.inside == ["quick"]
    assert worker.drained == {"finished": ["quick"], "given_back": ["slow"]}


async def test_grace_ends_when_the_last_job_does(redis_url, jobs):
    gate = Gate()
    async with working(redis_url, gate.gated, job_completion_wait=3600) as worker:
        await jobs.enqueue_job("gated", _job_id="one")
        await wait_until(lambda: gate.inside)
        worker.handle_sig_wait_for_completion(signal.SIGTERM)
        gate.open.set()
        await wait_until(worker.main_task.done)
    assert worker.drained == {"finished": ["one"], "given_back": []}


async def test_a_job_that_is_deaf_to_its_cancellation_is_cancelled_again(redis_url, jobs):
    job = Stubborn(deaf_to=1)
    async with working(redis_url, job.stubborn) as worker:
        await jobs.enqueue_job("stubborn", _job_id="one")
        await job.inside.wait()
    assert job.heard == 2
    assert worker.drained["given_back"] == ["one"]


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_stop_whose_cancellations_are_lost_stops_the_worker_all_the_same(
    redis_url, jobs, lost
):
    waits, stopped = asyncio.Event(), []

    async def on_shutdown(ctx):
        stopped.append(worker.main_task.done())

    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        working(redis_url, Gate().gated, on_shutdown=on_shutdown) as worker,
    ):

        async def record_health():
            """Lose cancellations, as Python 3.11's wait_for may below redis-py."""
            if waits.is_set():
                return
            waits.set()
            for _ in range(lost):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()

        worker.record_health = record_health
        await waits.wait()
        if lost == 1:
            worker.handle_sig(signal.SIGTERM)
            await wait_until(worker.main_task.done)
    assert worker.main_task.cancelled()
    assert stopped == [True]


async def test_a_worker_closed_at_any_turn_of_its_start_ends_in_order(redis_url, jobs, caplog):
    for turns in range(40):
        async with working(redis_url, Gate().gated, allow_abort_jobs=True) as worker:
            for _ in range(turns):
                await asyncio.sleep(0)
        assert worker.main_task.cancelled()
    assert [record.getMessage() for record in caplog.records] == []
