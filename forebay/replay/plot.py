"""Windows and waits over time as a picture: what happened beside what would have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Final

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from forebay.replay.replaying import Outcome

SPANS: Final = 60
"""Spans of time of which the waits are averaged."""


def plot_windows(outcomes: Mapping[str, Outcome], path: Path) -> None:
    """Write a PNG of the windows and the waits over time, one line for each column of the table."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    windows, waits = figure.subplots(2, 1, sharex=True)
    for name, outcome in outcomes.items():
        times = [at for at, _limit in outcome.windows]
        windows.step(times, [limit for _at, limit in outcome.windows], where="post", label=name)
        means = mean_waits(outcome)
        waits.plot([at for at, _mean in means], [mean for _at, mean in means], label=name)
    windows.set_ylabel("window, calls at once")
    windows.yaxis.set_major_locator(MaxNLocator(integer=True))
    waits.set_ylabel("mean wait, seconds")
    waits.set_xlabel("seconds since the first call; waits stand where their calls were asked for")
    for axes in (windows, waits):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    windows.legend()
    figure.savefig(path, dpi=120)


def mean_waits(outcome: Outcome) -> list[tuple[float, float]]:
    """Return the mean wait of the calls asked for in each span of time, by the span's middle."""
    last = max((wait.asked_at for wait in outcome.waits), default=0.0)
    length = last / SPANS or 1.0
    spans: dict[int, list[float]] = {}
    for wait in outcome.waits:
        spans.setdefault(min(SPANS - 1, int(wait.asked_at / length)), []).append(wait.seconds)
    return [((number + 0.5) * length, fmean(found)) for number, found in sorted(spans.items())]
