"""The files of a run: whole row groups, one output, and what cannot be written.

Rules: design 05, *Row groups*.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from forebay.cli import cli
from forebay.contracts.errors import ConfigurationError, RunNotWritten
from forebay.contracts.outcomes import TaskFailure
from forebay.contracts.runs import RunSpec
from forebay.coordinator.runs.records import DroppedRecord, WrittenRecord, read_record
from forebay.workers.runs.files import RunFiles
from forebay.workers.runs.workflow_file import load_workflow
from tests.support_runs import ROOT, WORKFLOW

FLOW = """
name = "letters"
records = 1
output.path = "o.jsonl"
providers.lab.base_url = "http://lab"
models.m = {provider = "lab", model = "m", max_parallel_requests = 1}
columns = [
    {generator = "llm_text", name = "text", model = "m", prompt = "hello"},
    {generator = "expression", name = "plain", template = "x"},
]
"""


def record(number: int, text: str) -> WrittenRecord:
    return WrittenRecord(number=number, values={"text": text})


def dropped(number: int) -> WrittenRecord:
    failure = TaskFailure(reason="broken", model="beta/b-big", status="500")
    why = DroppedRecord(column="text", failure=failure, tries=3)
    return WrittenRecord(number=number, values={}, key={"id": "T-1"}, dropped=why)


@pytest.fixture
def files(tmp_path: Path) -> RunFiles:
    files = RunFiles(tmp_path / "out" / "o.jsonl", "letters-1")
    files.begin()
    return files


def test_row_groups_are_put_together_in_their_order(files: RunFiles) -> None:
    files.write_row_group(10, [record(2, "b")])
    files.write_row_group(9, [record(0, "ä"), dropped(1)])
    assert files.count() == (2, 1)
    files.assemble()
    assert files.output.read_text(encoding="utf-8") == '{"text":"ä"}\n{"text":"b"}\n'
    (line,) = files.dropped.read_text().splitlines()
    assert json.loads(line) == {
        "record": 1,
        "key": {"id": "T-1"},
        "column": "text",
        "model": "beta/b-big",
        "status": "500",
        "tries": 3,
        "reason": "broken",
    }


def test_the_parts_stay_until_they_are_discarded_and_make_the_same_output_again(
    files: RunFiles,
) -> None:
    files.write_row_group(0, [record(0, "a"), dropped(1)])
    assert files.has_unassembled()
    first = files.assemble()
    before = [path.read_bytes() for path in first]
    assert not files.has_unassembled()
    assert files.assemble() == first
    assert [path.read_bytes() for path in first] == before
    files.discard()
    assert not files.parts.exists()


def test_parts_that_are_half_discarded_are_not_taken_for_unassembled_ones(
    files: RunFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_row_group(0, [record(0, "a"), dropped(1)])
    files.assemble()
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", lambda *_a, **_o: None)  # as if killed before
        files.discard()
    assert files.parts.exists()
    assert not files.has_unassembled()


def test_a_dropped_line_has_all_fields_where_no_call_failed(files: RunFiles) -> None:
    why = DroppedRecord(column="text", failure=TaskFailure(reason="invalid"), tries=1)
    files.write_row_group(0, [WrittenRecord(number=0, values={}, dropped=why)])
    files.assemble()
    assert json.loads(files.dropped.read_text()) == {
        "record": 0,
        "key": {},
        "column": "text",
        "model": None,
        "status": None,
        "tries": 1,
        "reason": "invalid",
    }


def test_a_record_is_dropped_with_the_one_model_that_its_column_asks(tmp_path: Path) -> None:
    (tmp_path / "flow.toml").write_text(FLOW)
    workflow = load_workflow(tmp_path / "flow.toml", environ={})
    for column, model in (("text", "lab/m"), ("plain", "")):
        mark = f"{column}\0" + "1\0\0\0answer_cut"
        record = read_record(0, workflow, [None, None, mark.encode()])
        assert record is not None
        assert record.dropped is not None
        assert record.dropped.failure == TaskFailure(reason="answer_cut", model=model)


def test_what_an_earlier_run_dropped_is_gone_where_nothing_was(files: RunFiles) -> None:
    files.dropped.write_text("old")
    files.write_row_group(0, [record(0, "a")])
    files.assemble()
    assert not files.dropped.exists()


@pytest.mark.parametrize("kept", [0, 1])
def test_an_output_with_more_records_is_left_and_the_new_ones_go_beside_it(
    files: RunFiles, kept: int
) -> None:
    files.output.write_text("1\n2\n")
    files.dropped.write_text("old\n")
    files.write_row_group(0, [record(0, "a")] * kept + [dropped(1)])
    output, dropped_file = files.assemble()
    assert files.output.read_text() == "1\n2\n"
    assert files.dropped.read_text() == "old\n"
    assert (output.name, dropped_file.name) == (
        "o.letters-1.jsonl",
        "o.dropped.letters-1.jsonl",
    )
    assert len(output.read_text().splitlines()) == kept
    assert len(dropped_file.read_text().splitlines()) == 1


@pytest.mark.parametrize(("earlier", "overwrites"), [("1\n2\n", True), ("1\n", False), ("", False)])
def test_an_output_is_replaced_by_as_many_records_or_where_that_is_asked(
    files: RunFiles, earlier: str, overwrites: bool
) -> None:
    files.output.write_text(earlier)
    files.write_row_group(0, [record(0, "a")])
    output, _dropped = files.assemble(overwrites=overwrites)
    assert output == files.output
    assert output.read_text() == '{"text":"a"}\n'


def test_reasons_are_counted_with_their_columns(files: RunFiles) -> None:
    files.write_row_group(0, [record(0, "a"), dropped(1)])
    files.write_row_group(1, [dropped(2), dropped(3)])
    assert files.reasons() == {"text: broken": 3}


def test_other_runs_of_the_workflow_that_did_not_end_are_found(files: RunFiles) -> None:
    RunFiles(files.output, "letters-2").begin()
    RunFiles(files.output, "let-3").begin()
    RunFiles(files.output.with_name("other.jsonl"), "letters-4").begin()
    RunFiles(files.output, "letters-5").server.mkdir()
    assert files.unfinished("letters") == ["letters-2", "letters-5"]


def test_row_group_that_cannot_be_written_is_told_with_its_place(files: RunFiles) -> None:
    files.parts.rmdir()
    files.parts.parent.rmdir()
    with pytest.raises(RunNotWritten, match="cannot be written") as refused:
        files.write_row_group(0, [record(0, "a")])
    assert f"{files.parts} cannot be written (No such" in str(refused.value)
    assert "make room there, and resume the run" in str(refused.value)


@pytest.mark.parametrize("place", ["output", "dropped"])
def test_output_that_cannot_be_replaced_is_told_and_the_parts_are_kept(
    files: RunFiles, place: str
) -> None:
    target: Path = getattr(files, place)
    target.mkdir()
    files.write_row_group(0, [record(0, "a"), dropped(1)])
    with pytest.raises(RunNotWritten, match="cannot be written") as refused:
        files.assemble()
    assert str(target) in str(refused.value)
    assert f"what is finished lies in {files.parts}" in str(refused.value)
    assert len(list(files.parts.iterdir())) == 2


def test_folder_below_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        RunFiles(tmp_path / "file" / "o.jsonl", "r").begin()


def test_only_an_empty_folder_of_parts_is_discarded(files: RunFiles) -> None:
    files.write_row_group(0, [record(0, "a")])
    files.discard_if_empty()
    assert files.parts.exists()
    for part in files.parts.iterdir():
        part.unlink()
    files.discard_if_empty()
    assert not files.parts.exists()


def test_files_are_utf8_whatever_the_locale(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path\n"
        "from forebay.coordinator.runs.records import WrittenRecord\n"
        "from forebay.workers.runs.files import RunFiles\n"
        f"files = RunFiles(Path({str(tmp_path)!r}) / 'o.jsonl', 'r')\n"
        "files.begin()\n"
        "files.write_row_group(0, [WrittenRecord(number=0, values={'t': chr(0x65e5)})])\n"
        "files.assemble()\n"
    )
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=locale, check=True)
    assert (tmp_path / "o.jsonl").read_text(encoding="utf-8") == '{"t":"日"}\n'


@pytest.mark.parametrize("run_id", ["a/b", "..", "", "a\0", "x" * 129])
def test_run_id_that_no_folder_can_bear_is_refused(run_id: str) -> None:
    workflow = load_workflow(WORKFLOW, environ={})
    with pytest.raises(ValidationError, match="run_id"):
        RunSpec(run_id=run_id, tenant="t", workflow=workflow)


def test_a_run_that_finds_no_server_to_start_leaves_nothing_in_the_way_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOREBAY_SERVER_BINARY", str(tmp_path / "nothing"))
    for _ in range(2):
        ran = CliRunner().invoke(cli, ["run", str(WORKFLOW), "--url", "embedded://"])
        assert isinstance(ran.exception, ConfigurationError)
        assert "names no executable file" in str(ran.exception)
    assert list(tmp_path.iterdir()) == []
