"""A run's picture: each fleet's window beside the provider's limit, refusals, goodput."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

from bench.shared_capacity.load import HTTP_OK, REFUSED
from bench.shared_capacity.rows import Row

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the backend is chosen

BIN_SECONDS = 1.0


def draw(row: Row, artifact: dict[str, Any], path: Path) -> None:
    """Write the plot as PNG: windows above, answered calls a second below."""
    plot, (above, below) = plt.subplots(2, 1, figsize=(10, 6), sharex=True, layout="constrained")
    for name, fleet in artifact["fleets"].items():
        if fleet["windows"]:
            times, limits, _ = zip(*fleet["windows"], strict=True)
            above.step(times, limits, where="post", label=f"window, {name}")
        refused = [at for at, status, _ in fleet["answers"] if status in REFUSED]
        above.plot(refused, [0] * len(refused), "|", label=f"429s, {name}")
        edges = [n * BIN_SECONDS for n in range(int(row.seconds / BIN_SECONDS) + 1)]
        good = [at for at, status, _ in fleet["answers"] if status == HTTP_OK]
        below.hist(good, bins=edges, histtype="step", label=name)
    truth = [(0.0, row.limit), *((change.at, row.limit_at(change.at)) for change in row.changes)]
    if row.limit is not None:
        times, limits = zip(*truth, (row.seconds, truth[-1][1]), strict=True)
        above.step(times, limits, where="post", color="#888888", linestyle=":", label="the limit")
    above.set(ylabel="calls at once", title=row.about, ylim=(-1, None))
    below.set(xlabel="seconds", ylabel="answered calls/s", xlim=(0, row.seconds))
    above.legend(loc="upper right", fontsize="small")
    below.legend(loc="lower right", fontsize="small")
    plot.savefig(path, dpi=110)
    plt.close(plot)
