"""The picture of `forebay top`, with rich: tables of windows, pools, members and runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forebay.contracts.snapshots import GlobalSnapshot

Row = dict[str, Any]
_SHARES: Final = "share of running (of weights)"
_TEXTS: Final = frozenset({"next", "program", "tenant", "state", _SHARES})
WIDE: Final = 110
"""Columns from which on the tables show what comes next, and all of a process."""
_KEYS: Final = "up, down: choose   Enter: open   Esc: back   s: sort   q: quit"


@dataclass(kw_only=True)
class Scene:
    """The contents of one picture.

    Attributes:
        rows: of ``top_rows``.
        sort: the order of the windows.
        width: columns.
        height: lines of the terminal; None draws every row, and folds names instead of cutting.
        selected: name of the row that the cursor is on; None draws no cursor.
        error: why the last look failed, below which the rows of the look before stand.
    """

    rows: Row
    sort: str
    width: int
    height: int | None = None
    selected: str | None = None
    error: str | None = None


def picture_of(scene: Scene) -> RenderableType:
    """Return the fleet as tables; where the terminal is too low, each table is cut alike."""
    sections = ("windows", "pools", "members", "runs")
    counts = [len(scene.rows[section]) for section in sections]
    tables = sum(map(bool, counts))
    spare = 4 + len(scene.rows["problems"]) + bool(scene.error)
    bounds = counts
    if scene.height is not None:
        bounds = shared_lines(counts, scene.height - 2 * tables - spare)
    parts: list[RenderableType] = [*_head(scene)]
    for section, bound in zip(sections, bounds, strict=True):
        rows = scene.rows[section]
        if rows:
            shown, left = _around(rows, scene.selected, bound)
            parts += [Text(), _TABLES[section](shown, scene)]
            parts += [Text(f"  and {left} more {section}", style="dim")] if left else []
    if not tables:
        parts += [Text(), Text("no provider/model or pool has been used on this server yet")]
    return Group(*parts)


def window_picture(scene: Scene, shard: GlobalSnapshot, events: Sequence[Row]) -> RenderableType:
    """Return one provider/model: windows, waiting groups, quotas, members, last events."""
    parts: list[RenderableType] = [*_head(scene), Text()]
    parts.append(_text(f"{shard.provider_model}   cap {shard.static_cap}", scene, style="bold"))
    if scene.rows["windows"]:
        parts.append(_windows(scene.rows["windows"], scene))
    else:
        parts.append(Text("no window is in use"))
    for window in shard.domains.values():
        if not window.is_used:
            continue
        outcomes = "  ".join(f"{kind} {count}" for kind, count in window.outcomes.items() if count)
        parts.append(
            _text(f"{window.resource.domain}: {window.algorithm}: {window.outlook}", scene)
        )
        parts.append(_text(f"  ended: {outcomes or 'none'}", scene))
        if window.waiting_groups:
            table = _table(scene, "waiting group", "weight", "waiting")
            for group in window.waiting_groups[:10]:
                table.add_row(
                    _text(_mark(scene) + group.group, scene),
                    f"{group.weight:g}",
                    str(group.waiting),
                )
            parts += [Text(), table]
    for quota in shard.budgets:
        parts.append(_text(f"{quota.budget}: left {quota.level:.0f} of {quota.burst}", scene))
    parts += [Text(), _members(scene.rows["members"][:8], scene)] if scene.rows["members"] else []
    parts += [Text(), *(_text(_event(event), scene) for event in events[:8])]
    return Group(*parts)


def pool_picture(scene: Scene, pool: Row) -> RenderableType:
    """Return one pool: its resources, its groups with their shares, why tasks are not admitted."""
    parts: list[RenderableType] = [*_head(scene), Text()]
    parts.append(
        _text(f"{pool['name']}   {pool['state']}   policy {pool['policy']}", scene, style="bold")
    )
    parts.append(
        _text(
            "   ".join(
                f"{what} {pool[what]}" for what in ("running", "queued", "delayed", "parked")
            ),
            scene,
        )
    )
    if pool["resources"]:
        table = _table(scene, "resource", "leased", "limit")
        for one in pool["resources"]:
            table.add_row(
                _text(_mark(scene) + one["resource"], scene), str(one["leased"]), str(one["limit"])
            )
        parts += [Text(), table]
    table = _table(scene, "group", "waiting", "running", "share", "weight", "weight's share")
    for group in pool["groups"]:
        numbers = (group["waiting"], group["running"], _percent(group["share"]))
        fair = (_number(group["weight"]), _percent(group["weight_share"]))
        table.add_row(_text(_mark(scene) + group["group"], scene), *map(str, (*numbers, *fair)))
    parts += [Text(), table]
    for reason, count in pool["blocked"].items():
        parts.append(_text(f"not admitted: {reason} {count}", scene))
    if scene.rows["runs"]:
        parts += [Text(), _runs(scene.rows["runs"][:8], scene)]
    return Group(*parts)


def shared_lines(counts: Sequence[int], lines: int) -> list[int]:
    """Return how many rows of each table are shown where a screen has so many lines.

    Each table with rows gets one; then one line after the other goes to the table that shows
    fewest of its rows so far.
    """
    shown = [min(1, count) for count in counts]
    for _ in range(lines - sum(shown)):
        short = [index for index, count in enumerate(counts) if shown[index] < count]
        if not short:
            break
        shown[min(short, key=lambda index: shown[index])] += 1
    return shown


def _around(rows: Sequence[Row], selected: str | None, bound: int) -> tuple[Sequence[Row], int]:
    """Return at most ``bound`` rows, the chosen one among them, and how many are left out."""
    if len(rows) <= bound:
        return rows, 0
    room = max(1, bound - 1)  # a line says how many there are beyond
    names = [row.get("name") for row in rows]
    at = names.index(selected) if selected in names else 0
    begin = min(max(0, at - room // 2), len(rows) - room)
    return rows[begin : begin + room], len(rows) - room


def _head(scene: Scene) -> list[RenderableType]:
    rows = scene.rows
    at = datetime.fromtimestamp(rows["at"], UTC).strftime("%H:%M:%S UTC")
    total = sum(row["in_flight"] for row in rows["windows"])
    waiting = sum(row["waiting"] for row in rows["windows"])
    words = f"  {total} in flight, {waiting} waiting; sorted by {scene.sort}"
    parts: list[RenderableType] = [Text.assemble(("forebay top", "bold"), f"  {at}", words)]
    parts += [Text(_KEYS, style="dim")] if scene.height is not None else []
    if scene.error:
        parts.append(_text(f"cannot look: {scene.error}", scene, style="bold red"))
    parts += [_text(problem, scene, style="yellow") for problem in rows["problems"]]
    if rows["unread"]:
        parts.append(Text(f"{rows['unread']} further shards are not read", style="yellow"))
    return parts


def _windows(rows: Sequence[Row], scene: Scene) -> Table:
    is_wide = scene.width >= WIDE
    last = ["cooldown", *(["next"] if is_wide else [])]
    table = _table(
        scene, "provider/model", "window", "in flight", "waiting", "calls/s", "429s/min", *last
    )
    for row in rows:
        cells = [
            f"{row['window']}/{row['window_max']}",
            str(row["in_flight"]),
            str(row["waiting"]),
            _number(row["calls_per_second"]),
            Text(
                _number(row["rate_limits_per_minute"]),
                style="red" if row["rate_limits_per_minute"] else "",
            ),
            Text(f"{row['cooldown_seconds']:.1f} s", style="yellow")
            if row["cooldown_seconds"] > 0
            else "-",
            *([_text(row["outlook"], scene)] if is_wide else []),
        ]
        _add(table, row, cells, scene)
    return table


def _pools(rows: Sequence[Row], scene: Scene) -> Table:
    table = _table(scene, "pool", "state", "running", "queued", _SHARES)
    for row in rows:
        most = 4 if scene.width >= WIDE else 2
        groups = [
            f"{group['group']} {_percent(group['share'])} ({_percent(group['weight_share'])})"
            for group in row["groups"][:most]
        ]
        left = row["group_count"] - len(groups)
        words = ", ".join([*groups, *([f"+{left}"] if left > 0 else [])])
        cells = [row["state"], str(row["running"]), str(row["queued"]), _text(words or "-", scene)]
        _add(table, row, cells, scene)
    return table


def _members(rows: Sequence[Row], scene: Scene) -> Table:
    table = _table(scene, "member", "pid", "program", "since", "models", "leases", "waiting", "")
    for row in rows:
        since = "-" if row["since"] is None else _age(scene.rows["at"] - row["since"])
        numbers = (len(row["models"]), row["leases"], row["waiting"])
        overdue = Text("overdue" if row["is_overdue"] else "", style="red")
        identity = (str(row["pid"] or "-"), _text(row["program"], scene), since)
        cells = [*identity, *map(str, numbers), overdue]
        _add(table, {"name": row["host"] or "unknown host"}, cells, scene)
    return table


def _runs(rows: Sequence[Row], scene: Scene) -> Table:
    table = _table(scene, "run", "tenant", "state", "done", "calls", "age")
    for row in rows:
        age = "-" if row["age_seconds"] is None else _age(row["age_seconds"])
        done = f"{row['done'] + row['dropped']}/{row['records']}"
        cells = [
            _text(row["tenant"], scene),
            _text(row["state"], scene),
            done,
            str(row["calls"]),
            age,
        ]
        _add(table, {"name": row["run"]}, cells, scene)
    return table


_TABLES: Final = {"windows": _windows, "pools": _pools, "members": _members, "runs": _runs}


def _table(scene: Scene, first: str, *others: str) -> Table:
    """Return a table without rows; of its columns those with text give way where it is too wide."""
    gap = 2 if scene.width >= WIDE else 1
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim bold")
    table.add_column(f"{_mark(scene)}{first}", overflow="fold")
    for name in others:
        if name in _TEXTS:
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right", no_wrap=True)
    return table


def _add(table: Table, row: Row, cells: Sequence[Any], scene: Scene) -> None:
    is_selected = scene.selected is not None and row["name"] == scene.selected
    mark = "> " if is_selected else _mark(scene)
    style = "reverse" if is_selected else ""
    table.add_row(_text(mark + row["name"], scene), *cells, style=style)


def _mark(scene: Scene) -> str:
    return "" if scene.height is None else "  "


def _text(words: str, scene: Scene, style: str = "") -> Text:
    """Return a text without rich markup and without characters that move the cursor.

    In a terminal they are cut to one line, elsewhere folded.
    """
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in words)
    is_live = scene.height is not None
    return Text(shown, style, no_wrap=is_live, overflow="ellipsis" if is_live else "fold")


def _event(event: Row) -> str:
    at = datetime.fromtimestamp(event["at"], UTC).strftime("%H:%M:%S")
    return "  ".join([at, event["kind"], *(f"{k}={v}" for k, v in event["fields"].items())])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
