"""The live view of a run in a terminal, with rich: counts, windows, and the present limit."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from forebay.commands.run_scene import Pace, RunScene, limits_now
from forebay.contracts.run_use import ColumnUse, ModelUse, cost_of
from forebay.contracts.runs import RunSpec
from forebay.contracts.snapshots import DomainSnapshot


class LiveView:
    """Redraws the run in place; lines printed meanwhile stand above it.

    Args:
        spec: the run.
        console: where it is drawn; colours are those that the terminal and ``NO_COLOR`` allow.
    """

    def __init__(self, spec: RunSpec, console: Console | None = None) -> None:
        self._pace = Pace(spec.workflow.record_count)
        self._live = Live(
            console=console or Console(stderr=True), refresh_per_second=4, transient=False
        )
        self._is_started = False

    def show(self, scene: RunScene) -> None:
        """Draw the run at the instant of a scene."""
        self._pace.note(scene.look.done + scene.look.dropped)
        if not self._is_started:
            self._live.start()
            self._is_started = True
        self._live.update(picture_of(scene, self._pace))

    def close(self) -> None:
        """Restore the terminal; the last picture stays on it."""
        if self._is_started:
            self._live.stop()


def picture_of(scene: RunScene, pace: Pace) -> RenderableType:
    """Return a run as a picture: bar, counts, columns, models, and the present limit."""
    look = scene.look
    return Group(
        Text(
            f"{look.spec.run_id}  tenant {look.spec.tenant}  {scene.workers} workers",
            style="bold",
        ),
        _bar(scene, pace),
        Text(_counts(scene)),
        _columns(look.columns, look.spec.workflow.record_count),
        *([_models(scene.models, scene.windows)] if scene.windows else []),
        Text.assemble(("limited by ", "bold"), str(limits_now(scene))),
    )


def _bar(scene: RunScene, pace: Pace) -> Table:
    look = scene.look
    records, done = look.spec.workflow.record_count, look.done + look.dropped
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True)
    words = f"{done}/{records}  {done * 100 // records}%  {pace.rate:.1f}/s  {pace.left}"
    row.add_row(ProgressBar(total=records, completed=done), words)
    return row


def _counts(scene: RunScene) -> str:
    look = scene.look
    retried = sum(column.retried for column in look.columns.values())
    words = [
        f"done {look.done}",
        f"dropped {look.dropped}",
        f"retried {retried}",
        f"row groups {look.open} open, {look.unwritten} unwritten",
    ]
    cost = cost_of(look.spec.workflow, scene.models)
    if cost:
        words.append(f"cost {cost:.4f} {look.spec.workflow.currency}")
    return "  ".join(words)


def _columns(columns: Mapping[str, ColumnUse], records: int) -> Table:
    table = _table("column", "made", "calls", "429s", "retried", "waited")
    for name, use in columns.items():
        calls = sum(model.calls for model in use.models.values())
        refused = sum(model.rate_limited for model in use.models.values())
        numbers = (f"{use.made}/{records}", calls, refused, use.retried, use.waited)
        table.add_row(name, *map(str, numbers))
    return table


def _models(models: Mapping[str, ModelUse], windows: Mapping[str, DomainSnapshot]) -> Table:
    table = _table("model", "window", "in flight", "waiting", "429s", "tokens in, out", "cooldown")
    for name, window in windows.items():
        use = models.get(name, ModelUse())
        seconds = window.cooldown_remaining_seconds
        table.add_row(
            name,
            f"{window.current_limit}/{window.effective_max}",
            str(window.in_flight_count),
            str(window.waiters),
            str(use.rate_limited),
            f"{use.input_tokens:,}, {use.output_tokens:,}",
            f"{seconds:.0f} s" if seconds > 0 else "-",
        )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    return table
