"""Seed files in Parquet, with pyarrow, which is an extra (design 05, *Generators*)."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Final

from forebay.contracts.errors import WorkflowError
from forebay.contracts.extras import how_to_install
from forebay.contracts.workflow import RecordRange

_CHUNK_BYTES: Final = 2**20


def count_rows(stream: BinaryIO, path: Path, names: Sequence[str]) -> int:
    """Return how many records a file has.

    Args:
        stream: the file.
        path: for messages.
        names: columns that it must have.

    Raises:
        WorkflowError: no pyarrow, no Parquet, or one of the columns is missing.
    """
    file = _opened(stream, path)
    known = file.schema_arrow.names
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            remedy = f"did you mean {close[0]!r}?" if close else f"name one of {', '.join(known)}"
            raise WorkflowError(f"{path} has no column {name!r}; {remedy}.")
    return int(file.metadata.num_rows)


def read_rows(
    stream: BinaryIO, path: Path, names: Sequence[str], records: RecordRange
) -> list[dict[str, Any]]:
    """Return the named columns of records, in order; dates and times as ISO 8601 text.

    Raises:
        WorkflowError: no Parquet, or a value that JSON does not have.
    """
    file = _opened(stream, path)
    first, rows = 0, list[dict[str, Any]]()
    for index in range(file.metadata.num_row_groups):
        count = file.metadata.row_group(index).num_rows
        begin = max(records.start - first, 0)
        end = min(records.start + records.count - first, count)
        if begin < end:
            table = file.read_row_group(index, columns=list(names))
            rows += table.slice(begin, end - begin).to_pylist()
        first += count
    return [{name: _plain(row[name], path, name) for name in names} for row in rows]


def file_digest(stream: BinaryIO) -> tuple[int, str]:
    """Return size in bytes and SHA-256 of a file."""
    digest = hashlib.sha256()
    stream.seek(0)
    size = 0
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def _opened(stream: BinaryIO, path: Path) -> Any:
    if find_spec("pyarrow") is None:
        raise WorkflowError(
            f"{path}: Parquet needs pyarrow, which is not installed; run"
            f" {how_to_install('parquet')}, or convert it to CSV or JSON Lines."
        )
    parquet = importlib.import_module("pyarrow.parquet")
    stream.seek(0)
    try:
        return parquet.ParquetFile(stream)
    except (OSError, ValueError) as error:
        raise WorkflowError(f"{path} is no Parquet file: {error}; write it again.") from error


def _plain(value: Any, path: Path, name: str) -> Any:
    """Return a value as JSON has it."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return str(value)
        case list():
            return [_plain(item, path, name) for item in value]
        case dict():
            return {str(key): _plain(item, path, name) for key, item in value.items()}
        case _:
            raise WorkflowError(
                f"{path}: column {name!r} holds a {type(value).__name__}, which JSON does not have;"
                " convert it to text."
            )
