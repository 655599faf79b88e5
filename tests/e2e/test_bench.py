"""The benches from the command line: small runs that check what must hold, and no time."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import SCENARIOS
from bench.compare.callgrind import why_not
from bench.compare.measures import MEASURES

ROOT = Path(__file__).parents[2]


@pytest.mark.long
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
    crash = json.loads((tmp_path / "crash.json").read_text())["iterations"][0]
    assert crash["held_by_the_dead"] + crash["max_holders_while_taken"] <= 8


@pytest.mark.long
def test_fleets_beside_one_that_is_told_keep_their_books_against_a_provider_that_refuses(
    tmp_path: Path,
) -> None:
    rows = ("mock-outage", "mock-tenants")
    subprocess.run(  # which raises where provider and clients counted differently
        [sys.executable, "-m", "bench", "shared-capacity", *rows, "--smoke", "--out", tmp_path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    found = {path.name for path in (tmp_path / "smoke").glob("*.json")}
    fleets = ("told-steady", "aimd", "aimd-each", "split", "sdk")
    assert found == {
        *(f"mock-outage.{name}.1.json" for name in fleets),
        "mock-tenants.told-steady.1.json",
    }
    pair = json.loads((tmp_path / "smoke" / "mock-outage.told-steady.1.json").read_text())
    answers = [answer for fleet in pair["fleets"].values() for answer in fleet["answers"]]
    assert {200, 503} <= {status for _, status, _ in answers}
    for fleet in pair["fleets"].values():
        assert fleet["answers"]
        assert all(left["audit"]["ok"] for left in fleet["final_request_snapshot"].values())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of one commit: the tree as it is."""
    root = tmp_path / "repository"
    others = shutil.ignore_patterns(".git", ".venv", "out", "*.egg-info", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, root, symlinks=True, ignore=others)
    git = ["git", "-C", root, "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "the tree")):
        subprocess.run([*git, *command], check=True)
    return root


COMPARED = "jobs"
"""One of the comparisons: building takes most of the time, and all of them go the same way."""


@pytest.mark.long
def test_two_commits_are_built_and_compared_and_their_work_trees_are_gone(
    repository: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bench",
            "--baseline",
            "HEAD",
            COMPARED,
            "--smoke",
            "--out",
            tmp_path,
        ],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "A smoke run" in done.stdout
    assert "pair 2 of 2" in done.stderr
    for name in (COMPARED,):
        measures = MEASURES[name]
        artifact = json.loads((tmp_path / f"compare-{name}.json").read_text())
        assert artifact["baseline_sha"] == artifact["candidate_sha"]
        assert len([one for one in artifact["iterations"] if one["wall_time_seconds"] > 0]) >= 2
        assert artifact["final_request_snapshot"] or artifact["final_task_snapshot"]
        found = artifact["derived_metrics"]["comparisons"]
        assert set(found) == {measure.name for measure in measures}
        for measure in measures:
            if measure.name.endswith(".instructions"):
                assert len(found[measure.name]["ratios"]) == (0 if why_not() else 1)
            elif measure.is_counted:
                assert len(found[measure.name]["ratios"]) == 2
        text = (tmp_path / f"compare-{name}.txt").read_text()
        assert (why_not() or "under callgrind") in " ".join(text.split())
    trees = subprocess.check_output(["git", "-C", repository, "worktree", "list"], text=True)
    assert len(trees.splitlines()) == 1


@pytest.mark.long
def test_the_proxy_keeps_its_books_at_a_provider_that_refuses(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "bench", "proxy", "--smoke", "--litellm", "none", "--out", tmp_path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    found = json.loads((tmp_path / "proxy.json").read_text())
    assert all(left["audit"]["ok"] for left in found["final_request_snapshot"].values())
    assert set(found["final_request_snapshot"]) == {"bench/transport", "limited/transport"}
