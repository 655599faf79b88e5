"""The benches from the command line: small runs that check what must hold, and no time."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

from bench.__main__ import SCENARIOS

ROOT = Path(__file__).parents[2]


def test_smoke_runs_every_scenario_and_leaves_no_lease_and_no_waiter(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "bench", "--smoke", "--out", tmp_path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    figures = list(csv.reader((tmp_path / "figures.csv").read_text().splitlines()))
    assert {row[0] for row in figures[1:]} == set(SCENARIOS)
    assert "A smoke run" in (tmp_path / "summary.md").read_text()
    for name in SCENARIOS:
        artifact = json.loads((tmp_path / f"{name}.json").read_text())
        assert artifact["scenario_id"] == name
        assert artifact["versions"]["loop"].startswith("uvloop")
        assert artifact["derived_metrics"]["figures"]
        assert all(found["wall_time_seconds"] > 0 for found in artifact["iterations"])
        assert artifact["final_request_snapshot"] or artifact["final_task_snapshot"]
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    holders = json.loads((tmp_path / "handoff.json").read_text())["iterations"][0]
    assert all(most <= 8 for name, most in holders.items() if name.endswith("max_holders"))
