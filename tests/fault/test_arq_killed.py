"""One lease a running job, whatever happens to its worker's process (design 04; design 06)."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter

import pytest

from forebay.contracts.task_policies import TaskAdmissionConfig
from forebay.coordinator.keys import pool_shard
from forebay.workers.arq.pool import create_pool
from tests.support import wait_until
from tests.support_arq import check_books
from tests.support_arq_fleet import (
    START_SECONDS,
    TTL_SECONDS,
    ArqFleet,
    check_order,
    is_of,
)

MEMBERS = pool_shard("default")["members"]


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


async def finished(jobs):
    """Return the results of all jobs by id, once nothing waits or runs any more."""

    async def is_over():
        return await jobs.zcard(jobs.default_queue_name) == 0

    await wait_until(is_over, timeout=START_SECONDS)
    return {result.job_id: result for result in await jobs.all_job_results()}


def where(member_id, workers):
    """Return the process of a member, and the others."""
    (found,) = [worker for worker in workers if is_of(member_id, worker)]
    return found, [worker for worker in workers if worker is not found]


async def begin_and_catch(fleet, jobs, victim_signal):
    """Let a job begin in one of two workers, and send that one a signal; return both."""
    workers = fleet.start(2)
    await fleet.until_idle(2)
    await jobs.enqueue_job("gated", fleet.gate("open"), _job_id="one")
    victim, (survivor,) = where(await fleet.until_noted("job_began", "one"), workers)
    victim.send_signal(victim_signal)
    return victim, survivor


async def until_elsewhere(fleet, survivor):
    """Wait until the job runs in the survivor: within the TTL, with slack for a busy machine."""
    second = await fleet.until_noted("job_began", "one", 2, timeout=TTL_SECONDS + 2.0)
    assert is_of(second, survivor)


async def test_a_job_of_a_killed_worker_runs_elsewhere_within_the_ttl(fleet, jobs):
    victim, survivor = await begin_and_catch(fleet, jobs, signal.SIGKILL)
    await until_elsewhere(fleet, survivor)
    assert fleet.leases_of(victim) == []
    fleet.open_gate("open")
    result = (await finished(jobs))["one"]
    assert (result.result, result.job_try) == (survivor.pid, 1)  # a loss is no try
    kinds = check_order(fleet.events())
    assert (kinds["task_lease_acquired"], kinds["task_lease_expired"]) == (2, 1)
    assert (kinds["job_began"], kinds["job_ended"]) == (2, 1)


async def test_a_worker_that_stood_still_does_not_end_its_job_a_second_time(fleet, jobs):
    sleeper, survivor = await begin_and_catch(fleet, jobs, signal.SIGSTOP)
    before = fleet.memberships_of(sleeper)
    await until_elsewhere(fleet, survivor)
    fleet.open_gate("open")
    first = (await finished(jobs))["one"]
    assert (first.result, first.job_try) == (survivor.pid, 1)  # a loss is no try

    sleeper.send_signal(signal.SIGCONT)
    await wait_until(lambda: fleet.memberships_of(sleeper) - before, timeout=START_SECONDS)
    await fleet.until_idle(2)
    assert (await finished(jobs))["one"] == first
    kinds = check_order(fleet.events())
    assert (kinds["task_lease_released"], kinds["task_lease_expired"]) == (1, 1)
    await jobs.enqueue_job("gated", fleet.gate("open"), _job_id="two")
    assert "two" in await finished(jobs)


async def test_a_job_that_ended_just_before_its_worker_was_killed_is_not_run_again(fleet, jobs):
    workers = fleet.start(2)
    await fleet.until_idle(2)
    await jobs.enqueue_job("linger", _job_id="lingering")
    victim, _others = where(await fleet.until_noted("job_in_last_hook", "lingering"), workers)
    victim.send_signal(signal.SIGKILL)
    await wait_until(lambda: not fleet.memberships_of(victim), timeout=START_SECONDS)
    await jobs.enqueue_job("gated", fleet.gate("none"), _job_id="next")
    await fleet.until_noted("job_began", "next")
    fleet.open_gate("none")
    results = await finished(jobs)
    assert (results["lingering"].result, results["lingering"].job_try) == (victim.pid, 1)
    assert len(fleet.members_that("job_began", "lingering")) == 1
    check_order(fleet.events())


async def test_a_job_is_started_nowhere_else_while_its_member_lives(fleet, jobs):
    workers = fleet.start(2)
    await fleet.until_idle(2)
    await jobs.enqueue_job("block", 2.5 * TTL_SECONDS, _job_id="one")
    busy, _others = where(await fleet.until_noted("job_began", "one"), workers)
    (member,) = fleet.memberships_of(busy)
    began_at = fleet.client.zscore(MEMBERS, member)
    result = (await finished(jobs))["one"]
    assert (result.result, result.job_try) == (busy.pid, 1)
    assert fleet.client.zscore(MEMBERS, member) > began_at + TTL_SECONDS * 1e6  # it beat on
    kinds = check_order(fleet.events())
    assert (kinds["task_lease_acquired"], kinds["task_lease_expired"]) == (1, 0)


async def test_no_job_begins_before_its_lease_nor_after_its_end(fleet, jobs):
    """No hidden waiters: on success, failure, retry, cancel, discard, kill and stop."""
    fleet.open_gate("open")
    killed, stopped = fleet.start(2, "--slots", "4")
    await fleet.until_idle(2)
    for n in range(20):
        await jobs.enqueue_job("gated", fleet.gate("open"), _group=f"g{n % 3}")
    for n in range(6):
        await jobs.enqueue_job("fail", _group=f"g{n % 3}")
        await jobs.enqueue_job("again", [0, 0.02, 0.001], _group=f"g{n % 3}")
    later = [await jobs.enqueue_job("fail", _defer_by=3600) for _ in range(2)]
    assert await later[0].abort(timeout=START_SECONDS, poll_delay=0.01)
    assert await jobs.tasks.queue.discard(later[1].job_id)

    held = [await jobs.enqueue_job("gated", fleet.gate("held"), _job_id=f"h{n}") for n in range(8)]
    for job in held:
        await fleet.until_noted("job_began", job.job_id)
    assert await held[0].abort(timeout=START_SECONDS, poll_delay=0.01)
    killed.send_signal(signal.SIGKILL)
    fleet.start(1, "--slots", "4")
    await wait_until(lambda: not fleet.memberships_of(killed), timeout=START_SECONDS)
    stopped.send_signal(signal.SIGTERM)
    await wait_until(lambda: stopped.poll() is not None, timeout=START_SECONDS)
    assert stopped.returncode == 0
    fleet.open_gate("held")
    results = await finished(jobs)

    successes = [result for result in results.values() if result.success]
    assert Counter(result.function for result in successes) == {"gated": 20 + 7, "again": 6}
    kinds = check_order(fleet.events())
    assert kinds["job_began"] <= kinds["worker_spawned"] <= kinds["task_lease_acquired"]
    assert kinds["task_lease_expired"] >= 3  # the killed one's, but for the one that was aborted
    assert kinds["retry_deferred"] >= 6 * 3 + 3
    assert kinds["cancelled"] == 2
    assert kinds["task_lease_released"] == len(results) - 1  # one result is of a job that waited
