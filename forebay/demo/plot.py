"""The demo's picture: the shared window against what the provider could really take."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from forebay.demo.scenario import Observations
from forebay.demo.summary import capacity_steps

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the backend is chosen


def draw(seen: Observations, path: Path) -> None:
    """Write the plot as PNG."""
    end = max(look.at for look in seen.looks)
    times = [look.at for look in seen.looks]
    steps = capacity_steps(seen, end)
    edges = [start for start, _stop, _capacity in steps] + [end]
    figure, axes = plt.subplots(figsize=(10, 5), layout="constrained")
    axes.stairs(
        [capacity for _start, _stop, capacity in steps],
        edges,
        color="#c0392b",
        linewidth=2,
        label="hidden capacity of the provider",
    )
    axes.plot(times, [look.window for look in seen.looks], color="#1f4e79", label="shared window")
    axes.fill_between(
        times,
        [look.in_flight for look in seen.looks],
        color="#1f4e79",
        alpha=0.2,
        label="calls in flight",
    )
    top = max(*(look.window for look in seen.looks), *(c for _a, _b, c in steps)) * 1.25
    for at, note in seen.notes:
        axes.axvline(at, color="#888888", linestyle=":", linewidth=1)
        axes.text(at, top * 0.99, f" {note}", rotation=90, va="top", ha="right", fontsize=8)
    axes.set(
        xlim=(0, end),
        ylim=(0, top),
        xlabel="seconds",
        ylabel="calls at once",
        title="Four worker processes find one provider's hidden limit",
    )
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=110)
    plt.close(figure)
