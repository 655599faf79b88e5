"""What CI runs: every stage, each with its time, whatever an earlier one did."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
CHECKS = ["lint", "types", "lua", "docs", "test", "test-slow"]
STAGES = ["install", "setup", *CHECKS, "e2e-sdks", "demo"]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of programs that stand in for those that CI needs; ``make`` notes its targets."""
    write_program(tmp_path / "luacheck", "exit 0")
    write_program(tmp_path / "make", f'echo "$@" >> {tmp_path}/made')
    return tmp_path


def write_program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def run_ci(programs: Path) -> subprocess.CompletedProcess[str]:
    real_make = subprocess.check_output(["sh", "-c", "command -v make"], text=True).strip()
    made = (programs / "make").read_text()
    asked = f'case "$*" in *checks*) exec {real_make} "$@";; esac'
    write_program(programs / "make", f"{asked}\n{made}")
    return subprocess.run(
        ["bash", REPO / ".ci" / "run"],
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def table_of(output: str) -> dict[str, str]:
    """Return the outcome of each stage, by the table at the end."""
    rows = re.findall(r"^(\S+) +\d+ s  (ok|FAILED)$", output, re.MULTILINE)
    return dict(rows)


def test_each_stage_runs_and_stands_in_the_table_with_its_time(programs: Path) -> None:
    done = run_ci(programs)
    assert done.returncode == 0, done.stderr
    assert (programs / "made").read_text().split() == STAGES[1:]
    assert table_of(done.stdout) == dict.fromkeys(STAGES, "ok")
    assert re.search(r"^total +\d+ s$", done.stdout, re.MULTILINE)


def test_a_stage_that_fails_stops_none_and_fails_the_run(programs: Path) -> None:
    make = programs / "make"
    write_program(make, make.read_text() + 'case "$1" in lint|test) exit 2;; esac')
    done = run_ci(programs)
    assert done.returncode == 1
    assert (programs / "made").read_text().split() == STAGES[1:]
    assert [stage for stage, said in table_of(done.stdout).items() if said == "FAILED"] == [
        "lint",
        "test",
    ]
    assert done.stdout.endswith("failed: lint test\n")
