"""A run's output as Parquet: types that all values share, whole or not at all.

Rules: design 05, *Row groups*.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from forebay.contracts.errors import RunNotWritten
from forebay.coordinator.runs.records import WrittenRecord
from forebay.workers.runs import tables
from forebay.workers.runs.files import RunFiles

parquet: Any = importlib.import_module("pyarrow.parquet")


@pytest.fixture
def files(tmp_path: Path) -> RunFiles:
    files = RunFiles(tmp_path / "o.parquet", "letters-1")
    files.begin()
    return files


def write(files: RunFiles, *parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write row groups, each of such records, and return what the table holds."""
    number = 0
    for row_group, rows in enumerate(parts):
        records = []
        for row in rows:
            records.append(WrittenRecord(number=number, values=row))
            number += 1
        files.write_row_group(row_group, records)
    files.assemble()
    rows_read: list[dict[str, Any]] = parquet.read_table(files.output).to_pylist()
    return rows_read


def test_records_are_there_in_order_with_their_types(files: RunFiles) -> None:
    rows = [
        {"id": str(i), "n": i, "t": {"label": "a", "tags": ["x"]}, "ok": True} for i in range(5)
    ]
    assert write(files, rows[:2], rows[2:]) == rows


def test_a_column_that_is_null_in_one_part_has_the_type_of_the_others(files: RunFiles) -> None:
    rows = [{"n": None, "t": None}, {"n": 1, "t": {"a": 1}}, {"n": 1.5, "t": {"b": "x"}}]
    assert write(files, *([row] for row in rows)) == [
        {"n": None, "t": None},
        {"n": 1.0, "t": {"a": 1, "b": None}},
        {"n": 1.5, "t": {"a": None, "b": "x"}},
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [("a", 1), ([1], {"a": 1}), ({}, {}), ([{}], [{}]), (2**70, "a"), (True, "a")],
)
@pytest.mark.parametrize("apart", [False, True])
def test_values_that_share_no_type_are_text(
    files: RunFiles, one: object, other: object, apart: bool
) -> None:
    rows = [{"v": one}, {"v": other}]
    parts = ([rows[0]], [rows[1]]) if apart else (rows,)
    found = write(files, *parts)
    assert [json.loads(row["v"]) for row in found] == [one, other]


def test_a_run_of_which_all_records_were_dropped_leaves_an_empty_table(files: RunFiles) -> None:
    assert write(files, []) == []


def test_a_table_with_more_records_of_an_earlier_run_is_left_as_it_is(files: RunFiles) -> None:
    assert len(write(files, [{"v": 1}, {"v": 2}])) == 2
    files.begin()
    files.write_row_group(0, [WrittenRecord(number=0, values={"v": 9})])
    output, _dropped = files.assemble()
    assert output.name == "o.letters-1.parquet"
    assert parquet.read_table(files.output).num_rows == 2


def test_a_file_that_is_no_table_is_not_replaced(files: RunFiles) -> None:
    files.output.write_text("mine")
    files.write_row_group(0, [WrittenRecord(number=0, values={"v": 9})])
    output, _dropped = files.assemble()
    assert (files.output.read_text(), output.name) == ("mine", "o.letters-1.parquet")


def test_without_pyarrow_the_workflow_is_refused_with_the_remedy(
    files: RunFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "missing_modules", lambda _extra: {"pyarrow": ImportError()})
    problem = files.problem([])
    assert problem is not None
    assert "Parquet needs pyarrow" in problem
    assert "[parquet]" in problem


def test_a_table_that_cannot_be_written_leaves_the_parts(files: RunFiles) -> None:
    files.write_row_group(0, [WrittenRecord(number=0, values={"v": 9})])
    files.output.with_name("o.parquet.partial").mkdir()
    with pytest.raises(RunNotWritten, match="cannot be written"):
        files.assemble()
    assert list(files.parts.iterdir()) != []
