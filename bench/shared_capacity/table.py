"""The table of what artifacts say: a row per provider and fleet, the worst of its runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.shared_capacity.figures import Seen, misses, see
from bench.shared_capacity.fleets import STEADY, TOLD
from bench.shared_capacity.rows import ROWS, Row

HEADER: Final = (
    "provider",
    "fleet",
    "runs",
    "goodput/s",
    "to told",
    "429s settled",
    "in all",
    "first",
    "wasted",
    "recovery",
    "Jain",
    "aims",
)


def table(out: Path) -> str:
    """Return as Markdown what the artifacts of a folder say."""
    ruler = ("---", "---", *["---:"] * (len(HEADER) - 3), "---")
    lines = [HEADER, ruler, *_lines(out)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _lines(out: Path) -> Iterator[tuple[str, ...]]:
    for row in ROWS.values():
        runs: dict[str, list[tuple[Seen, list[str]]]] = {}
        told = None
        for artifact in artifacts(out, row):
            fleets: Mapping[str, Any] = artifact["fleets"]
            told = fleets.get(TOLD, told)  # a fleet that ran alone is beside the last that was told
            for name, fleet in fleets.items():
                seen = see(row, fleet, told)
                runs.setdefault(name, []).append((seen, misses(row, seen)))
        for name, found in runs.items():
            yield _line(row, name, found)


def artifacts(out: Path, row: Row) -> list[dict[str, Any]]:
    """Return a row's artifacts, those of the fleets that ran together first."""
    paths = sorted(out.glob(f"{row.name}.*.json"), key=lambda path: (STEADY not in path.name, path))
    return [json.loads(path.read_text()) for path in paths]


def _line(row: Row, name: str, found: Sequence[tuple[Seen, list[str]]]) -> tuple[str, ...]:
    seen = [one for one, _ in found]
    ratios = [one.to_told for one in seen if one.to_told is not None]
    refused = max(seen, key=lambda one: one.refused_share)
    recovery = zip(*(one.recovery for one in seen), strict=True)
    aims = sorted({miss for _, missed in found for miss in missed})
    return (
        row.about,
        name,
        str(len(found)),
        f"{min(one.goodput for one in seen):.2f}",
        f"{min(ratios):.1%}" if ratios else "",
        f"{refused.refused} ({refused.refused_share:.2%})",
        str(max(one.refused_in_all for one in seen)),
        str(max(one.first for one in seen)),
        f"{max(one.wasted for one in seen):.1%}",
        ", ".join(_worst(times) for times in recovery),
        f"{min(one.jain for one in seen):.4f}" if len(row.tenants) > 1 else "",
        ("; ".join(aims) or "held") if name == STEADY else "",
    )


def _worst(times: Sequence[float | None]) -> str:
    return "never" if None in times else f"{max(t for t in times if t is not None):.1f} s"
