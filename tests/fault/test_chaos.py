"""A short ``make chaos``: no difference under a schedule of faults (issue 16, 8)."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import pytest

from tests.chaos.program import run
from tests.chaos.schedule import KINDS, schedule
from tests.chaos.servers import Servers, drain
from tests.chaos.start import Given
from tests.support import wait_until

SECONDS = 60.0


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_chaos_run_of_every_kind_of_fault_finds_no_difference(tmp_path: Path) -> None:
    faults = schedule(16, SECONDS, 60 * len(KINDS) / SECONDS, [*KINDS])
    assert {fault.kind for fault in faults} == set(KINDS)
    found = await run(tmp_path, Given(seconds=SECONDS), faults)
    assert found.differences == []
    assert found.injected.total() == len(KINDS)
    assert found.counts["calls_told"]["ok"] > 0
    assert found.counts["jobs"] > 0
    assert found.counts["runs"] > 0


async def test_a_failover_that_loses_nothing_waits_for_writes_of_others(tmp_path: Path) -> None:
    servers = Servers(tmp_path, [])
    with contextlib.closing(servers):
        await servers.until_ready()
        await servers.until_whole()
        primary, replica = servers.primary, servers.replica
        replica.process.send_signal(signal.SIGSTOP)
        primary.client.set("key", "value")
        draining = asyncio.create_task(asyncio.to_thread(drain, primary, replica))
        await wait_until(lambda: primary.client.info("clients")["paused_actions"] == "write")
        _done, waiting = await asyncio.wait([draining], timeout=0.3)
        assert waiting, "the replica cannot have the write yet"
        replica.process.send_signal(signal.SIGCONT)
        await draining
        assert replica.client.get("key") == b"value"
