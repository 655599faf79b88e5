"""Seed files of lines: CSV and JSON Lines, as records with their places.

Rules: design 05, *Generators*.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO, Final

from forebay.contracts.errors import WorkflowError
from forebay.workers.evaluation.strict_json import parse_json

MOST_RECORD_BYTES: Final = 4 * 2**20
"""Largest record: a line of JSON Lines, or a row of CSV with its quoted lines."""
DELIMITERS: Final = (",", ";", "\t", "|")
"""Delimiters that a CSV may have without the workflow naming them."""
PARQUET: Final = ".parquet"
_MOST_SUGGESTED: Final = 200
_LONGEST_SUGGESTED: Final = 100

_Records = Iterator[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvForm:
    """The form of a CSV: delimiter and header.

    Attributes:
        header: its names.
        delimiter: between fields.
    """

    header: tuple[str, ...] = ()
    delimiter: str = ","


class SeedLines:
    """Decoded lines of a stream, with the place and the digest of what was read.

    Lines end at a line feed alone, as JSON Lines wants it; csv joins those inside of quotes.
    """

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream = stream
        self._path = path
        self.offset = stream.tell()
        self.number = 0
        self._record_at = self.offset
        self.digest = hashlib.sha256()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        left = MOST_RECORD_BYTES - (self.offset - self._record_at)
        line = self._stream.readline(left + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > left:
            raise self.refuse(
                f"the record is longer than {MOST_RECORD_BYTES:,} bytes; close its quotes, end its"
                " line, or keep such a text elsewhere"
            )
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise self.refuse("not UTF-8; save the file as UTF-8") from error
        if self.offset == 0:
            text = text.removeprefix("\ufeff")
        self.offset += len(line)
        self.digest.update(line)
        return text

    def peek(self) -> str:
        """Return the next line without taking it; bytes that are no UTF-8 are replaced."""
        at = self._stream.tell()
        line = self._stream.readline(MOST_RECORD_BYTES)
        self._stream.seek(at)
        return line.decode("utf-8-sig", errors="replace")

    def end_record(self) -> None:
        """Begin to count the bytes of the next record."""
        self._record_at = self.offset

    def refuse(self, problem: str) -> WorkflowError:
        """Return the error of the line that was read last."""
        return WorkflowError(f"{self._path} line {self.number}: {problem}.")


def csv_form(lines: SeedLines, names: Sequence[str], delimiter: str | None) -> CsvForm:
    """Read the header of a CSV.

    Args:
        lines: at the begin of the file.
        names: columns that it must have.
        delimiter: None takes the first of ``DELIMITERS`` at which the header parts into ``names``.

    Raises:
        WorkflowError: a name twice, or one of ``names`` is missing.
    """
    found = delimiter or _delimiter_in(lines.peek(), names)
    header = next(_csv_rows(lines, found), ())
    if len(set(header)) < len(header):
        raise lines.refuse("two columns of the header have one name; rename one")
    for name in names:
        if name not in header:
            known = [other for other in header if len(other) <= _LONGEST_SUGGESTED]
            close = get_close_matches(name, known[:_MOST_SUGGESTED], n=1)
            remedy = f"did you mean {close[0]!r}?" if close else "name one that it has"
            raise lines.refuse(f"the header has no column {name!r}; {remedy}")
    return CsvForm(header=header, delimiter=found)


def _delimiter_in(line: str, names: Sequence[str]) -> str:
    for delimiter in DELIMITERS:
        try:
            fields = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:  # a field that is too long, so that this is not what parts them
            continue
        if set(names) <= set(fields):
            return delimiter
    return DELIMITERS[0]


_CSV_REMEDIES: Final = {
    "field limit": "keep such a text elsewhere",
    "unexpected end": "a field in quotes has no closing quote; add it",
}


def _csv_rows(lines: SeedLines, delimiter: str) -> Iterator[tuple[str, ...]]:
    """Yield rows that are not empty. Strict: an open quote must not swallow the rest silently."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            remedy = next(
                (remedy for part, remedy in _CSV_REMEDIES.items() if part in str(error)),
                "put such a field in quotes",
            )
            raise lines.refuse(f"not CSV: {error}; {remedy}") from error
        lines.end_record()
        if row:
            yield tuple(row)


def _read_csv(lines: SeedLines, names: Sequence[str], form: CsvForm) -> _Records:
    header = form.header
    for row in _csv_rows(lines, form.delimiter):
        if len(row) != len(header):
            raise lines.refuse(
                f"{len(row)} fields, expected {len(header)} as in the header; put fields with"
                f" {'commas' if form.delimiter == ',' else repr(form.delimiter)} in quotes"
            )
        record = dict(zip(header, row, strict=True))
        yield {name: record[name] for name in names}


def _read_json_lines(lines: SeedLines, names: Sequence[str], _: CsvForm) -> _Records:
    for line in lines:
        lines.end_record()
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except ValueError as error:
            raise lines.refuse(f"{error}; write one JSON object a line") from error
        if not isinstance(record, dict):
            raise lines.refuse("not a JSON object; write one a line")
        for name in names:
            if name not in record:
                raise lines.refuse(f"the record has no {name!r}; add it, null will do")
        yield {name: record[name] for name in names}


ReadRecords = Callable[[SeedLines, Sequence[str], CsvForm], _Records]
_FORMATS: Final[dict[str, ReadRecords]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
}


def format_of(path: Path) -> ReadRecords:
    """Return the reader of a file's records, by its suffix.

    Raises:
        WorkflowError: an unknown suffix.
    """
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        known = ", ".join([*_FORMATS, PARQUET])
        raise WorkflowError(
            f"{path} is of an unknown kind, expected one of {known}; convert it."
        ) from None
