"""Plots the window over time: recorded beside replayed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from forebay.replay.replaying import Outcome


def plot_windows(outcomes: Mapping[str, Outcome], path: Path) -> None:
    """Write a PNG of the windows over time, one line a column."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, outcome in outcomes.items():
        times = [at for at, _limit in outcome.windows]
        axes.step(times, [limit for _at, limit in outcome.windows], where="post", label=name)
    axes.set_xlabel("seconds since the first call")
    axes.set_ylabel("window")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path, dpi=120)
