"""A run's picture: each fleet's window beside the provider's limit, and the refusals."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from bench.simulate.simulation import Run
from forebay.simulation.timeline import SECOND_US

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the backend is chosen


def draw(run: Run, title: str, path: Path) -> None:
    """Write the plot as PNG."""
    plot, axes = plt.subplots(figsize=(10, 4), layout="constrained")
    for number, samples in enumerate(run.samples):
        seconds = [sample.at_us / SECOND_US for sample in samples]
        name = "window" if len(run.samples) == 1 else f"window of fleet {number + 1}"
        axes.step(seconds, [sample.limit for sample in samples], where="post", label=name)
    limit = run.provider.at_once
    if limit is not None:
        instants = [sample.at_us for sample in run.samples[0]]
        places = [limit.places(us) for us in instants]
        axes.step(
            [us / SECOND_US for us in instants],
            places,
            where="post",
            color="#888888",
            linestyle=":",
            label="places at the provider",
        )
    refused = [answer.at_us / SECOND_US for answer in run.answers if not answer.is_success]
    axes.plot(refused, [0] * len(refused), "|", color="#c0392b", label="429s")
    axes.set(xlabel="seconds", ylabel="calls at once", title=title, ylim=(-1, None))
    axes.legend(loc="upper right")
    plot.savefig(path, dpi=110)
    plt.close(plot)
