"""The progress of a run, as lines."""

from __future__ import annotations

import time
from typing import Final

from forebay.commands.lines import say
from forebay.contracts.runs import RunProgress

TOLD_EVERY: Final = 10
"""Of the cooldowns in a row of a resource, which are told beside the progress."""


class Progress:
    """One line per look, at most one a second; plain, as it may go to a file.

    Attributes:
        is_begun: whether the server may have the run.
    """

    def __init__(self, records: int, *, is_begun: bool) -> None:
        self.is_begun = is_begun
        self._records = records
        self._started = time.monotonic()
        self._shown = -1.0
        self._found: int | None = None
        self._told: dict[str, int] = {}

    def show(self, progress: RunProgress) -> None:
        """Print a line; the rate leaves out what was done when the driver came."""
        self._tell_cooldowns(progress)
        now = time.monotonic() - self._started
        done = progress.records_done + progress.records_dropped
        if self._found is None:
            self._found = done
        if now - self._shown < 1.0:
            return
        self._shown = now
        rate = (done - self._found) / now if now > 0 else 0.0
        left = f"{(self._records - done) / rate:.0f} s left" if rate > 0 else "no record yet"
        dropped = f"  {progress.records_dropped} dropped" if progress.records_dropped else ""
        waits = "".join(f"  waits for {one.resource}" for one in progress.cooling)
        say(
            f"  {now:5.0f} s  {done}/{self._records} records {rate:6.1f}/s  {left}"
            f"{dropped}  open row groups {progress.row_groups_open}{waits}",
            err=True,
        )

    def _tell_cooldowns(self, progress: RunProgress) -> None:
        for one in progress.cooling:
            if one.times % TOLD_EVERY == 0 and self._told.get(one.resource) != one.times:
                self._told[one.resource] = one.times
                say(
                    f"{one.resource} took no call in {one.times} cooldowns in a row; its cells wait"
                    " and no record is dropped for it",
                    err=True,
                )
