"""A short ``make run-kills``: a kill -9 of each kind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.run_kills.program import compared, run
from tests.run_kills.scene import Kill
from tests.run_kills.workflows import WORKFLOWS, Killed

SHORT = Killed(name="short", columns=WORKFLOWS["judged"].columns, records=15)
KILLS = [
    Kill(kind="workers", after_calls=6, delay_seconds=0.03),
    Kill(kind="server", after_calls=12, delay_seconds=0.02),
    Kill(kind="driver", after_calls=18, delay_seconds=0.01),
]


@pytest.mark.timeout(300)
async def test_a_run_under_a_kill_of_each_kind_writes_the_same_and_pays_for_no_call_twice(
    tmp_path: Path,
) -> None:
    plain, killed = await asyncio.gather(
        run(tmp_path / "plain", SHORT, seed=0),
        run(tmp_path / "killed", SHORT, seed=1, kills=KILLS, ttl_seconds=2.0),
    )
    assert plain.differences == []
    assert (plain.calls, plain.paid_again) == (2 * SHORT.records, 0)
    assert compared(plain, killed) == []
    assert killed.killed == {"workers": 1, "server": 1, "driver": 1}
