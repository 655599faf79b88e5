"""Cron jobs on a pool: enqueued by every worker, run once at each time.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from datetime import datetime, timedelta

import pytest
from arq.cron import cron
from arq.utils import to_unix_ms

from tests.support import wait_until
from tests.support_arq import Gate, working

EVERY_SECOND = set(range(60))


class Diary:
    """A cron job, and the ids under which it ran."""

    def __init__(self):
        self.ids = []

    async def note(self, ctx):
        self.ids.append(ctx["job_id"])

    def cron(self, **settings):
        """Return the job, at an hour that a test does not live to see."""
        hour = (datetime.now().astimezone().hour + 2) % 24
        return cron(self.note, name="note", **{"hour": hour, **settings})


async def come_due(workers, at, *, in_turn=None):
    """Let an instant come for the cron jobs of workers, as their heart beats find it."""
    for worker in workers:
        for job in worker.cron_jobs:
            job.next_run = at
        await worker.run_cron(at, 0.5)
        if in_turn is not None:
            await wait_until(in_turn)


async def test_a_job_runs_at_its_times_once_by_several_workers(redis_url, jobs):
    diary = Diary()
    settings = {"poll_delay": 0.1}
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            every_second = diary.cron(hour=None, minute=None, second=EVERY_SECOND)
            await stack.enter_async_context(
                working(redis_url, cron_jobs=[every_second], **settings)
            )
        await wait_until(lambda: len(set(diary.ids)) >= 2)
    assert set(Counter(diary.ids).values()) == {1}
    assert all(re.fullmatch(r"default:note:\d+123", job_id) for job_id in diary.ids)


@pytest.mark.parametrize(("unique", "runs"), [(True, 1), (False, 2)])
async def test_only_a_unique_job_runs_once_by_two_workers_at_a_time(redis_url, jobs, unique, runs):
    diary = Diary()
    now = datetime.now().astimezone()
    async with (
        working(redis_url, cron_jobs=[diary.cron(unique=unique)]) as one,
        working(redis_url, cron_jobs=[diary.cron(unique=unique)]) as other,
    ):
        await come_due([one, other], now)
        await wait_until(lambda: one.jobs_complete + other.jobs_complete == runs)
    assert len(diary.ids) == runs


async def test_a_worker_that_lags_behind_does_not_repeat_a_job(redis_url, jobs):
    diary = Diary()
    now = datetime.now().astimezone()
    async with (
        working(redis_url, cron_jobs=[diary.cron()]) as one,
        working(redis_url, cron_jobs=[diary.cron()]) as other,
    ):
        await come_due(
            [one, other], now, in_turn=lambda: one.jobs_complete + other.jobs_complete == 1
        )
        await come_due([one, other], now + timedelta(milliseconds=5))
        await wait_until(lambda: one.jobs_complete + other.jobs_complete == 2)
    assert len(diary.ids) == 2
    marks = await jobs.keys("arq:*")
    assert sorted(marks) == sorted(f"arq:in-progress:{job_id}".encode() for job_id in diary.ids)
    for mark in marks:
        assert 0 < await jobs.pttl(mark) <= 60_000


async def test_a_job_with_an_id_is_not_enqueued_while_its_last_run_goes_on(redis_url, jobs):
    gate = Gate()
    job = cron(gate.gated, name="gated", hour=3, job_id="nightly", keep_result=0)
    now = datetime.now().astimezone()
    async with working(redis_url, cron_jobs=[job]) as worker:
        await come_due([worker], now)
        await wait_until(lambda: gate.inside == ["default:nightly"])
        await come_due([worker], now + timedelta(seconds=1))
        assert (await jobs.tasks.queue.view()).queued_total == 0
        gate.open.set()
        await wait_until(lambda: worker.jobs_complete == 1)
    assert gate.inside == ["default:nightly"]


async def test_cron_jobs_of_one_name_in_two_applications_both_run(redis_url, jobs):
    diaries = {"one": Diary(), "two": Diary()}
    now = datetime.now().astimezone()
    async with (
        working(redis_url, cron_jobs=[diaries["one"].cron()], pool="one") as one,
        working(redis_url, cron_jobs=[diaries["two"].cron()], pool="two") as two,
    ):
        await come_due([one, two], now)
        await wait_until(lambda: all(diary.ids for diary in diaries.values()))
    assert [diary.ids for diary in diaries.values()] == [
        [f"one:note:{to_unix_ms(now)}"],
        [f"two:note:{to_unix_ms(now)}"],
    ]


async def test_cron_jobs_of_one_id_in_two_applications_both_run(redis_url, jobs):
    diaries = {"one": Diary(), "two": Diary()}
    crons = {name: diary.cron(job_id="nightly") for name, diary in diaries.items()}
    async with (
        working(redis_url, cron_jobs=[crons["one"]], pool="one") as one,
        working(redis_url, cron_jobs=[crons["two"]], pool="two") as two,
    ):
        await come_due([one, two], datetime.now().astimezone())
        await wait_until(lambda: all(diary.ids for diary in diaries.values()))
    assert [diary.ids for diary in diaries.values()] == [["one:nightly"], ["two:nightly"]]


async def test_a_job_with_an_id_runs_at_each_of_its_times(redis_url, jobs):
    """arq's mark of the last run lives for 60 s, and is none of the next time's."""
    diary = Diary()
    first = datetime.now().astimezone() - timedelta(seconds=20)
    async with working(redis_url, cron_jobs=[diary.cron(job_id="often")]) as worker:
        for turn in range(1, 6):
            await come_due([worker], first + timedelta(seconds=2 * turn))
            await wait_until(lambda turn=turn: worker.jobs_complete == turn)
    assert diary.ids == ["default:often"] * 5


async def test_a_job_with_an_id_every_two_seconds_runs_every_two_seconds(redis_url, jobs):
    diary = Diary()
    terms = {"hour": None, "minute": None, "second": set(range(0, 60, 2))}
    often = diary.cron(job_id="often", **terms)
    async with working(redis_url, cron_jobs=[often], poll_delay=0.1):
        await wait_until(lambda: len(diary.ids) >= 3, timeout=30.0)


async def test_a_worker_that_lags_behind_does_not_repeat_a_job_with_an_id(redis_url, jobs):
    diary = Diary()
    now = datetime.now().astimezone()
    async with (
        working(redis_url, cron_jobs=[diary.cron(job_id="often")]) as one,
        working(redis_url, cron_jobs=[diary.cron(job_id="often")]) as other,
    ):
        ended = lambda count: one.jobs_complete + other.jobs_complete == count  # noqa: E731
        await come_due([one], now)
        await wait_until(lambda: ended(1))
        await come_due([other], now)
        await come_due([one], now + timedelta(seconds=2))
        await wait_until(lambda: ended(2))
        await come_due([other], now + timedelta(seconds=2))
        assert await jobs.zcard(jobs.default_queue_name) == 0
    assert diary.ids == ["default:often"] * 2


async def test_a_job_may_run_as_its_worker_starts(redis_url, jobs):
    diary = Diary()
    async with working(redis_url, cron_jobs=[diary.cron(run_at_startup=True)]):
        await wait_until(lambda: diary.ids)


async def test_a_job_that_comes_soon_waits_for_its_time(redis_url, jobs):
    diary = Diary()
    async with working(redis_url, cron_jobs=[diary.cron()]) as worker:
        due = datetime.now().astimezone() + timedelta(hours=1)
        await come_due([worker], due)
        (queued,) = await jobs.queued_jobs()
        assert queued.job_id == f"default:note:{to_unix_ms(due)}"
        assert abs(queued.score - to_unix_ms(due)) < 60_000


@pytest.mark.parametrize("state", ["paused", "draining"])
async def test_a_worker_lives_on_where_its_pool_takes_no_cron_jobs(redis_url, jobs, state):
    diary = Diary()
    await jobs.tasks.set_state(state)
    settings = {"cron_jobs": [diary.cron(run_at_startup=True)]}
    async with working(redis_url, **settings) as worker:
        beats = []
        beat = worker.record_health

        async def record_health():
            beats.append(1)
            await beat()

        worker.record_health = record_health
        await wait_until(lambda: len(beats) > 2 or worker.main_task.done())
        assert not worker.main_task.done()
        await jobs.tasks.set_state("open")
        await come_due([worker], datetime.now().astimezone())
        await wait_until(lambda: diary.ids)
