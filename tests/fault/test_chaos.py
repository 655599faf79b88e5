"""A short ``make chaos``: no difference under a schedule of faults (issue 16, 8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.program import run
from tests.chaos.schedule import USUAL, schedule
from tests.chaos.start import Given

SECONDS = 60.0


@pytest.mark.timeout(300)
async def test_a_chaos_run_of_every_usual_fault_finds_no_difference(tmp_path: Path) -> None:
    faults = schedule(16, SECONDS, 60 * len(USUAL) / SECONDS, USUAL)
    assert {fault.kind for fault in faults} == set(USUAL)
    found = await run(tmp_path, Given(seconds=SECONDS), faults)
    assert found.differences == []
    assert found.injected.total() == len(USUAL)
    assert found.counts["calls_told"]["ok"] > 0
    assert found.counts["jobs"] > 0
    assert found.counts["runs"] > 0
