"""Figures: medians of the rounds, compared with the aims of the issues. Pure.

A turn on a busy machine may end before anything of it counted. Such a round has no value of the
measure, never a 0 or an error; a figure without any value says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, Final

from bench.compare.intervals import median_interval

NOT_MEASURED: Final = "not measured"
"""The text for a measure that no round has."""
Iterations = Sequence[dict[str, float]]
"""Each round's measures by name; a measure may be of some rounds only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of the summary.

    Attributes:
        name: what was measured.
        rounds: its value in each round that has one.
        unit: of the values and the aim; "" for a ratio.
        aim: what it should be at most, or at least; None for what is only shown.
        is_floor: the aim is the least and not the most.
        is_worst: what counts is the worst round, not the median (what must never happen).
        beside: what it compares with, measured in the same run, as text.
    """

    name: str
    rounds: tuple[float, ...]
    unit: str = ""
    aim: float | None = None
    is_floor: bool = False
    is_worst: bool = False
    beside: str = ""

    @property
    def measured(self) -> float | None:
        """The median over the rounds, or the worst of them; None where no round has a value."""
        if not self.rounds:
            return None
        if not self.is_worst:
            return median(self.rounds)
        return min(self.rounds) if self.is_floor else max(self.rounds)

    @property
    def is_held(self) -> bool | None:
        """Whether the aim is met, by the value as it is and not as it is printed.

        None: there is no aim, or no value.
        """
        if self.aim is None or self.measured is None:
            return None
        return self.measured >= self.aim if self.is_floor else self.measured <= self.aim

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval of the median; None for fewer than six rounds."""
        return None if self.is_worst else median_interval(self.rounds)

    @property
    def is_close(self) -> bool:
        """Whether the interval lies on both sides of the aim: another run may say otherwise."""
        if self.aim is None or self.interval is None:
            return False
        low, high = self.interval
        return low < self.aim <= high if self.is_floor else low <= self.aim < high

    @property
    def row(self) -> tuple[str, str, str, str, str, str]:
        """The figure as text: name, aim, measured, its interval, what is beside it, held."""
        aim = ""
        if self.aim is not None:
            aim = f"{'≥' if self.is_floor else '≤'} {in_unit(self.aim, self.unit)}"
        held = {None: "", True: "yes", False: "**no**"}[self.is_held]
        value = NOT_MEASURED if self.measured is None else in_unit(self.measured, self.unit)
        interval = (
            "" if self.interval is None else " - ".join(in_unit(v, "") for v in self.interval)
        )
        close = ", close" if self.is_close else ""
        return self.name, aim, value, interval, self.beside, held + close

    def as_json(self) -> dict[str, Any]:
        """Return the figure for an artifact."""
        return {
            "measured": self.measured,
            "unit": self.unit or "ratio",
            "of_rounds": ("worst" if self.is_worst else "median"),
            "rounds": self.rounds,
            "interval": self.interval,
            "aim": self.aim,
            "aim_is": "at least" if self.is_floor else "at most",
            "held": self.is_held,
            "beside": self.beside,
        }


def in_unit(value: float, unit: str) -> str:
    """Return a value as text with four digits that count, or all of a large one."""
    # 0.9979 must not be printed as the 0.998 that it is not
    digits = 0 if abs(value) >= 1000 else 4
    text = f"{value:.0f}" if digits == 0 else f"{value:.{digits}g}"
    return f"{text} {unit}".rstrip()


def of_rounds(iterations: Iterations, name: str) -> tuple[float, ...]:
    """Return a measure's values, in the rounds that have it."""
    return tuple(round_[name] for round_ in iterations if name in round_)


def ratios(iterations: Iterations, one: str, other: str) -> tuple[float, ...]:
    """Return one measure relative to another, in the rounds that have both; none is one to 0."""
    return tuple(
        round_[one] / round_[other]
        for round_ in iterations
        if one in round_ and other in round_ and round_[other]
    )


def middle(iterations: Iterations, name: str, unit: str) -> str:
    """Return as text a measure's median over the rounds that have it, or that none has."""
    values = of_rounds(iterations, name)
    return in_unit(median(values), unit) if values else NOT_MEASURED


def medians(iterations: Iterations) -> dict[str, float]:
    """Return each measure's median over the rounds that have it."""
    names = dict.fromkeys(name for round_ in iterations for name in round_)
    return {name: median(of_rounds(iterations, name)) for name in names}


def in_ms(
    seconds: Sequence[float], measures: Mapping[str, Callable[[Sequence[float]], float]]
) -> dict[str, float]:
    """Return by name what each function makes of durations, in milliseconds; nothing of none."""
    return {name: of(seconds) * 1e3 for name, of in measures.items()} if seconds else {}


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile of at least one value."""
    return quantiles(values, n=20)[-1] if len(values) > 1 else values[0]


def jain_index(amounts: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 is equal shares, 1/n is all for one; of nothing, 1."""
    squares = sum(amount * amount for amount in amounts)
    return sum(amounts) ** 2 / (len(amounts) * squares) if squares else 1.0
