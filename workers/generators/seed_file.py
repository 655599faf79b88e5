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
from forebay.workers.generators.strict_json import parse_json

INDEX_STRIDE: Final = 128
"""The index keeps the byte offset of every so many records: 8 bytes for 128 records in memory, and
at most 127 records read in vain for a row group; the file itself is never held in memory."""

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
            rows = _format_of(self._path)(_Lines(stream, self._path), self._names, index.header)
            first = records.start % INDEX_STRIDE
            return list(islice(rows, first, first + records.count))

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
        self.digest = hashlib.sha256()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._stream.readline()
        if not line:
            raise StopIteration
        self.number += 1
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise self.refuse("not UTF-8; save the file as UTF-8") from error
        if self.offset == 0:
            text = text.removeprefix("\ufeff")
        self.offset += len(line)
        self.digest.update(line)
        return text

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
            close = get_close_matches(name, header, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else "name one that it has"
            raise lines.refuse(f"the header has no column {name!r}; {remedy}")
    return header


def _csv_rows(lines: _Lines) -> Iterator[tuple[str, ...]]:
    """Yield rows that are not empty. Strict: an open quote must not swallow the rest silently."""
    reader = csv.reader(lines, strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise lines.refuse(f"not CSV: {error}; put such a field in quotes") from error
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
