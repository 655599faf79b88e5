"""The demo's picture: the shared window against what the provider could really take."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import matplotlib as mpl

from forebay.demo.observations import Observations
from forebay.demo.summary import REFUSED, SERVED, capacity_steps, refusals
from forebay.mock_provider.log import RequestRecord

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the backend is chosen
from matplotlib.axes import Axes


def draw(seen: Observations, path: Path, backoff: Observations | None = None) -> None:
    """Write the plot as PNG: the demo, and beside it as many callers with exponential backoff."""
    columns = 1 if backoff is None else 2
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, all_axes = plt.subplots(
        2,
        columns,
        figsize=(6 * columns, 4.8),
        height_ratios=(4, 1),
        sharex="col",
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    above, below = all_axes[0][0], all_axes[1][0]
    begin = _begin(seen)
    times = [look.at - begin for look in seen.looks]
    windows = [look.window for look in seen.looks]
    above.plot(times, windows, color="#1f4e79", label="shared window")
    _draw_provider(seen, above, below)
    dropped = sum(summary.dropped for summary in seen.summaries.values())
    above.set(
        title=f"Forebay: {_refused_share(seen):.1%} of attempts refused,\n"
        f"{dropped or 'no'} records dropped"
    )
    highest = max(windows)
    if backoff is not None:
        above, below = all_axes[0][1], all_axes[1][1]
        _draw_provider(backoff, above, below)
        above.set(
            title=f"exponential backoff: {_refused_share(backoff):.1%} of attempts refused,\n"
            f"{backoff.beyond_sdks} calls refused more often than SDKs retry"
        )
    all_axes[0][0].set(ylabel="calls at once", ylim=(0, 1.4 * max(highest, *_capacities(seen))))
    all_axes[1][0].set(ylabel="429s a second")
    lines, labels = all_axes[0][0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _begin(seen: Observations) -> float:
    return min(record.arrived_at for record in seen.requests)


def _served(seen: Observations) -> list[RequestRecord]:
    return [record for record in seen.requests if record.status == SERVED]


def _refused_share(seen: Observations) -> float:
    return refusals(seen) / len(seen.requests)


def _capacities(seen: Observations) -> list[int]:
    return [capacity for _start, _stop, capacity in capacity_steps(seen, 0.0)]


def _draw_provider(seen: Observations, above: Axes, below: Axes) -> None:
    """Draw what the provider knows: its capacity, the calls it served, those it refused."""
    served = _served(seen)
    begin = _begin(seen)
    end = max(record.finished_at for record in served)
    steps = capacity_steps(seen, end)
    edges = [max(0.0, start - begin) for start, _stop, _capacity in steps] + [end - begin]
    above.stairs(
        [capacity for _start, _stop, capacity in steps],
        edges,
        color="#c0392b",
        linewidth=2,
        label="hidden capacity of the provider",
    )
    changes = sorted(
        [(record.arrived_at - begin, 1) for record in served]
        + [(record.finished_at - begin, -1) for record in served]
    )
    above.fill_between(
        [at for at, _change in changes],
        list(accumulate(change for _at, change in changes)),
        step="post",
        color="#1f4e79",
        alpha=0.2,
        label="calls that it serves",
    )
    for number, (at, note) in enumerate(seen.notes):
        above.axvline(at - begin, color="#888888", linestyle=":", linewidth=1)
        above.annotate(
            f"{note} ",
            (at - begin, 1.0 - 0.06 * (number % 3)),
            xycoords=("data", "axes fraction"),
            va="top",
            ha="right",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    refused = [record.finished_at - begin for record in seen.requests if record.status == REFUSED]
    seconds = end - begin
    below.hist(refused, bins=max(1, round(seconds)), range=(0.0, seconds), color="#c0392b")
    below.set(xlabel=f"seconds; {len(refused)} refusals in all", xlim=(0.0, seconds))
