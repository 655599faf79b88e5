"""A short ``make chaos``: no difference under a schedule of faults (issue 16, 8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.program import run
from tests.chaos.schedule import KINDS, schedule
from tests.chaos.start import Given

SECONDS = 60.0


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
