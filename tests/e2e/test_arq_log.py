"""A worker logs what arq logs of its jobs, as events without what jobs carry (docs/arq.md)."""

from __future__ import annotations

import asyncio
import logging
import signal

import pytest
import structlog
from arq.cron import cron
from arq.worker import Retry, func

from forebay.contracts.tasks import SchedulableTask
from forebay.workers.arq.serialization import dump_job
from tests.support import wait_until
from tests.support_arq import GROUP, PATIENCE_SECONDS, Gate, named, working

SECRET = "hunter2"


@pytest.fixture
def said(caplog):
    """What is logged through the program's own structlog, from info on."""
    caplog.set_level(logging.INFO, logger="arq")
    with structlog.testing.capture_logs() as said:
        structlog.configure(processors=structlog.get_config()["processors"])
        yield said


def events_of(said, job_id):
    """Return the events of a job, without what differs from run to run."""
    drop = {"waited_seconds", "seconds", "raised_at"}
    return [
        {name: value for name, value in event.items() if name not in drop}
        for event in said
        if event.get("job_id") == job_id
    ]


def event(name, job_try, function, *, level="info", **fields):
    return {
        "event": name,
        "log_level": level,
        "job_id": "one",
        "job_try": job_try,
        "function": function,
        **fields,
    }


async def fail(ctx, value):
    raise ValueError(f"not {value}")


async def again(ctx):
    if ctx["job_try"] == 1:
        raise Retry(defer=0.01)
    return SECRET


async def odd(ctx):
    return object()


async def run_one(redis_url, jobs, function, *args, **settings):
    async with working(redis_url, function, **settings) as worker:
        await jobs.enqueue_job(named(function)[0].name, *args, _job_id="one")
        await wait_until(
            lambda: worker.jobs_complete + worker.jobs_failed and not worker.scheduler.running
        )


async def test_a_worker_says_what_it_runs_where_and_for_whom(redis_url, jobs, said):
    tick = cron(again, name="tick", hour=3)
    async with working(redis_url, fail, again, pool="mine", cron_jobs=[tick], max_jobs=3):
        pass
    started, server = said[:2]
    assert started.pop("server").startswith("unix://")
    assert started == {
        "event": "worker_started",
        "log_level": "info",
        "pool": "mine",
        "slots": 3,
        "functions": ["fail", "again", "tick"],
        "health_check_key": "fb:{pool:mine}:queue:health-check",
    }
    assert server["event"] == "server_described"
    assert {"redis_version", "mem_usage", "clients_connected", "db_keys"} <= server.keys()


async def test_each_try_of_a_job_is_told_with_its_start_and_end(redis_url, jobs, said):
    await run_one(redis_url, jobs, again)
    assert events_of(said, "one") == [
        event("job_started", 1, "again"),
        event("job_retried", 1, "again", defer_seconds=0.01),
        event("job_started", 2, "again"),
        event("job_completed", 2, "again"),
    ]
    spans = [one for one in said if one.get("job_id") == "one"]
    assert all(one.get("seconds", one.get("waited_seconds")) >= 0 for one in spans)
    assert SECRET not in str(said)


async def test_a_job_that_comes_late_says_how_late(redis_url, jobs, said):
    await jobs.enqueue_job("again", _job_id="one", _defer_by=-7, _job_try=2)
    async with working(redis_url, again) as worker:
        await wait_until(lambda: worker.jobs_complete == 1)
    (started,) = [one for one in said if one["event"] == "job_started"]
    assert started["delayed_seconds"] >= 7


async def test_a_failure_is_told_by_type_and_place_and_no_value_of_it(redis_url, jobs, said):
    await run_one(redis_url, jobs, fail, SECRET)
    assert events_of(said, "one") == [
        event("job_started", 1, "fail"),
        event("job_failed", 1, "fail", level="error", error="ValueError"),
    ]
    (failed,) = [one for one in said if one["event"] == "job_failed"]
    assert failed["raised_at"].startswith("test_arq_log.py:")
    assert failed["raised_at"].endswith(" in fail")
    assert SECRET not in str(said)


async def test_a_result_that_cannot_be_written_is_told(redis_url, jobs, said):
    await run_one(redis_url, jobs, odd)
    assert event(
        "result_not_serializable", 1, "odd", level="warning", error="TypeError"
    ) in events_of(said, "one")


async def test_a_job_that_was_tried_too_often_is_told(redis_url, jobs, said):
    await run_one(redis_url, jobs, func(again, name="again", max_tries=0))
    assert events_of(said, "one") == [
        event("tries_exhausted", 1, "again", level="warning", max_tries=0)
    ]


async def test_a_job_of_an_unknown_function_and_an_unreadable_one_are_told(redis_url, jobs, said):
    absent = dump_job({"t": None, "f": "absent", "a": [SECRET], "k": {}, "et": 1})
    async with working(redis_url, again) as worker:
        for job_id, payload in (("one", absent), ("two", f"{{{SECRET}".encode())):
            task = SchedulableTask(task_id=job_id, payload=payload, group=GROUP)
            assert await jobs.tasks.queue.submit(task)
        await wait_until(lambda: worker.jobs_failed == 2)
    assert events_of(said, "one") == [event("function_not_found", 1, "absent", level="warning")]
    assert [one["task_id"] for one in said if one["event"] == "job_unreadable"] == ["two"]
    assert SECRET not in str(said)


async def test_an_expired_job_is_told(redis_url, jobs, said):
    await jobs.enqueue_job("again", _job_id="one")
    await jobs.delete("arq:job:one")
    async with working(redis_url, again) as worker:
        await wait_until(lambda: worker.jobs_failed == 1)
    (expired,) = events_of(said, "one")
    assert (expired["event"], expired["log_level"]) == ("job_expired", "warning")


@pytest.mark.parametrize("has_started", [True, False])
async def test_an_aborted_job_is_told_and_counts_as_failed(redis_url, jobs, said, has_started):
    gate = Gate()
    async with working(redis_url, gate.gated, allow_abort_jobs=True) as worker:
        defer = None if has_started else 3600
        job = await jobs.enqueue_job("gated", _job_id="one", _defer_by=defer)
        if has_started:
            await wait_until(lambda: gate.inside)
        assert await job.abort(timeout=PATIENCE_SECONDS, poll_delay=0.01) is True
        await wait_until(lambda: worker.jobs_failed == 1)
        assert (worker.jobs_complete, worker.jobs_retried) == (0, 0)
    (aborted,) = [one for one in said if one["event"] == "job_aborted"]
    assert aborted["job_id"] == "one"
    assert aborted.get("was_started", True) is has_started


async def test_the_stop_of_a_worker_is_told_with_its_counts(redis_url, jobs, said):
    gate = Gate()
    async with working(redis_url, gate.gated, job_completion_wait=1) as worker:
        await jobs.enqueue_job("gated", _job_id="one")
        await wait_until(lambda: gate.inside)
        worker.handle_sig_wait_for_completion(signal.SIGTERM)
        gate.open.set()
        await wait_until(worker.main_task.done)
    counts = {"log_level": "info", "signal": "SIGTERM", "failed": 0, "retried": 0}
    assert {"event": "worker_stopping", "complete": 0, "ongoing": 1, **counts} in said
    assert {"event": "grace_ended", "complete": 1, "ongoing": 0, **counts} in said


async def test_a_job_that_is_given_back_is_told(redis_url, jobs, said):
    gate = Gate()
    async with working(redis_url, gate.gated):
        await jobs.enqueue_job("gated", _job_id="one")
        await wait_until(lambda: gate.inside)
    assert [one["event"] for one in events_of(said, "one")] == ["job_started", "job_cancelled"]


async def test_the_queue_is_counted_where_health_is_recorded(redis_url, jobs, said):
    async with working(redis_url, again, health_check_interval=0.01) as worker:
        await jobs.enqueue_job("again", _job_id="one")
        await wait_until(lambda: worker.jobs_complete == 1)
        await wait_until(lambda: any(one["event"] == "health_recorded" for one in said))
        await wait_until(lambda: [one for one in said if one.get("complete") == 1])
    recorded = [one for one in said if one["event"] == "health_recorded"][-1]
    assert {"complete", "failed", "retried", "ongoing", "queued"} <= recorded.keys()


async def test_a_program_without_structlog_finds_them_in_arqs_own_logger(redis_url, jobs, caplog):
    caplog.set_level(logging.INFO, logger="arq")
    await run_one(redis_url, jobs, fail, SECRET)
    (failed,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert failed.name == "arq.worker"
    assert failed.exc_info is None
    assert failed.getMessage().startswith("event='job_failed' job_id='one' job_try=1")
    assert SECRET not in caplog.text


async def test_what_a_program_logs_elsewhere_is_left_alone(redis_url, jobs, said, caplog):
    async def talk(ctx):
        logging.getLogger("app").warning("from %s", "inside")
        await asyncio.sleep(0)

    await run_one(redis_url, jobs, talk)
    assert caplog.messages == ["from inside"]
