"""The progress of a run as lines, for pipes and files, with notices of cooldowns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from forebay.commands.lines import fitted, say
from forebay.commands.run_scene import Pace, RunScene, limits_now
from forebay.contracts.runs import RunProgress, RunSpec

TOLD_EVERY: Final = 10
"""Number of successive cooldowns of a resource after which a notice is printed."""


class RunView(Protocol):
    """A view of a run under way."""

    def show(self, scene: RunScene) -> None:
        """Show the run at the instant of a scene."""
        ...

    def close(self) -> None:
        """Restore the terminal; the last view stays on it."""
        ...


class PlainView:
    """Prints a line for each scene, and one whenever the run's limit has changed.

    Args:
        spec: the run.
        tell: prints a line.
    """

    def __init__(self, spec: RunSpec, tell: Callable[[str], None]) -> None:
        self._records = spec.workflow.record_count
        self._pace = Pace(self._records)
        self._tell = tell
        self._limit = ""

    def show(self, scene: RunScene) -> None:
        """Print the run's counts, and its limit if that has changed."""
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
        """Do nothing: printed lines need no end."""


class CooldownNotices:
    """Prints a notice when a provider took no call in many successive cooldowns."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def show(self, progress: RunProgress) -> None:
        """Print a line for each resource with another ten cooldowns in a row."""
        for one in progress.cooling:
            if one.times % TOLD_EVERY == 0 and self._told.get(one.resource) != one.times:
                self._told[one.resource] = one.times
                say(
                    f"{one.resource} took no call in {one.times} cooldowns in a row; its cells wait"
                    " and no record is dropped for it",
                    err=True,
                )
