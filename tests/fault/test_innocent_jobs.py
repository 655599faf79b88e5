"""What a job raises, or does to its process, ends that job alone (design 04, *Losses*).

Real workers with ten slots, and a supervisor that begins each again that ends.
"""

from __future__ import annotations

import contextlib

import pytest

from forebay.contracts.task_policies import TaskAdmissionConfig
from forebay.workers.arq.pool import create_pool
from tests.support import wait_until
from tests.support_arq import check_books
from tests.support_arq_fleet import ArqFleet, check_order

APP = "tests.arq_harm.WorkerSettings"
INNOCENT = 30
SECONDS = 60.0
"""Far above what any of these takes on a busy machine."""

RAISES = [
    "KeyboardInterrupt",
    "SystemExit-0",
    "SystemExit-3",
    "GeneratorExit",
    "BaseException",
    "BaseExceptionGroup",
    "OwnError",
    "CancelledError",
    "SystemExit-in-a-task",
    "SystemExit-in-a-gather",
    "SystemExit-in-a-group",
    "SystemExit-in-a-thread",
    "asks-for-too-much",
    "hoards",
    "unreadable",
    "cancels-itself",
]
ENDS_WELL = ["SystemExit-in-a-callback", "loop.stop"]
FAILS_OTHERWISE = {
    "asks-for-too-much": "MemoryError",
    "hoards": "MemoryError",
    "unreadable": "UnreadableError",
    "cancels-itself": "WorkerLost",
}

ENDS_WITH = {"os._exit": 0, "SIGKILL": -9, "segfault": -11, "cancels-all": 1}
"""The code with which the process ends; a job that exits says its own."""


@pytest.fixture
async def jobs(redis_url):
    async with await create_pool(redis_url) as jobs:
        await jobs.tasks.configure(TaskAdmissionConfig(events="full"))
        yield jobs
    await check_books(redis_url)


@pytest.fixture
def fleet(redis_url, jobs, tmp_path):
    with contextlib.ExitStack() as stack:
        yield ArqFleet(redis_url, tmp_path, stack)


async def put_beside_innocent(jobs, fleet, harmful):
    """Enqueue jobs that do harm among others that do none, and wait until these have begun."""
    for number in range(INNOCENT):
        await jobs.enqueue_job("innocent", fleet.gate("open"), _job_id=f"i{number}")
        if number < len(harmful):
            await jobs.enqueue_job("harm", harmful[number], _job_id=harmful[number])


async def results_of(jobs, count):
    async def is_over():
        return len(await jobs.keys("arq:result:*")) == count

    await wait_until(is_over, timeout=SECONDS)
    return {result.job_id: result for result in await jobs.all_job_results()}


def check_innocent(results):
    innocent = [result for job_id, result in results.items() if job_id.startswith("i")]
    assert len(innocent) == INNOCENT
    assert {(result.success, result.job_try) for result in innocent} == {(True, 1)}


async def test_whatever_a_job_raises_ends_that_job_alone_and_no_worker(jobs, fleet):
    harmful = [*RAISES, *ENDS_WELL, "unwritable"]
    async with fleet.supervised(2, "--slots", "10", settings=APP) as supervised:
        await put_beside_innocent(jobs, fleet, harmful)
        fleet.open_gate("open")
        results = await results_of(jobs, INNOCENT + len(harmful))
        assert supervised.ends == []
    check_innocent(results)
    check_order(fleet.events())
    failed = {name: results[name].result.error_type for name in RAISES}
    assert failed == dict.fromkeys(RAISES, "JobExecutionFailed") | FAILS_OTHERWISE
    assert [results[name].success for name in ENDS_WELL] == [True, True]
    assert (results["unwritable"].success, results["unwritable"].job_try) == (False, 1)


@pytest.mark.parametrize("how", ENDS_WITH)
async def test_a_job_that_ends_its_process_fails_alone_and_all_others_succeed(jobs, fleet, how):
    async with fleet.supervised(2, "--slots", "10", settings=APP) as supervised:
        await put_beside_innocent(jobs, fleet, [how])
        await wait_until(lambda: supervised.ends, timeout=SECONDS)  # beside others that have begun
        fleet.open_gate("open")
        results = await results_of(jobs, INNOCENT + 1)
        # One that was cancelled counts its loss before its process has ended.
        await wait_until(lambda: len(supervised.ends) >= 3, timeout=SECONDS)
    check_innocent(results)
    check_order(fleet.events())
    assert results[how].result.error_type == "WorkerLost"
    assert "3 times" in results[how].result.error_message
    assert len(supervised.ends) == 3
    assert set(supervised.ends) == {ENDS_WITH[how]}


async def test_a_lone_job_that_ends_its_process_at_once_is_found_out_as_well(jobs, fleet):
    """It comes by push, and its process dies before it asks again."""
    async with fleet.supervised(2, "--slots", "10", settings=APP) as supervised:
        await fleet.until_idle(2)
        await jobs.enqueue_job("harm", "os._exit", _job_id="lone")
        results = await results_of(jobs, 1)
    assert results["lone"].result.error_type == "WorkerLost"
    assert len(supervised.ends) == 3
