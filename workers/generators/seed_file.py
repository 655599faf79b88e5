"""Seed files: counted and checked whole once, then read by row group (spec 05, *Generators*)."""

from __future__ import annotations

import csv
import hashlib
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Final

from forebay.contracts.errors import WorkflowError
from forebay.contracts.workflow import RecordRange, SeedFile
from forebay.workers.evaluation.strict_json import parse_json

INDEX_STRIDE: Final = 128
"""The index keeps the byte offset of every so many records: 8 bytes for 128 records in memory, and
at most 127 records read in vain for a row group; the file itself is never held in memory."""

MOST_RECORD_BYTES: Final = 4 * 2**20
"""Of one record: a line of JSON Lines, a row of CSV with the lines that its quotes join."""
MOST_ROW_GROUP_BYTES: Final = 256 * 2**20
"""Of the records that are read at once, which a worker holds in memory."""
_MOST_SUGGESTED: Final = 200
_LONGEST_SUGGESTED: Final = 100

_Records = Iterator[dict[str, Any]]


def describe_seed(path: Path, names: Sequence[str]) -> SeedFile:
    """Read the whole file once: check each record, count and fingerprint.

    Args:
        path: an absolute path; ``.csv``, ``.jsonl`` or ``.ndjson``, UTF-8 with or without a mark.
        names: columns that each record must have.

    Raises:
        WorkflowError: unreadable, malformed (with the line), without one of the columns, or empty.
    """
    with _opened(path) as stream:
        index = _scan(stream, path, names)
    if index.records == 0:
        raise WorkflowError(f"{path} holds no records, expected at least one; add some.")
    return SeedFile(
        path=str(path), size_bytes=index.size_bytes, sha256=index.sha256, records=index.records
    )


class SeedReader:
    """Reads row groups of a seed file, which must be the one that the run was submitted with.

    Safe to use from several threads. The file is read whole at first use, and again when its
    size, time or inode has changed since.
    """

    def __init__(self, seed: SeedFile, names: Sequence[str]) -> None:
        self._seed = seed
        self._path = Path(seed.path)
        self._names = tuple(names)
        self._lock = Lock()
        self._index: _Index | None = None
        self._checked: tuple[int, ...] | None = None

    def read_records(self, records: RecordRange) -> list[dict[str, Any]]:
        """Return the named columns of the records, in order.

        Raises:
            WorkflowError: the file is not here, cannot be read, or is another one.
        """
        with _opened(self._path) as stream:
            index = self._index_of(stream)
            if records.start + records.count > index.records:
                raise WorkflowError(
                    f"seed file {self._path} has {index.records} records, fewer than the"
                    f" {records.start + records.count} that were asked for; submit the run again."
                )
            stream.seek(index.offsets[records.start // INDEX_STRIDE])
            lines = _Lines(stream, self._path)
            rows = _format_of(self._path)(lines, self._names, index.header)
            first = records.start % INDEX_STRIDE
            begun_at = lines.offset
            read = []
            for record in islice(rows, first, first + records.count):
                read.append(record)
                if lines.offset - begun_at > MOST_ROW_GROUP_BYTES:
                    raise WorkflowError(
                        f"{records.count} records of {self._path} from record {records.start} are"
                        f" more than {MOST_ROW_GROUP_BYTES:,} bytes, too much for one row group;"
                        " lower buffer_size of the workflow."
                    )
            return read

    def _index_of(self, stream: BinaryIO) -> _Index:
        status = os.fstat(stream.fileno())
        identity = (status.st_ino, status.st_size, status.st_mtime_ns)
        with self._lock:
            if self._index is None or self._checked != identity:
                index = _scan(stream, self._path, self._names)
                if (index.size_bytes, index.sha256) != (self._seed.size_bytes, self._seed.sha256):
                    raise WorkflowError(
                        f"seed file {self._path} is not the one that the run was submitted with"
                        f" (sha256 {index.sha256[:12]}, expected {self._seed.sha256[:12]}); put the"
                        " same file there, or submit the run again."
                    )
                self._index, self._checked = index, identity
            return self._index


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    size_bytes: int
    sha256: str
    records: int
    offsets: array[int]
    header: tuple[str, ...] | None


class _Lines:
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

    def end_record(self) -> None:
        """Begin to count the bytes of the next record."""
        self._record_at = self.offset

    def refuse(self, problem: str) -> WorkflowError:
        return WorkflowError(f"{self._path} line {self.number}: {problem}.")


def _opened(path: Path) -> BinaryIO:
    _format_of(path)
    try:
        if not path.is_file():  # a pipe or a device would never end
            raise WorkflowError(f"there is no file {path}; correct the path or put the file there.")
        return path.open("rb")
    except OSError as error:
        raise WorkflowError(
            f"cannot read {path}: {error.strerror}; make it readable for this user."
        ) from error


def _scan(stream: BinaryIO, path: Path, names: Sequence[str]) -> _Index:
    lines = _Lines(stream, path)
    header = _csv_header(lines, names) if path.suffix.lower() == ".csv" else None
    offsets = array("Q")
    records = 0
    offset = lines.offset
    for _ in _format_of(path)(lines, names, header):
        if records % INDEX_STRIDE == 0:
            offsets.append(offset)
        records += 1
        offset = lines.offset
    return _Index(
        size_bytes=lines.offset,
        sha256=lines.digest.hexdigest(),
        records=records,
        offsets=offsets,
        header=header,
    )


def _csv_header(lines: _Lines, names: Sequence[str]) -> tuple[str, ...]:
    header = next(_csv_rows(lines), ())
    if len(set(header)) < len(header):
        raise lines.refuse("two columns of the header have one name; rename one")
    for name in names:
        if name not in header:
            known = [other for other in header if len(other) <= _LONGEST_SUGGESTED]
            close = get_close_matches(name, known[:_MOST_SUGGESTED], n=1)
            remedy = f"did you mean {close[0]!r}?" if close else "name one that it has"
            raise lines.refuse(f"the header has no column {name!r}; {remedy}")
    return header


_CSV_REMEDIES: Final = {
    "field limit": "keep such a text elsewhere",
    "unexpected end": "a field in quotes has no closing quote; add it",
}


def _csv_rows(lines: _Lines) -> Iterator[tuple[str, ...]]:
    """Yield rows that are not empty. Strict: an open quote must not swallow the rest silently."""
    reader = csv.reader(lines, strict=True)
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


def _read_csv(lines: _Lines, names: Sequence[str], header: tuple[str, ...] | None) -> _Records:
    header = header or ()
    for row in _csv_rows(lines):
        if len(row) != len(header):
            raise lines.refuse(
                f"{len(row)} fields, expected {len(header)} as in the header; put fields with"
                " commas in quotes"
            )
        record = dict(zip(header, row, strict=True))
        yield {name: record[name] for name in names}


def _read_json_lines(lines: _Lines, names: Sequence[str], _: tuple[str, ...] | None) -> _Records:
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


_Format = Callable[[_Lines, Sequence[str], tuple[str, ...] | None], _Records]
_FORMATS: Final[dict[str, _Format]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
}


def _format_of(path: Path) -> _Format:
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(_FORMATS)
        raise WorkflowError(
            f"{path} is of an unknown kind, expected one of {known}; convert it."
        ) from None
