"""`forebay worker` with an arq application, and the commands that stop and go its pool."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from arq.jobs import JobStatus
from click.testing import CliRunner

from forebay.cli import cli
from forebay.contracts.tasks import TaskAdmissionError
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.snapshots import PoolReader
from forebay.workers.arq.pool import create_pool
from tests.support import wait_until
from tests.support_worker_command import worker

APP = """
import asyncio
import os

async def double(ctx, number):
    return 2 * number

async def gated(ctx, gate):
    while not os.path.exists(gate):
        await asyncio.sleep(0.01)

async def stay(ctx):
    await asyncio.sleep(3600)

class WorkerSettings:
    functions = (double, stay, gated)
    job_completion_wait = 0

class Pickling:
    functions = (double,)
    job_serializer = print

number = 5
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "wrong.py").write_text("def (")
    return tmp_path


def pool_command(name: str, redis_url: str) -> str:
    shown = CliRunner().invoke(cli, [name, "--url", redis_url])
    assert shown.exit_code == 0, shown.output
    return shown.output.strip()


async def snapshot(redis_url: str):
    async with await ServerConnection.open(redis_url) as connection:
        return await PoolReader(connection, pool_shard("default")).snapshot()


async def test_a_paused_pool_starts_nothing_and_a_draining_one_takes_nothing(app, redis_url):
    with worker(app, redis_url):
        async with await create_pool(redis_url) as pool:
            assert await (await pool.enqueue_job("double", 2)).result(timeout=20) == 4
            said = await asyncio.to_thread(pool_command, "pause", redis_url)
            assert said == "pool default is paused: 0 running, 0 queued, 0 delayed, 0 parked"
            job = await pool.enqueue_job("double", 3)
            assert (await pool.tasks.explain_blocked()).reasons == {"paused": 1}

            said = await asyncio.to_thread(pool_command, "resume-pool", redis_url)
            assert said.startswith("pool default is open: ")
            assert await job.result(timeout=20) == 6

            said = await asyncio.to_thread(pool_command, "drain", redis_url)
            assert said.startswith("pool default is draining: ")
            with pytest.raises(TaskAdmissionError, match="draining"):
                await pool.enqueue_job("double", 4)


async def test_a_stopped_worker_says_what_it_gave_back(app, redis_url):
    async with await create_pool(redis_url) as pool:
        await pool.enqueue_job("stay", _job_id="long")

        async def runs():
            return (await snapshot(redis_url)).running == 1

        with worker(app, redis_url) as process:
            await wait_until(runs, timeout=20)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == (
        "stopped; of the tasks that ran then: 0 finished, 1 given back (long)"
    )
    found = await snapshot(redis_url)
    assert (found.running, found.queue.queued_total) == (0, 1)


async def test_a_worker_that_is_told_to_stop_lets_its_jobs_end_within_the_grace_time(
    app, redis_url
):
    queue_of_idle = pool_shard("default")["idle"]
    async with await create_pool(redis_url) as pool:
        job = await pool.enqueue_job("gated", str(app / "gate"), _job_id="short")

        async def is_idle():
            return await pool.exists(queue_of_idle) == 1

        async def runs():
            return (await snapshot(redis_url)).running == 1 and await is_idle()

        async def takes_nothing_more():
            return not await is_idle()

        with worker(app, redis_url, "app.WorkerSettings", "--grace", "60") as process:
            await wait_until(runs, timeout=20)
            process.send_signal(signal.SIGTERM)
            await wait_until(takes_nothing_more, timeout=20)
            late = await pool.enqueue_job("double", 1)
            (app / "gate").touch()
            out, err = process.communicate(timeout=20)
        assert await job.status() is JobStatus.complete
        assert await late.status() is JobStatus.queued
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == (
        "stopped; of the tasks that ran then: 1 finished (short), 0 given back"
    )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("app.Missing", "cannot be imported"),
        ("nowhere.WorkerSettings", "from the folder that holds app.py"),
        ("app.number", "is of type int, expected a class"),
        ("broken.WorkerSettings", "cannot be imported (ZeroDivisionError: division by zero)"),
        ("wrong.WorkerSettings", "cannot be imported (SyntaxError: "),
        ("..", "cannot be imported (TypeError: "),
        ("app.Pickling", "sets job_serializer, which a pool does not take"),
    ],
)
def test_settings_that_cannot_be_used_are_told_in_one_sentence(app, redis_url, settings, said):
    with worker(app, redis_url, settings) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert said in err
    assert len(err.strip().splitlines()) == 1
