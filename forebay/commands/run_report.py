"""The report of a run: Markdown for people, and plots where matplotlib is installed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from forebay.commands.run_scene import RunScene, duration, limits_now
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.run_use import ModelUse, cost_of
from forebay.contracts.workflow import Workflow

if TYPE_CHECKING:
    from forebay.workers.runs.driver import RunSummary

OF_CALLS: Final = ("calls", "429s", "failed", "tokens in", "tokens out", "cost", "time of calls")
"""Columns of the calls' use."""
MOST_LOOKS: Final = 4_096
"""Most snapshots kept for the plots; each time they are too many, every second one goes."""


class RunHistory:
    """The snapshots of a run that its report sums up."""

    def __init__(self) -> None:
        self._looks: list[tuple[float, int, dict[str, tuple[int, int]]]] = []
        self._stride, self._count = 1, 0
        self._limits: Counter[str] = Counter()
        self._maxima: dict[str, int] = {}
        self.last: RunScene | None = None

    def note(self, scene: RunScene) -> None:
        """Add a scene to the maxima, limits and plots of the report."""
        self.last = scene
        self._limits[limits_now(scene).kind] += 1
        self._note_maxima(scene)
        if self._count % self._stride == 0:
            windows = {
                name: (window.current_limit, window.in_flight_count)
                for name, window in scene.windows.items()
            }
            done = scene.look.done + scene.look.dropped
            self._looks.append((scene.look.captured_at, done, windows))
        self._count += 1
        if len(self._looks) > MOST_LOOKS:
            self._looks, self._stride = self._looks[::2], self._stride * 2

    def _note_maxima(self, scene: RunScene) -> None:
        pool = scene.pool
        seen = {
            "row groups in flight": scene.look.open,
            "tasks queued in the pool": pool.queue.queued_total,
            **{f"task leases of {name}": count for name, count in pool.admission.leased.items()},
        }
        for name, window in scene.windows.items():
            seen[f"window of {name}"] = window.current_limit
            seen[f"calls of {name} in flight"] = window.in_flight_count
            seen[f"calls of {name} waiting"] = window.waiters
        for name, value in seen.items():
            self._maxima[name] = max(value, self._maxima.get(name, 0))

    def write(self, path: Path, summary: RunSummary) -> list[Path]:
        """Write the report, and its plot beside it; return the files.

        Raises:
            ConfigurationError: the file cannot be written.
        """
        plot = path.with_suffix(".png")
        has_plot = bool(self._looks) and find_spec("matplotlib") is not None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if has_plot:
                self._draw(plot)
            path.write_text(self._text(summary, plot if has_plot else None), encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(
                f"the report {path} cannot be written ({error.strerror}), expected room and the"
                " right to write there; the records are not touched by that."
            ) from error
        return [path, plot] if has_plot else [path]

    def _text(self, summary: RunSummary, plot: Path | None) -> str:
        lines = [
            f"# Run of {summary.output.name}",
            "",
            f"{summary.written} of {summary.records} records written, {summary.dropped} dropped.",
        ]
        if self.last is None:
            lines += ["", "The run ended before it was looked at."]
            return "\n".join([*lines, ""])
        look = self.last.look
        if look.begun_at is not None:
            lines[-1] += f" It took {duration(look.captured_at - look.begun_at)}."
        lines += ["", "## Columns", "", *self._columns(), "", "## Models", "", *self._models()]
        lines += ["", "## Dropped records", "", *_reasons(summary.reasons)]
        lines += ["", "## What held it up", "", *self._held_up()]
        lines += ["", "## The most that was seen", "", *self._most_seen()]
        if plot is not None:
            lines += ["", "## Windows over time", "", f"![Windows over time]({plot.name})"]
        return "\n".join([*lines, ""])

    def _columns(self) -> list[str]:
        head = ["column", "cells", *OF_CALLS, "retried", "waited", "time of tasks"]
        rows = []
        for name, use in self.last.look.columns.items() if self.last else ():
            calls = self._of_calls(use.models)
            rows.append(
                [name, use.made, *calls, use.retried, use.waited, duration(use.busy_seconds)]
            )
        return _table(head, rows)

    def _models(self) -> list[str]:
        if self.last is None or not self.last.models:
            return ["No call was made."]
        models = self.last.models
        named = [*((name, {name: use}) for name, use in models.items()), ("all", models)]
        return _table(["model", *OF_CALLS], [[name, *self._of_calls(of)] for name, of in named])

    def _of_calls(self, models: Mapping[str, ModelUse]) -> list[str]:
        """Return the columns ``OF_CALLS`` of some models' use."""
        use = sum(models.values(), ModelUse())
        counts = (use.calls, use.rate_limited, use.failed, use.input_tokens, use.output_tokens)
        workflow = self.last.look.spec.workflow if self.last else None
        cost = None if workflow is None else cost_of(workflow, models)
        words = "not known" if cost is None or not workflow else f"{cost:.4f} {workflow.currency}"
        return [*(f"{count:,}" for count in counts), words, duration(use.busy_seconds)]

    def _most_seen(self) -> list[str]:
        """Return the observed maxima beside the bound that the plan has for each."""
        bounds = {} if self.last is None else _bounds(self.last.look.spec.workflow)
        rows = [[name, most, bounds.get(name, "")] for name, most in self._maxima.items()]
        return _table(["what", "most", "bound of the plan"], rows)

    def _held_up(self) -> list[str]:
        looks = sum(self._limits.values())
        shares = {kind: f"{count * 100 // looks}%" for kind, count in self._limits.most_common()}
        return _table(["limited by", "of the looks"], shares.items())

    def _draw(self, path: Path) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 6), layout="constrained")
        windows, records = figure.subplots(2, 1, sharex=True)
        began = self._looks[0][0]
        times = [at - began for at, _, _ in self._looks]
        for name in self._looks[-1][2]:
            both = [one.get(name, (0, 0)) for _, _, one in self._looks]
            windows.step(times, [limit for limit, _ in both], where="post", label=f"window {name}")
            windows.plot(times, [busy for _, busy in both], alpha=0.5, label=f"in flight {name}")
        windows.set_ylabel("calls")
        if self._looks[-1][2]:  # a run without models has no window
            windows.legend(loc="best", fontsize="small")
        records.plot(times, [done for _, done, _ in self._looks])
        records.set_ylabel("records")
        records.set_xlabel("seconds")
        figure.savefig(path, dpi=100)


def _bounds(workflow: Workflow) -> dict[str, str]:
    """Return the bounds of the capacity plan by the name of the maximum that each bounds."""
    from forebay.workers.runs.capacity_plan import capacity_plan  # with an extra

    plan = capacity_plan(workflow).configured
    bounds = {"row groups in flight": f"{plan.max_concurrent_row_groups.value}"}
    for name, static in plan.static_caps.items():
        bounds[f"window of {name}"] = f"{static.cap.value}"
        bounds[f"calls of {name} in flight"] = f"{static.cap.value}"
    return bounds


def _reasons(reasons: Mapping[str, int]) -> list[str]:
    return _table(["reason", "records"], reasons.items()) if reasons else ["None."]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    return lines + [f"| {' | '.join(_cell(str(value)) for value in row)} |" for row in rows]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
