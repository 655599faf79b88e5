"""The plan of a small run, as a pool is given it."""

from __future__ import annotations

import json
from typing import Any

from tests.contract.pool_under_clock import MODEL, ONE, task_of


def column(name: str, scope: str, inputs: list[str], feeds: list[int], asks: str) -> dict[str, Any]:
    return {
        "name": name, "scope": scope, "inputs": inputs, "outputs": [name], "feeds": feeds,
        "group": f"group-{name}", "weight": 1, "admitted_limit": "", "signature": asks,
    }  # fmt: skip


def plan(records: int = 4, buffer_size: int = 2, max_open: int = 1, **other: Any) -> str:
    """A root makes `seed`; `left` and `right` need it; `last` needs both."""
    columns = [
        column("seed", "g", [], [2, 3], ONE),
        column("left", "r", ["seed"], [4], MODEL),
        column("right", "r", ["seed"], [4], ONE),
        column("last", "r", ["left", "right"], [], ONE),
    ]
    sizes = {"records": records, "buffer_size": buffer_size, "max_open": max_open}
    groups = -(-records // buffer_size)
    return json.dumps(sizes | {"row_groups": groups, "limits": {}, "columns": columns} | other)


def values_of(lease_id: str, *, buffer_size: int = 2) -> list[str]:
    """The cells that a task makes, as they follow a finish."""
    _run, name, place = task_of(lease_id).split(":")
    number = int(place[1:])
    records = [number]
    if place[0] == "g":
        records = list(range(number * buffer_size, (number + 1) * buffer_size))
    return [part for record in records for part in (str(record), name, f'"{name}{record}"')]
