"""A scenario's picture: each figure of each round against its aim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from bench.figures import Figure

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the backend is chosen


def draw(figures: Sequence[Figure], scenario: str, path: Path) -> None:
    """Write the plot as PNG: left of the line is better, whichever way the aim goes."""
    aimed = [figure for figure in figures if figure.aim and figure.rounds]  # measured, that is
    plot, axes = plt.subplots(figsize=(10, 1.2 + 0.35 * len(aimed)), layout="constrained")
    for row, figure in enumerate(aimed):
        of_aim = [_of_aim(figure, value) for value in figure.rounds]
        color = "#1f7a4d" if figure.is_held else "#c0392b"
        axes.plot(of_aim, [row] * len(of_aim), "o", color=color, alpha=0.4)
        axes.plot(_of_aim(figure, figure.measured or 0.0), row, "|", color=color, markersize=16)
    axes.axvline(1, color="#888888", linestyle=":")
    axes.set_yticks(range(len(aimed)), [figure.name for figure in aimed])
    axes.invert_yaxis()
    axes.set(xlabel="part of what the aim allows: each round, and what counts", title=scenario)
    plot.savefig(path, dpi=110)
    plt.close(plot)


def _of_aim(figure: Figure, value: float) -> float:
    aim = figure.aim or 1.0
    if figure.is_floor:
        return aim / value if value else math.inf
    return value / aim
