"""The progress of a run as lines, for pipes and files, and what is told beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from forebay.commands.lines import fitted, say
from forebay.commands.run_scene import Pace, RunScene, limits_now
from forebay.contracts.runs import RunProgress, RunSpec

TOLD_EVERY: Final = 10
"""Of the cooldowns in a row of a resource, which are told beside the progress."""


class RunView(Protocol):
    """Shows a run while it goes."""

    def show(self, scene: RunScene) -> None:
        """Show the run as it is now."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was; what is shown last stays."""
        ...


class PlainView:
    """One line a look, and one where what limits the run has become another.

    Args:
        spec: the run.
        tell: prints a line.
    """

    def __init__(self, spec: RunSpec, tell: Callable[[str], None]) -> None:
        self._records = spec.workflow.seed.records
        self._pace = Pace(self._records)
        self._tell = tell
        self._limit = ""

    def show(self, scene: RunScene) -> None:
        """Print where the run stands, and what limits it where that has changed."""
        look = scene.look
        self._pace.note(look.done + look.dropped)
        retried = sum(column.retried for column in look.columns.values())
        parts = [
            f"{self._pace.elapsed_seconds:5.0f} s",
            f"{look.done + look.dropped}/{self._records} records",
            f"{self._pace.rate:.1f}/s",
            self._pace.left,
            f"{look.dropped} dropped" if look.dropped else "",
            f"{retried} retried" if retried else "",
        ]
        lines = fitted(parts, first="  ", indent=" " * 11)
        limit = limits_now(scene)
        if limit.kind != self._limit:
            self._limit = limit.kind
            lines += fitted([f"limited by {limit}"], first=" " * 4, indent=" " * 6)
        for line in lines:
            self._tell(line)

    def close(self) -> None:
        """Do nothing: each line is whole."""


class CooldownNotices:
    """Says when a provider took no call in many cooldowns in a row."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def tell(self, progress: RunProgress) -> None:
        """Print a line for each resource that has come to another ten of them."""
        for one in progress.cooling:
            if one.times % TOLD_EVERY == 0 and self._told.get(one.resource) != one.times:
                self._told[one.resource] = one.times
                say(
                    f"{one.resource} took no call in {one.times} cooldowns in a row; its cells wait"
                    " and no record is dropped for it",
                    err=True,
                )
