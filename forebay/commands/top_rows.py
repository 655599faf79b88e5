"""The rows of `forebay top`: windows with their rates, pools with shares, members, runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.snapshots import GlobalSnapshot
from forebay.ops.fleet import Fleet
from forebay.ops.rows import model_rows, pool_row, run_row

Row = dict[str, Any]
POOL_TAG: Final = "pool:"
"""Begins the name of a pool, as in ``forebay shards``; a provider/model has none."""
SORTS: Final[Mapping[str, str]] = {
    "waiting": "waiting",
    "in-flight": "in_flight",
    "calls": "calls_per_second",
    "429s": "rate_limits_per_minute",
    "window": "window",
    "name": "name",
}
"""Orders of the windows -> the field that decides; the largest first, names from A to Z."""
_CALLS_OVER_SECONDS: Final = 5.0
_REFUSALS_OVER_SECONDS: Final = 60.0


class Rates:
    """Calls a second and 429s a minute of each window, from the counters of successive looks."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[tuple[float, int, int]]] = {}

    def add(self, at: float, rows: Sequence[Row]) -> None:
        """Note one look and write both rates into its rows.

        Calls a second are those granted in the last 5 seconds, 429s a minute those of the last
        minute, or of the time since the first look where that is shorter; None after one look. A
        counter that fell, as after a reset of the window, begins anew.

        Args:
            at: server time in seconds.
            rows: of ``model_rows``; windows that are not among them are forgotten.
        """
        names = {row["name"] for row in rows}
        self._samples = {name: kept for name, kept in self._samples.items() if name in names}
        for row in rows:
            samples = self._samples.setdefault(row["name"], deque())
            new = (at, row["granted"], row["rate_limited"])
            if samples and (new[1] < samples[-1][1] or new[2] < samples[-1][2]):
                samples.clear()
            if not samples or at > samples[-1][0]:
                samples.append(new)
            while len(samples) > 2 and at - samples[1][0] >= _REFUSALS_OVER_SECONDS:  # noqa: PLR2004 - two ends of a span
                samples.popleft()
            recent = [one for one in samples if at - one[0] <= _CALLS_OVER_SECONDS]
            calls = _per_second(recent if len(recent) > 1 else list(samples)[-2:], 1)
            refusals = _per_second(list(samples), 2)
            row["calls_per_second"] = calls
            row["rate_limits_per_minute"] = None if refusals is None else refusals * 60


def _per_second(samples: Sequence[tuple[float, int, int]], field: int) -> float | None:
    if len(samples) < 2:  # noqa: PLR2004 - a rate lies between two looks
        return None
    seconds = samples[-1][0] - samples[0][0]
    return (samples[-1][field] - samples[0][field]) / seconds


def top_rows(fleet: Fleet, rates: Rates, *, sort: str) -> Row:
    """Return a look as one JSON object, with times in seconds.

    Args:
        fleet: the look.
        rates: notes the look; the same object for each look of a command.
        sort: a key of `SORTS`.
    """
    windows = [
        {"name": f"{key} {row['domain']}", **row}
        for key, shard in fleet.models.items()
        for row in model_rows(shard)
    ]
    rates.add(fleet.at, windows)
    return {
        "at": fleet.at,
        "windows": sorted_windows(windows, sort),
        "pools": [
            {"name": POOL_TAG + name, **with_shares(pool_row(name, pool))}
            for name, pool in sorted(fleet.pools.items())
        ],
        "members": member_rows(fleet.models),
        "runs": [run_row(pool, look) for pool, look in fleet.runs],
        "problems": list(fleet.problems),
        "unread": fleet.unread,
    }


def sorted_windows(windows: Iterable[Row], sort: str) -> list[Row]:
    """Return windows in an order of `SORTS`; equal ones by name."""
    by_name = sorted(windows, key=lambda row: row["name"])
    if sort == "name":
        return by_name
    return sorted(by_name, key=lambda row: -(row[SORTS[sort]] or 0))


def with_shares(pool: Row) -> Row:
    """Add to each listed group its share of the running tasks and of the weights, 0 to 1."""
    weights = sum(group["weight"] or 0 for group in pool["groups"])
    for group in pool["groups"]:
        weight = group["weight"]
        group["share"] = group["running"] / pool["running"] if pool["running"] else None
        group["weight_share"] = weight / weights if weight is not None and weights else None
    return pool


def member_rows(models: Mapping[ProviderModelKey, GlobalSnapshot]) -> list[Row]:
    """Return a row for each process that is a member of a provider/model, its leases summed."""
    rows: dict[Any, Row] = {}
    for key, shard in models.items():
        for member in shard.members:
            process = (member.host, member.pid) if member.pid is not None else member.member_id
            row = rows.setdefault(
                process,
                {
                    "host": member.host,
                    "pid": member.pid,
                    "program": member.program or member.member_id,
                    "version": member.version,
                    "since": member.since,
                    "models": [],
                    "leases": 0,
                    "waiting": 0,
                    "is_overdue": False,
                },
            )
            if str(key) not in row["models"]:
                row["models"].append(str(key))
            row["leases"] += member.lease_count
            row["waiting"] += member.waiters
            row["is_overdue"] |= member.expires_in_seconds <= 0
            if member.since is not None:
                row["since"] = min(member.since, row["since"] or member.since)
    return sorted(
        rows.values(), key=lambda row: (-row["leases"], str(row["host"]), row["pid"] or 0)
    )
