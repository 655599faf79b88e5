"""`forebay worker SETTINGS` logs, checks, bursts and watches as `arq` does (docs/arq.md)."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from arq.connections import ArqRedis

from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.workers.arq.pool import create_pool
from tests.support import wait_until
from tests.support_arq import PATIENCE_SECONDS
from tests.support_worker_command import worker

APP = """
import logging
from arq.connections import RedisSettings

async def double(ctx, number):
    return 2 * number

async def fail(ctx, secret):
    raise ValueError(secret)

async def version(ctx):
    return 1

class WorkerSettings:
    functions = (double, fail, version)
    health_check_interval = 1
    redis_settings = RedisSettings(unix_socket_path={path!r})

class Keyed(WorkerSettings):
    redis_settings = WorkerSettings.redis_settings  # arq takes nothing that is inherited
    health_check_key = "arq:of-this-host"

class Queued(WorkerSettings):
    redis_settings = WorkerSettings.redis_settings
    queue_name = "arq:mails"

OWN = {{"class": "logging.FileHandler", "filename": "own.log", "formatter": "own"}}
LOGGING = {{
    "version": 1,
    "handlers": {{"own": OWN}},
    "formatters": {{"own": {{"format": "%(levelname)s %(name)s %(message)s"}}}},
    "loggers": {{"arq": {{"handlers": ["own"], "level": "INFO"}}}},
}}
NO_LOGGING = {{"version": 7}}
"""
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[(\w+) *\] (\w+) +(.*)")


@pytest.fixture
def app(tmp_path, redis_url):
    (tmp_path / "app.py").write_text(APP.format(path=parse_url(redis_url).path))
    return tmp_path


async def burst(app, *options, settings="app.WorkerSettings", url=None):
    """Run a worker until no job is left; return its exit code and what it wrote."""
    with worker(app, url, settings, "--burst", *options) as process:
        out, err = await asyncio.to_thread(process.communicate, timeout=60)
    return process.returncode, out, err


def logged(err):
    """Return level, event and fields of each line."""
    lines = [LINE.fullmatch(line) for line in err.splitlines()]
    assert all(lines), err
    return [(line[1], line[2], line[3].strip()) for line in lines]


# -- logs


async def test_a_worker_logs_what_arq_logs_with_times_and_levels(app, redis_url):
    async with await create_pool(redis_url) as jobs:
        await jobs.enqueue_job("double", 4, _job_id="one")
        await jobs.enqueue_job("fail", "hunter2", _job_id="two")
        code, out, err = await burst(app)
    assert code == 0
    assert out.splitlines()[0] == "working for pool default with 10 slots; stop with Ctrl-C"
    said = logged(err)
    levels = {event: level for level, event, _ in said}
    assert levels == {
        "worker_started": "info",
        "server_described": "info",
        "job_started": "info",
        "job_completed": "info",
        "job_failed": "error",
        "worker_drained": "info",
    }
    fields = {event: text for _, event, text in said}
    assert "functions=['double', 'fail', 'version']" in fields["worker_started"]
    assert fields["job_completed"].startswith("job_id=one job_try=1 function=double seconds=0.")
    assert fields["job_failed"].startswith("job_id=two job_try=1 function=fail seconds=0.")
    assert "hunter2" not in err


@pytest.mark.parametrize(
    ("options", "events"),
    [
        (["--log-level", "warning"], ["job_failed"]),
        (["--log-level", "critical"], []),
    ],
)
async def test_a_worker_is_as_quiet_as_its_log_level_says(app, redis_url, options, events):
    async with await create_pool(redis_url) as jobs:
        await jobs.enqueue_job("double", 4)
        await jobs.enqueue_job("fail", "hunter2")
        _, _, err = await burst(app, *options)
    assert [event for _, event, _ in logged(err)] == events


async def test_a_log_dictionary_has_arqs_logs_and_no_warning_of_forebays_is_lost(app, redis_url):
    async with await create_pool(redis_url) as jobs:
        await jobs.enqueue_job("double", 4, _job_id="one")
        await jobs.enqueue_job("double", 4, _job_id="two")
        await jobs.set("arq:job:two", b"spoilt")
        code, _, err = await burst(app, "--custom-log-dict", "app.LOGGING")
    assert code == 0
    own = (app / "own.log").read_text().splitlines()
    assert own[0].startswith("INFO arq.worker event='worker_started' pool='default'")
    assert any("event='job_completed' job_id='one'" in line for line in own)
    assert "event='job_unreadable' task_id='two'" in err  # forebay.worker, by the last resort


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["app.NO_LOGGING"], 1, "--custom-log-dict cannot be used ("),
        (["app.absent"], 1, "--custom-log-dict 'app.absent' cannot be imported"),
        (["app.LOGGING", "--log-level", "info"], 2, "says levels itself"),
        (["app.LOGGING", "--verbose"], 2, "says levels itself"),
    ],
)
async def test_a_log_dictionary_that_cannot_be_used_is_told(app, options, code, said):
    found, _, err = await burst(app, "--custom-log-dict", *options)
    assert (found, said in err) == (code, True), err


# -- the server and the pool of settings


async def test_the_server_is_that_of_redis_settings_unless_another_is_said(app, redis_url):
    async with await create_pool(redis_url) as jobs:
        job = await jobs.enqueue_job("double", 4)
        assert (await burst(app))[0] == 0
        assert await job.result(timeout=PATIENCE_SECONDS) == 8
    code, _, err = await burst(app, url="redis://127.0.0.1:1")
    assert code == 1
    assert "127.0.0.1:1" in err


async def test_a_queue_of_arqs_asks_for_the_name_of_a_pool(app):
    code, _, err = await burst(app, settings="app.Queued")
    assert (code, "say which one" in err) == (1, True)
    assert (await burst(app, "--pool", "mails", settings="app.Queued"))[0] == 0


# -- health


async def check(app, *options, settings="app.WorkerSettings"):
    with worker(app, None, settings, "--check", *options) as process:
        out, err = await asyncio.to_thread(process.communicate, timeout=60)
    return process.returncode, out, err


async def arqs_check(app, settings="app.WorkerSettings"):
    """Return the exit code of `arq --check`."""
    arq = Path(sys.executable).with_name("arq")
    done = await asyncio.to_thread(
        subprocess.run,
        [arq, "--check", settings],
        cwd=app,
        env={**os.environ, "PYTHONPATH": str(app)},
        capture_output=True,
        check=False,
    )
    return done.returncode


@pytest.mark.parametrize(
    ("settings", "options", "key", "arqs_key"),
    [
        (
            "app.WorkerSettings",
            ["--pool", "app"],
            "fb:{pool:app}:queue:health-check",
            "arq:queue:health-check",
        ),
        ("app.Keyed", [], "arq:of-this-host", "arq:of-this-host"),
        (
            "app.Queued",
            ["--pool", "mails"],
            "fb:{pool:mails}:queue:health-check",
            "arq:mails:health-check",
        ),
    ],
)
async def test_a_workers_health_is_found_by_both_checks_until_it_stops(
    app, redis_url, settings, options, key, arqs_key
):
    code, _, err = await check(app, *options, settings=settings)
    assert (code, len(err.splitlines())) == (1, 1)
    assert f"under {key}," in err
    assert await arqs_check(app, settings) == 1
    with (
        worker(app, None, settings, *options) as process,
        open_sync(parse_url(redis_url)) as client,
    ):
        await wait_until(lambda: all(map(client.exists, (key, arqs_key))), timeout=60)
        code, out, _ = await check(app, *options, settings=settings)
        assert code == 0
        assert re.fullmatch(r"healthy: .* j_complete=0 j_failed=0 .* queued=0\n", out)
        assert await arqs_check(app, settings) == 0
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.communicate, timeout=60)
        assert client.exists(key, arqs_key) == 0
    assert (await check(app, *options, settings=settings))[0] == 1


async def test_a_check_of_a_server_that_is_away_or_of_an_odd_key_says_so(app, redis_url):
    with worker(app, "redis://127.0.0.1:1", "app.WorkerSettings", "--check") as process:
        _, err = await asyncio.to_thread(process.communicate, timeout=60)
    assert (process.returncode, "no answer from the server at redis://127.0.0.1:1/0" in err) == (
        1,
        True,
    )
    async with ArqRedis(unix_socket_path=parse_url(redis_url).path) as redis:
        await redis.lpush("arq:of-this-host", "odd")
        code, _, err = await check(app, settings="app.Keyed")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "arq:of-this-host" in err
    assert "WRONGTYPE" in err


# -- watching


async def test_a_change_of_a_file_starts_the_worker_with_the_changed_program(app, redis_url):
    async with await create_pool(redis_url) as jobs:

        async def version():
            job = await jobs.enqueue_job("version")
            return await job.result(timeout=60, poll_delay=0.05)

        with worker(app, None, "app.WorkerSettings", "--watch", str(app)) as process:
            assert await version() == 1
            program = (app / "app.py").read_text()
            await wait_until(lambda: changed(app, program, jobs, version), timeout=60)
            process.send_signal(signal.SIGINT)
            out, _ = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0
    assert "files changed, starting the worker anew" in out
    assert out.splitlines()[-1].startswith("stopped; ")


async def changed(app, program, jobs, version):
    """Change the program, as the watch may have begun after an earlier change; tell if it runs."""
    (app / "app.py").write_text(program.replace("return 1", "return 2"))
    return await version() == 2
