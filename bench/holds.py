"""Statistics of a hand-off's holds: gaps, fairness, most holders. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.figures import in_ms, jain_index, p95


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One grant, by CLOCK_MONOTONIC, which the processes of a machine share.

    Attributes:
        process: in which process.
        waiter: whose.
        start: when ``acquire`` had returned.
        end: just before ``release`` was called.
    """

    process: int
    waiter: int
    start: float
    end: float


def max_holders(holds: Sequence[Hold]) -> int:
    """Return the most holds that were open at one instant; an end goes before a start."""
    changes = sorted([(hold.start, 1) for hold in holds] + [(hold.end, -1) for hold in holds])
    most = held = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most


def handoffs(holds: Sequence[Hold], cap: int) -> list[tuple[Hold, Hold]]:
    """Return each hold that ended with the one that its release made room for.

    Slots are alike, so the n-th release makes room for the (cap + n)-th start.
    """
    by_start = sorted(holds, key=lambda hold: hold.start)
    by_end = sorted(holds, key=lambda hold: hold.end)
    return list(zip(by_end, by_start[cap:], strict=False))


def summarize(
    holds: Sequence[Hold], *, cap: int, waiters: int, start: float, end: float
) -> dict[str, float]:
    """Return the measures of one limiter's turn; counted is what started in ``start..end``.

    Of what did not happen in that time, a grant or a hand-off, the measures are left out.
    """
    counted = [hold for hold in holds if start <= hold.start < end]
    grants = Counter(hold.waiter for hold in counted)
    pairs = handoffs(counted, cap)
    found = {
        "grants_per_second": len(counted) / (end - start),
        "max_holders": float(max_holders(holds)),
    }
    if counted:
        found["jain_index"] = jain_index([grants[waiter] for waiter in range(waiters)])
    if pairs:
        crossing = sum(before.process != after.process for before, after in pairs)
        found["crossing_share"] = crossing / len(pairs)
    gaps = [after.start - before.end for before, after in pairs]
    lengths = [hold.end - hold.start for hold in counted]
    found |= in_ms(gaps, {"gap_median_ms": median, "gap_p95_ms": p95})
    return found | in_ms(lengths, {"hold_median_ms": median})
