from __future__ import annotations

import csv
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.contracts.errors import WorkflowError
from forebay.contracts.workflow import RecordRange
from forebay.workers.generators import seed_file
from forebay.workers.generators.seed_file import SeedReader, describe_seed

ROWS = st.lists(st.tuples(st.text(min_size=1), st.text()), min_size=1, max_size=20)


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, names: list[str], start: int = 0, count: int | None = None):
    seed = describe_seed(path, names)
    asked = RecordRange(start=start, count=seed.records - start if count is None else count)
    return SeedReader(seed, names).read_records(asked)


def clean(text: str) -> str:
    """Without what csv files cannot say: a bare carriage return, a lone surrogate."""
    return text.encode("utf-8", "ignore").decode().replace("\r", "")


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, data=st.data(), kind=st.sampled_from(["csv", "jsonl"]))
def test_any_range_reads_the_records_that_were_written(rows, data, kind):
    rows = [(f"x{clean(a)}", clean(b)) for a, b in rows]
    start = data.draw(st.integers(0, len(rows) - 1))
    count = data.draw(st.integers(1, len(rows) - start))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(seed_file, "INDEX_STRIDE", 3)
        path = Path(folder) / f"seed.{kind}"
        with path.open("w", encoding="utf-8", newline="") as file:
            if kind == "csv":
                csv.writer(file).writerows([("a", "b"), *rows])
            else:
                file.writelines(
                    json.dumps({"a": a, "b": b}, ensure_ascii=False) + "\n" for a, b in rows
                )
        expected = [{"b": b, "a": a} for a, b in rows[start : start + count]]
        assert read(path, ["b", "a"], start, count) == expected


def test_columns_come_in_the_order_that_was_asked_and_no_others(tmp_path):
    path = written(tmp_path, "seed.csv", "a,b,c\n1,2,3\n")
    assert [list(record.items()) for record in read(path, ["c", "a"])] == [[("c", "3"), ("a", "1")]]


def test_a_byte_order_mark_empty_lines_and_windows_lines_are_no_data(tmp_path):
    path = written(tmp_path, "seed.csv", b"\xef\xbb\xbfa,b\r\n\r\n1,2\r\n\r\n")
    assert read(path, ["a", "b"]) == [{"a": "1", "b": "2"}]
    path = written(
        tmp_path, "seed.jsonl", b'\xef\xbb\xbf{"a": [1, null]}\r\n\n{"a": "\xe2\x80\xa8"}'
    )
    assert read(path, ["a"]) == [{"a": [1, None]}, {"a": "\u2028"}]


def test_a_reader_on_another_machine_reads_the_same_file_by_its_content(tmp_path):
    seed = describe_seed(written(tmp_path, "seed.csv", "a\n1\n2\n"), ["a"])
    written(tmp_path, "seed.csv", "a\n1\n2\n")
    reader = SeedReader(seed, ["a"])
    assert reader.read_records(RecordRange(start=1, count=1)) == [{"a": "2"}]


def test_another_file_of_the_same_size_is_noticed(tmp_path):
    seed = describe_seed(written(tmp_path, "seed.csv", "a\n1\n2\n"), ["a"])
    written(tmp_path, "seed.csv", "a\n1\n3\n")
    with pytest.raises(WorkflowError, match="not the one that the run was submitted with"):
        SeedReader(seed, ["a"]).read_records(RecordRange(start=0, count=1))


def test_a_file_that_is_replaced_between_two_reads_is_noticed(tmp_path):
    path = written(tmp_path, "seed.csv", "a\n1\n2\n")
    reader = SeedReader(describe_seed(path, ["a"]), ["a"])
    assert reader.read_records(RecordRange(start=0, count=2)) == [{"a": "1"}, {"a": "2"}]
    written(tmp_path, "other", "a\n1\n3\n").replace(path)
    with pytest.raises(WorkflowError, match="not the one"):
        reader.read_records(RecordRange(start=0, count=2))
    path.unlink()
    with pytest.raises(WorkflowError, match="there is no file"):
        reader.read_records(RecordRange(start=0, count=2))


def test_records_beyond_the_end_are_refused(tmp_path):
    path = written(tmp_path, "seed.csv", "a\n1\n2\n")
    with pytest.raises(WorkflowError, match="has 2 records, fewer than the 3"):
        read(path, ["a"], 1, 2)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("s.csv", "", "the header has no column 'a'"),
        ("s.csv", "a\n", "holds no records, expected at least one"),
        ("s.csv", "A\n1\n", "line 1: the header has no column 'a'; name one"),
        ("s.csv", "a,a\n1,2\n", "line 1: two columns of the header have one name"),
        ("s.csv", "a,b\n1,2\n1,2,3\n", "line 3: 3 fields, expected 2"),
        (
            "s.csv",
            'a\n1\n"open\n2\n',
            "line 4: not CSV: unexpected end of data; a field in quotes has no closing quote",
        ),
        ("s.csv", "a\n" + "x" * 200_000, "line 2: not CSV: field larger than field limit"),
        ("s.csv", b"a\n\xff\n", "line 2: not UTF-8; save the file as UTF-8"),
        ("s.jsonl", "", "holds no records"),
        ("s.jsonl", '{"a": 1}\n{"a"\n', "line 2: not JSON at line"),
        ("s.jsonl", '{"b": 1}\n', "line 1: the record has no 'a'"),
        ("s.jsonl", "[1]\n", "line 1: not a JSON object"),
        ("s.jsonl", '{"a": NaN}\n', "line 1: a number is not finite"),
        ("s.jsonl", '{"a": 1e999}\n', "line 1: a number is not finite"),
        ("s.jsonl", '{"a": "\\ud800"}\n', "line 1: a text holds a lone surrogate"),
        ("s.jsonl", '{"a": ' + "[" * 200_000 + "\n", "line 1: nested too deep"),
        ("s.xlsx", "", "unknown kind, expected one of .csv, .jsonl, .ndjson, .parquet"),
    ],
)
def test_a_seed_file_that_is_not_right_throughout_is_refused_with_the_line(
    tmp_path, name, content, words
):
    with pytest.raises(WorkflowError) as caught:
        describe_seed(written(tmp_path, name, content), ["a"])
    assert words in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.csv", b"a\n1\n" + b"x" * 5_000_000),
        ("s.csv", b"a,b\n1,2\n1," + b'"\n",' * 1_500_000),
        ("s.csv", b"a" + b",b" * 3_000_000),
        ("s.jsonl", b'{"a": 1}\n{"a": "' + b"x" * 5_000_000 + b'"}\n'),
        ("s.jsonl", b'{"a": 1}\n' + b"[" * 5_000_000),
    ],
)
def test_a_record_without_end_is_refused_before_it_fills_the_memory(tmp_path, name, content):
    with pytest.raises(WorkflowError, match=r"line \d+: the record is longer than 4,194,304 bytes"):
        describe_seed(written(tmp_path, name, content), ["a"])


def test_records_of_any_length_up_to_the_bound_are_read_one_after_another(tmp_path):
    values = ["x" * 3_000_000, "y" * 3_000_000]
    content = "".join(json.dumps({"a": value}) + "\n" for value in values)
    read_again = read(written(tmp_path, "s.jsonl", content), ["a"])
    assert [record["a"] for record in read_again] == values
    rows = "".join(f'"{"z" * 50}\n",' * 70_000 + '""\n' for _ in range(2))
    header = ",".join(f"c{number}" for number in range(70_001)) + "\n"
    assert describe_seed(written(tmp_path, "s.csv", header + rows), ["c0"]).records == 2


def test_a_row_group_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(seed_file, "MOST_ROW_GROUP_BYTES", 100)
    path = written(tmp_path, "s.csv", "a\n" + "1234\n" * 50)
    assert len(read(path, ["a"], 0, 10)) == 10
    with pytest.raises(WorkflowError, match="too much for one row group; lower buffer_size"):
        read(path, ["a"])


@pytest.mark.parametrize("value", ["1" * 2_000, "-" + "9" * 100_000])
def test_a_whole_number_of_thousands_of_digits_is_refused(tmp_path, value):
    path = written(tmp_path, "s.jsonl", f'{{"a": {value}}}\n')
    with pytest.raises(WorkflowError, match="line 1: a whole number has more than 1,000 digits"):
        describe_seed(path, ["a"])


def test_a_header_of_countless_names_is_refused_without_comparing_them_all(tmp_path):
    header = ",".join(f"{'n' * 90}{number}" for number in range(40_000))
    with pytest.raises(WorkflowError, match="the header has no column"):
        describe_seed(written(tmp_path, "s.csv", header + "\n"), ["n" * 99])


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "seed.csv")
    with pytest.raises(WorkflowError, match="there is no file"):
        describe_seed(tmp_path / "seed.csv", ["a"])
