"""A driver that dies at the end of a run: a whole output, and no cell made again (design 05)."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from forebay.cli import cli
from forebay.contracts.runs import RunSpec
from forebay.coordinator.server_connection import ServerConnection
from forebay.workers.runs.allowlist import Allowlist
from forebay.workers.runs.driver import RunDriver
from forebay.workers.runs.files import RunFiles
from forebay.workers.runs.run_cells import RunCells
from forebay.workers.runs.workflow_file import load_workflow
from tests.support_arq import working
from tests.support_runs import forebay, read_records, remains

RECORDS = 6
WORKFLOW = """
name = "letters"
buffer_size = 2
output.path = "o.jsonl"
[[columns]]
generator = "seed"
names = ["id"]
path = "seed.csv"
[[columns]]
generator = "python"
name = "made"
needs = ["id"]
function = "counted_cells:make"
"""
MODULE = """
def make(record, models):
    with open("made", "a") as file:
        file.write("1")
    return record["id"]
"""


class Died(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed.csv").write_text("id\n" + "".join(f"{n}\n" for n in range(RECORDS)))
    (tmp_path / "counted_cells.py").write_text(MODULE)
    (tmp_path / "flow.toml").write_text(WORKFLOW)
    return tmp_path


def run_of(folder: Path) -> RunSpec:
    workflow = load_workflow(folder / "flow.toml", environ={})
    return RunSpec(run_id="letters-1", tenant="t", workflow=workflow)


def makes_cells(url: str):
    allowed = Allowlist.of(paths=["."], code=["counted_cells"])
    return working(url, cells=partial(RunCells, environ={}, allowed=allowed))


def die(*_arguments: object, **_options: object) -> None:
    raise Died


async def die_driving(url: str, run: RunSpec, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    async with await ServerConnection.open(url) as connection:
        driver = RunDriver(connection, run)
        monkeypatch.setattr(RunFiles, at, die)
        with pytest.raises(Died):
            await driver.drive()
        monkeypatch.undo()
        monkeypatch.chdir(Path(run.workflow.output.path).parent)


def names_in(folder: Path) -> list[str]:
    """Return what lies beside the output."""
    return [path.name for path in folder.glob("o.jsonl.*")]


def made(folder: Path) -> int:
    return (folder / "made").stat().st_size


@pytest.mark.parametrize("at", ["assemble", "discard"])
async def test_a_driver_that_dies_at_the_end_is_followed_by_one_that_makes_no_cell_again(
    folder: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    run = run_of(folder)
    async with makes_cells(redis_url), await ServerConnection.open(redis_url) as connection:
        await die_driving(redis_url, run, monkeypatch, at)
        summary = await RunDriver(connection, run).drive()
    assert (summary.written, summary.dropped) == (RECORDS, 0)
    assert [row["id"] for row in read_records(folder / "o.jsonl")] == [*map(str, range(RECORDS))]
    assert made(folder) == RECORDS
    assert names_in(folder) == []
    assert "runs" not in remains(redis_url)


async def test_what_a_driver_left_that_died_behind_the_end_of_its_run_is_no_unfinished_run(
    folder: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with makes_cells(redis_url):
        await die_driving(redis_url, run_of(folder), monkeypatch, "discard")
    assert names_in(folder) == ["o.jsonl.letters-1.parts"]
    again = await called("run", "flow.toml", "--no-report", "--url", redis_url)
    assert f"holds {RECORDS} records of an earlier run" in str(again.exception)
    assert names_in(folder) == []
    resumed = await called("run", "flow.toml", "--no-report", "--url", redis_url, "--resume")
    assert resumed.exit_code == 0
    assert "nothing is left to do" in resumed.output


async def test_a_driver_that_died_before_its_run_was_submitted_is_no_unfinished_run(
    folder: Path, redis_url: str
) -> None:
    RunFiles(folder / "o.jsonl", "letters-1").begin()
    async with makes_cells(redis_url):
        words = ("run", "flow.toml", "--no-report", "--url", redis_url, "--resume")
        resumed = await asyncio.to_thread(forebay, *words, cwd=folder)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{RECORDS} of {RECORDS} records written" in resumed.stdout
    assert names_in(folder) == []


async def test_parts_of_a_run_that_its_server_lost_are_not_taken_for_a_whole_output(
    folder: Path, redis_url: str
) -> None:
    files = RunFiles(folder / "o.jsonl", "letters-1")
    files.begin()
    files.write_row_group(0, [])
    refused = await called("run", "flow.toml", "--no-report", "--url", redis_url)
    assert "did not come to an end" in str(refused.exception)
    assert files.parts.exists()


async def called(*words: str):
    """Run a command of this process."""
    return await asyncio.to_thread(CliRunner().invoke, cli, words)
