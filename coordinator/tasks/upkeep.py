"""When a member looks at its pool again: on a notice, at an instant, at each recheck interval."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from forebay.coordinator.shard.session import Session
from forebay.coordinator.supervision import Guard

SHORTEST_WAKE_SECONDS: Final = 0.001


class Upkeep:
    """The timer of one member's part of a pool, and who is told that something may be new.

    Args:
        session: of the pool.
        recheck_seconds: how often it is looked at whatever was told.
        guard: logs what a watcher or the timer raises.

    Attributes:
        watchers: called whenever there may be something new: work, room, a row group.
    """

    def __init__(self, session: Session, recheck_seconds: float, guard: Guard) -> None:
        self.watchers: list[Callable[[], None]] = []
        self._session = session
        self._recheck_seconds = recheck_seconds
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._wake: asyncio.TimerHandle | None = None
        self._due_at: float | None = None  # loop time at which a notice said to look again

    def close(self) -> None:
        """Look at nothing any more."""
        if self._wake is not None:
            self._wake.cancel()

    def change(self) -> None:
        """Tell each watcher; one that raises is told again at the recheck."""
        told = [self._guard.call(on_change) for on_change in self.watchers]
        if not all(told):
            self.wake_in(None)

    def wake_in(self, seconds: float | None) -> None:
        """Look again when time alone may have changed something, and each recheck interval.

        A reply may be older than a notice that named an earlier instant, which stays.
        """
        pause = self._recheck_seconds
        if seconds is not None:
            pause = min(pause, max(SHORTEST_WAKE_SECONDS, seconds))
        if self._due_at is not None:
            pause = min(pause, max(0.0, self._due_at - self._loop.time()))
        if self._wake is not None:
            self._wake.cancel()
        self._wake = self._loop.call_later(pause, self._guard.call, self._look)

    def look_at(self, due_us: int) -> None:
        """Look again at an instant of the shard's clock, unless it is to be earlier anyway."""
        now_us = self._session.server_now_us
        seconds = 0.0 if now_us is None else (due_us - now_us) / 1e6
        at = self._loop.time() + seconds
        self._due_at = at if self._due_at is None else min(at, self._due_at)
        if self._wake is None or at < self._wake.when():
            self.wake_in(None)

    def _look(self) -> None:
        self._due_at = None
        self.change()
