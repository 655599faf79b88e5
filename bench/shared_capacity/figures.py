"""Figures computed from an artifact: goodput beside the informed fleet's, 429s, steps, shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.figures import jain_index
from bench.shared_capacity.load import HTTP_OK, REFUSED
from bench.shared_capacity.rows import Row

FOLLOWED: Final = 0.9
"""The part of a higher limit, or of the goodput before an outage, at which a step is followed."""
SPAN_SECONDS: Final = 1.0
"""Over which goodput is counted where a moment is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Figures of one fleet in one run; times in seconds, shares between 0 and 1.

    Attributes:
        goodput: completions a second, settled.
        to_told: of that of the fleet that was told and ran at the same time; None without one.
        refused: refusals, settled.
        successes: completions, settled.
        refused_in_all: refusals in all of the run.
        wasted: attempts that were refused, of all attempts of the run.
        first: refusals in the first ten seconds, or in the first five of the outage.
        probes: refusals in the rest of the outage.
        recovery: until each step was followed, or goodput was back after the outage; None: never.
        jain: over tenants by their weights, settled; 1 for one tenant.
        shares: of each tenant, settled.
    """

    goodput: float
    to_told: float | None
    refused: int
    successes: int
    refused_in_all: int
    wasted: float
    first: int
    probes: int
    recovery: tuple[float | None, ...]
    jain: float
    shares: Mapping[str, float]

    @property
    def refused_share(self) -> float:
        """Settled refusals among the answers."""
        total = self.refused + self.successes
        return self.refused / total if total else 0.0


Answers = Sequence[tuple[float, int, str]]


def see(row: Row, fleet: Mapping[str, Any], told: Mapping[str, Any] | None) -> Seen:
    """Return the figures of a fleet's part of an artifact.

    Args:
        row: which was run.
        fleet: the fleet's part.
        told: the part of the fleet that was told and ran at the same time.
    """
    answers: Answers = fleet["answers"]
    settled = [a for a in answers if _is_settled(row, a[0])]
    good = [a for a in settled if a[1] == HTTP_OK]
    best = 0 if told is None else _settled_successes(row, told["answers"])
    refused = [a for a in answers if a[1] in REFUSED]
    began, first = (row.outage_at, 5.0) if row.outage_at else (0.0, 10.0)
    outage_ends = row.outage_at + row.outage_seconds
    counts = Counter(tenant for _, _, tenant in good)
    return Seen(
        goodput=len(good) / sum(b - a for a, b in row.settled),
        to_told=len(good) / best if best else None,
        refused=len(settled) - len(good),
        successes=len(good),
        refused_in_all=len(refused),
        wasted=len(refused) / max(1, len(answers)),
        first=sum(began <= a[0] < began + first for a in refused),
        probes=sum(began + first <= a[0] < outage_ends for a in refused) if row.outage_at else 0,
        recovery=_recovery(row, fleet),
        jain=jain_index([counts[tenant.name] / tenant.weight for tenant in row.tenants]),
        shares={tenant.name: counts[tenant.name] / max(1, len(good)) for tenant in row.tenants},
    )


def _is_settled(row: Row, at: float) -> bool:
    return any(begins <= at < ends for begins, ends in row.settled)


def _settled_successes(row: Row, answers: Answers) -> int:
    return sum(status == HTTP_OK and _is_settled(row, at) for at, status, _ in answers)


def _recovery(row: Row, fleet: Mapping[str, Any]) -> tuple[float | None, ...]:
    if row.outage_at:
        return (_back_after_outage(row, fleet["answers"]),)
    steps = [
        (change.at, row.limit_at(change.at - 1), row.limit_at(change.at)) for change in row.changes
    ]
    return tuple(
        _followed(fleet["windows"], at, _reaches(before, after))
        for at, before, after in steps
        if before is not None and after is not None and before != after
    )


def _reaches(before: int, after: int) -> Callable[[int, int], bool]:
    if after > before:
        return lambda limit, _in_flight: limit >= FOLLOWED * after
    return lambda _limit, in_flight: in_flight <= after


def _followed(
    windows: Sequence[tuple[float, int, int]], at: float, is_there: Callable[[int, int], bool]
) -> float | None:
    found = (t - at for t, limit, in_flight in windows if t >= at and is_there(limit, in_flight))
    return next(found, None)


def _back_after_outage(row: Row, answers: Answers) -> float | None:
    """Return how long after the outage a span had nine tenths of the goodput before it."""
    ends = row.outage_at + row.outage_seconds
    good = [at for at, status, _ in answers if status == HTTP_OK]
    before = sum(row.outage_at - 10 <= at < row.outage_at for at in good) / 10 * SPAN_SECONDS
    begins = ends
    while before > 0 and begins < row.seconds - SPAN_SECONDS:
        if sum(begins <= at < begins + SPAN_SECONDS for at in good) >= FOLLOWED * before:
            return begins - ends
        begins += 0.1
    return None


def misses(row: Row, seen: Seen) -> list[str]:
    """Return the aims that a run of the uninformed fleet did not meet."""
    aims = row.aims
    found = []
    if seen.to_told is not None and seen.to_told < aims.goodput:
        found.append(f"goodput {seen.to_told:.1%} < {aims.goodput:.0%}")
    allowed = (
        None if aims.refused_per_success is None else 1 + aims.refused_per_success * seen.successes
    )
    if allowed is not None and seen.refused > allowed:
        found.append(f"429s {seen.refused} > {allowed:.0f}")
    if aims.refused_share is not None and seen.refused_share > aims.refused_share:
        found.append(f"429s {seen.refused_share:.1%} > {aims.refused_share:.1%}")
    if aims.first is not None and seen.first > aims.first:
        found.append(f"first refusals {seen.first} > {aims.first}")
    bounds = [bound for bound in (aims.up_seconds, aims.down_seconds) if bound is not None]
    for seconds, bound in zip(seen.recovery, bounds, strict=False):
        if seconds is None or seconds > bound:
            found.append(f"followed in {'never' if seconds is None else f'{seconds:.1f} s'}")
    weights = sum(tenant.weight for tenant in row.tenants)
    for tenant in row.tenants:
        error = abs(seen.shares[tenant.name] - tenant.weight / weights)
        if aims.share_error is not None and error > aims.share_error:
            found.append(f"share of {tenant.name} {seen.shares[tenant.name]:.1%}")
    return found
