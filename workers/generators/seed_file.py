"""Seed files: counted and checked whole once, then read by row group (design 05, *Generators*)."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Final

from forebay.contracts.errors import WorkflowError
from forebay.contracts.workflow import RecordRange, SeedFile
from forebay.workers.generators.seed_lines import (
    PARQUET,
    CsvForm,
    SeedLines,
    csv_form,
    format_of,
)
from forebay.workers.generators.seed_parquet import count_rows, file_digest, read_rows

INDEX_STRIDE: Final = 128
"""Records between two byte offsets of the index: 8 bytes for 128 records in memory, and
at most 127 records read in vain for a row group; the file itself is never held in memory."""

MOST_ROW_GROUP_BYTES: Final = 256 * 2**20
"""Largest row group that is read at once, held in a worker's memory."""


def describe_seed(path: Path, names: Sequence[str], delimiter: str | None = None) -> SeedFile:
    """Read the whole file once: check each record, count and fingerprint.

    Args:
        path: an absolute path; ``.csv``, ``.jsonl`` or ``.ndjson`` in UTF-8 (a mark is skipped),
            or ``.parquet``.
        names: columns that each record must have.
        delimiter: of a CSV; None has it found.

    Raises:
        WorkflowError: unreadable, malformed (with the line), without one of the columns, or empty.
    """
    with _opened(path) as stream:
        index = _scan(stream, path, names, delimiter)
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

    def __init__(self, seed: SeedFile, names: Sequence[str], delimiter: str | None = None) -> None:
        self._seed = seed
        self._delimiter = delimiter
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
            if self._path.suffix.lower() == PARQUET:
                return read_rows(stream, self._path, self._names, records)
            stream.seek(index.offsets[records.start // INDEX_STRIDE])
            lines = SeedLines(stream, self._path)
            rows = format_of(self._path)(lines, self._names, index.form)
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
                index = _scan(stream, self._path, self._names, self._delimiter)
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
    form: CsvForm


def _opened(path: Path) -> BinaryIO:
    if path.suffix.lower() != PARQUET:
        format_of(path)
    try:
        if not path.is_file():  # a pipe or a device would never end
            raise WorkflowError(f"there is no file {path}; correct the path or put the file there.")
        return path.open("rb")
    except OSError as error:
        raise WorkflowError(
            f"cannot read {path}: {error.strerror}; make it readable for this user."
        ) from error


def _scan(stream: BinaryIO, path: Path, names: Sequence[str], delimiter: str | None) -> _Index:
    if path.suffix.lower() == PARQUET:
        rows = count_rows(stream, path, names)
        size_bytes, sha256 = file_digest(stream)
        return _Index(
            size_bytes=size_bytes, sha256=sha256, records=rows, offsets=array("Q"), form=CsvForm()
        )
    lines = SeedLines(stream, path)
    form = csv_form(lines, names, delimiter) if path.suffix.lower() == ".csv" else CsvForm()
    offsets = array("Q")
    records = 0
    offset = lines.offset
    for _ in format_of(path)(lines, names, form):
        if records % INDEX_STRIDE == 0:
            offsets.append(offset)
        records += 1
        offset = lines.offset
    return _Index(
        size_bytes=lines.offset,
        sha256=lines.digest.hexdigest(),
        records=records,
        offsets=offsets,
        form=form,
    )
