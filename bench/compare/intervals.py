"""Statistics of paired ratios: median, interval and verdict. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Final

CONFIDENCE: Final = 0.95
MARGIN: Final = 0.03
"""Largest change that counts as none, upwards or downwards."""


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return an interval that holds the median with at least 95 % confidence.

    By order statistics, as the sign test does: each value lies below the true median as often as a
    coin shows heads, whatever the values' distribution is. So as many values are left out at either
    end as together miss it in at most 5 % of the cases: of 20 values the sixth to the fifteenth.

    Returns:
        The lowest and the highest value that are not left out; None for fewer than six values, of
        which even all would miss the median more often.
    """
    count = len(values)
    left_out = 0
    missed = 2 * comb(count, 0) / 2**count
    while missed <= 1 - CONFIDENCE:
        left_out += 1
        missed += 2 * comb(count, left_out) / 2**count
    if left_out == 0:
        return None
    ordered = sorted(values)
    return ordered[left_out - 1], ordered[count - left_out]


def verdict(interval: tuple[float, float] | None, *, is_rate: bool) -> str:
    """Return the verdict of an interval of ratios, candidate to baseline.

    ``worse`` or ``better`` where the whole interval lies beyond the margin, ``same`` where it lies
    within, else ``inconclusive``.

    Args:
        interval: of the median ratio; None is inconclusive.
        is_rate: more is better.
    """
    if interval is None:
        return "inconclusive"
    low, high = interval
    if low > 1 + MARGIN:
        return "better" if is_rate else "worse"
    if high < 1 - MARGIN:
        return "worse" if is_rate else "better"
    return "same" if low >= 1 - MARGIN and high <= 1 + MARGIN else "inconclusive"
