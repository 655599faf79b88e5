"""Workers that die, stop or stand still in the middle of a run (design 04; design 06)."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import pytest

from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.mock_provider.server import MockProviderServer
from forebay.mock_provider.truth import ProviderTruth
from forebay.runtime import start_worker, stop_workers
from forebay.workers.runs.driver import RunDriver
from tests.support import wait_until
from tests.support_runs import (
    COLUMNS,
    POOL,
    SHARD,
    WORKFLOW,
    audits,
    load_run,
    provider_address,
    read_records,
    remains,
    seed_rows,
)

TTL_SECONDS = 1.0
RUN_SECONDS = 20.0
ENDLESS_SECONDS = 600.0


class Fleet:
    """A run on real workers, and what the server knows of them."""

    def __init__(self, url, provider, stack, tmp_path):
        self.url = url
        self.provider = provider
        self.output = tmp_path / "records.jsonl"
        self.spec = load_run(provider, self.output, "faulty")
        self.client = stack.enter_context(open_sync(parse_url(url)))
        self._stack = stack

    def start(self, count):
        options = ("--slots", "8", "--ttl", str(TTL_SECONDS), "--allow-path", WORKFLOW.parent)
        environ = provider_address(self.provider)
        workers = [
            start_worker(self.url, *map(str, options), environ=environ) for _ in range(count)
        ]
        self._stack.callback(stop_workers, workers)
        return workers

    def memberships(self, worker):
        """Names of a worker's memberships of the pool; they begin with its pid."""
        return {name for name in self.client.zrange(POOL["members"], 0, -1) if is_of(name, worker)}

    def leases(self, worker):
        """Leases of a worker: of tasks and of requests."""
        held = [*self.client.zrange(POOL["held"], 0, -1), *self.client.zrange(SHARD["held"], 0, -1)]
        return [name for name in held if is_of(name, worker) and b"\0lease\0" in name]

    async def stand_still(self, worker):
        """SIGSTOP a worker at an instant at which it holds several leases."""

        def caught():
            worker.send_signal(signal.SIGSTOP)
            if len(self.leases(worker)) > 1:
                return True
            worker.send_signal(signal.SIGCONT)
            return False

        await wait_until(caught, timeout=RUN_SECONDS)

    def tries(self):
        """How many tries each task has behind it."""
        return [int(text.split(b"|")[4]) for text in self.client.hvals(POOL["tasks"])]

    async def drive(self):
        async with await ServerConnection.open(self.url) as connection:
            return await RunDriver(connection, self.spec).drive()

    async def ends_whole(self, driving):
        summary = await asyncio.wait_for(driving, RUN_SECONDS)
        assert (summary.written, summary.dropped) == (240, 0)
        records = read_records(self.output)
        assert [row["ticket_id"] for row in records] == [row["ticket_id"] for row in seed_rows()]
        assert all(list(row) == COLUMNS for row in records)
        await wait_until(lambda: not remains(self.url))
        assert [report.ok for report in await audits(self.url)] == [True, True]


def is_of(name, worker):
    process_id = name.decode().partition("-")[0]
    return process_id[:-8] == f"{worker.pid:x}"


@pytest.fixture
def fleet(redis_url, tmp_path):
    with contextlib.ExitStack() as stack:
        truth = ProviderTruth(latency_median_seconds=0.05)
        provider = stack.enter_context(MockProviderServer(truth, seed=7))
        yield Fleet(redis_url, provider, stack, tmp_path)


async def test_a_killed_worker_costs_no_record_and_keeps_no_lease_beyond_its_ttl(fleet):
    victim, _survivor = fleet.start(2)
    driving = asyncio.create_task(fleet.drive())
    await fleet.stand_still(victim)
    victim.send_signal(signal.SIGKILL)
    await wait_until(lambda: not fleet.leases(victim), timeout=TTL_SECONDS + 2.0)
    await fleet.ends_whole(driving)


async def test_an_orderly_stop_gives_tasks_back_without_costing_a_try(fleet):
    fleet.provider.change_truth(latency_median_seconds=ENDLESS_SECONDS)
    (worker,) = fleet.start(1)
    driving = asyncio.create_task(fleet.drive())
    await wait_until(
        lambda: fleet.provider.state.counters.in_flight > 0 and fleet.leases(worker),
        timeout=10.0,
    )
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, 10.0) == 0
    assert fleet.leases(worker) == []
    assert fleet.memberships(worker) == set()
    assert set(fleet.tries()) == {0}

    fleet.provider.change_truth(latency_median_seconds=0.0)
    fleet.start(1)
    await fleet.ends_whole(driving)


async def test_a_worker_that_stood_still_beyond_its_ttl_rejoins_and_spoils_nothing(fleet):
    sleeper, _other = fleet.start(2)
    driving = asyncio.create_task(fleet.drive())
    await fleet.stand_still(sleeper)
    before = fleet.memberships(sleeper)
    await wait_until(lambda: not fleet.memberships(sleeper), timeout=TTL_SECONDS + 2.0)
    assert not driving.done()
    sleeper.send_signal(signal.SIGCONT)
    await wait_until(lambda: fleet.memberships(sleeper) - before, timeout=5.0)
    await fleet.ends_whole(driving)
    assert sleeper.poll() is None
