"""The result of a replay: a table of waits, shares and refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import quantiles
from typing import Any, Final

from forebay.replay.replaying import Outcome, Wait

MOST_GROUPS: Final = 20
"""Groups of the table: those with most calls."""
_ALL: Final = "all"


def facts(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Return the outcomes by column as JSON: waits in seconds, shares as fractions."""
    return {
        name: {
            "cap": outcome.cap,
            "calls": len(outcome.waits),
            "refusals": outcome.refusals,
            "seconds": _end(outcome),
            "groups": {
                group: {"share": share, **_waits(waits)}
                for group, (share, waits) in _by_group(outcome).items()
            },
        }
        for name, outcome in outcomes.items()
    }


def table(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Return the outcomes as lines of at most 80 columns, a column for each."""
    told = facts(outcomes)
    columns = list(told)
    lines = [_row("", columns)]
    for title, field, form in (
        ("cap", "cap", "{}"),
        ("calls served", "calls", "{}"),
        ("429s, at most", "refusals", "{}"),
        ("until the last answer", "seconds", "{:.1f} s"),
    ):
        lines.append(_row(title, [form.format(told[name][field]) for name in columns]))
    groups = list(told[columns[0]]["groups"])
    for group in groups[: MOST_GROUPS + 1]:
        rows = [told[name]["groups"].get(group, {"share": 0, **_waits([])}) for name in columns]
        lines.append(_row(f"{group}: share", [f"{row['share']:.1%}" for row in rows]))
        lines.append(
            _row("  wait p50, p95", [f"{row['p50']:.2f}, {row['p95']:.2f} s" for row in rows])
        )
        lines.append(_row("  longest wait", [f"{row['longest']:.2f} s" for row in rows]))
    if len(groups) > MOST_GROUPS + 1:
        lines.append(f"and {len(groups) - MOST_GROUPS - 1} more groups")
    return lines


def _row(title: str, cells: Sequence[str]) -> str:
    width = max(10, 53 // max(1, len(cells)))
    return f"{_cut(title, 24):24}" + "".join(f" {_cut(cell, width):>{width}}" for cell in cells)


def _cut(text: str, width: int) -> str:
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown if len(shown) <= width else f"{shown[: width - 1]}…"


def _end(outcome: Outcome) -> float:
    return max((wait.ended_at for wait in outcome.waits), default=0.0)


def _by_group(outcome: Outcome) -> dict[str, tuple[float, list[Wait]]]:
    """Return the waits of all, then of each group, with its share while all had calls to make."""
    groups: dict[str, list[Wait]] = {}
    for wait in outcome.waits:
        groups.setdefault(wait.group, []).append(wait)
    by_size = sorted(groups.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    until = min((max(wait.ended_at for wait in waits) for waits in groups.values()), default=0.0)
    counts = {
        group: sum(wait.ended_at <= until for wait in waits) for group, waits in groups.items()
    }
    total = sum(counts.values()) or 1
    found = {_ALL: (1.0, outcome.waits)} if len(groups) != 1 else {}
    return found | {group: (counts[group] / total, waits) for group, waits in by_size}


def _waits(waits: Sequence[Wait]) -> dict[str, float]:
    seconds = sorted(wait.seconds for wait in waits)
    if not seconds:
        return {"p50": 0.0, "p95": 0.0, "longest": 0.0}
    cuts = quantiles(seconds, n=20, method="inclusive") if len(seconds) > 1 else seconds * 19
    return {"p50": cuts[9], "p95": cuts[18], "longest": seconds[-1]}
