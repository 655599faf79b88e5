"""A run's output as a Parquet file, out of parts that are JSON Lines (design 05, *Row groups*)."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from forebay.contracts.extras import how_to_install, missing_modules

SUFFIX: Final = ".parquet"
"""Suffix of outputs that are written as Parquet; all others are JSON Lines."""


def is_table(path: Path) -> bool:
    """Whether an output's name selects Parquet."""
    return path.suffix.lower() == SUFFIX


def table_problem() -> str | None:
    """Return the reason why no Parquet file can be written, None if it can."""
    if not missing_modules("parquet"):
        return None
    remedy = how_to_install("parquet")
    return f"Parquet needs pyarrow, which is not installed; run {remedy}, or name a .jsonl file"


def write_table(parts: Sequence[Path], target: Path) -> None:
    """Write records as Parquet, a row group for each part; memory is bounded by one part.

    A column has the type that all its values share. One whose values share none, or have no type
    in Parquet, is text: each value as JSON.

    Args:
        parts: JSON Lines, in order.
        target: written in place; the caller moves it where it belongs once it is whole.
    """
    pa, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    types = _types(pa, parts)
    schema = pa.schema(
        [(name, pa.string() if kind is None else kind) for name, kind in types.items()]
    )
    with parquet.ParquetWriter(target, schema) as writer:
        for part in parts:
            rows = [_with_texts(row, types) for row in _rows(part)]
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def count_rows(path: Path) -> int | None:
    """Return how many records a Parquet file holds; None where it is none."""
    pa, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    try:
        return int(parquet.ParquetFile(path).metadata.num_rows)
    except (pa.ArrowInvalid, OSError):
        return None


def _rows(part: Path) -> Iterator[dict[str, Any]]:
    with part.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _types(pa: Any, parts: Sequence[Path]) -> dict[str, Any]:
    """Return the type of each column in order; None for one that is written as JSON text."""
    types: dict[str, Any] = {}
    for part in parts:
        rows = list(_rows(part))
        for name in rows[0] if rows else ():
            found = _type_of(pa, [row[name] for row in rows])
            types[name] = _shared(pa, types[name], found) if name in types else found
    return {name: pa.string() if kind == pa.null() else kind for name, kind in types.items()}


def _type_of(pa: Any, values: list[Any]) -> Any:
    try:
        kind = pa.array(values).type
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return None
    return kind if _is_writable(pa, kind) else None


def _shared(pa: Any, one: Any, other: Any) -> Any:
    if one is None or other is None:
        return None
    schemas = [pa.schema([("value", kind)]) for kind in (one, other)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field("value").type
    except pa.ArrowException:
        return None


def _is_writable(pa: Any, kind: Any) -> bool:
    """Whether Parquet can hold a type: it has no struct without fields."""
    if pa.types.is_struct(kind):
        fields = [kind.field(index).type for index in range(kind.num_fields)]
        return bool(fields) and all(_is_writable(pa, field) for field in fields)
    return not pa.types.is_list(kind) or _is_writable(pa, kind.value_type)


def _with_texts(row: dict[str, Any], types: dict[str, Any]) -> dict[str, Any]:
    return {
        name: json.dumps(value, ensure_ascii=False) if types[name] is None else value
        for name, value in row.items()
    }
