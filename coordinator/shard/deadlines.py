"""Deadlines of callers for the results of their operations.

Rules: design 06, *Exactly once*, docs/adr/0026.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Final

from forebay.coordinator.shard.backlog import Pending
from forebay.coordinator.supervision import Guard

PROMPT: Final = 0.2
"""Part of the timeout for which a silent server counts as busy, not as away."""


class Deadlines:
    """Finds the operations whose callers have waited too long.

    Args:
        timeout_seconds: how long a caller waits at most; longer only while the server answers call
            after call, and many operations wait for theirs.
        guard: logs what the timer raises.
        awaited: returns all operations that wait for a result.
        on_overdue: called with those whose callers have waited that long.

    Attributes:
        timer: of the next look; None while there is nothing to look at.
        silent_since: loop time of the last reply, or of the call after it.
    """

    def __init__(
        self,
        timeout_seconds: float,
        guard: Guard,
        *,
        awaited: Callable[[], Sequence[Pending]],
        on_overdue: Callable[[Sequence[Pending]], None],
    ) -> None:
        self.timer: asyncio.TimerHandle | None = None
        self.silent_since = -math.inf
        self._timeout_seconds = timeout_seconds
        self._guard = guard
        self._awaited = awaited
        self._on_overdue = on_overdue
        self._loop = asyncio.get_running_loop()

    def watch(self, since: float) -> None:
        """Check at the instant at which an operation is overdue."""
        self.timer = self._loop.call_at(since + self._timeout_seconds, self._guard.call, self._look)

    def stop(self) -> None:
        """Stop checking."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = None

    def _look(self) -> None:
        self.timer = None
        now = self._loop.time()
        silent_at = self.silent_since + PROMPT * self._timeout_seconds
        if silent_at > now:
            self.watch(silent_at - self._timeout_seconds)
            return
        latest = now - self._timeout_seconds
        awaited = [one for one in self._awaited() if not one.is_given_up]
        others = [one.since for one in awaited if one.since > latest]
        if overdue := [one for one in awaited if one.since <= latest]:
            self._on_overdue(overdue)
            others += [now for one in overdue if one.may_wait]  # looked at again
        if others and self.timer is None:
            self.watch(min(others))
