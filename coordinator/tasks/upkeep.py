"""The timers by which a member looks at its pool: notices, due instants, recheck intervals.

Once a heartbeat interval it sweeps, and keeps the pool's settings and claims (docs/adr/0023).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from forebay.coordinator.server.membership import Membership
from forebay.coordinator.shard.session import Session
from forebay.coordinator.shard.sweeping import Sweeps
from forebay.coordinator.supervision import Guard
from forebay.coordinator.tasks.registering import Sweep, Swept

SHORTEST_WAKE_SECONDS: Final = 0.001


class Upkeep:
    """Calls a pool's watchers when tasks may be ready, and sweeps the pool.

    Args:
        session: of the pool.
        recheck_seconds: seconds after which the watchers are called without a notice.
        guard: logs what a watcher or the timer raises.

    Attributes:
        watchers: called whenever there may be something new: work, room, a row group.
        on_job_lost: called with the id and the function of each job whose payload is gone.
        memory: the settings and claims that the pool last told, as JSON.
    """

    def __init__(self, session: Session, recheck_seconds: float, guard: Guard) -> None:
        self.watchers: list[Callable[[], None]] = []
        self._session = session
        self._recheck_seconds = recheck_seconds
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._wake: asyncio.TimerHandle | None = None
        self._due_at: float | None = None  # loop time at which a notice said to look again
        self.on_job_lost: Callable[[str, str], None] | None = None
        self.memory: str | None = None
        self._sweeps = Sweeps(session, Sweep(), self._remember, guard)

    def close(self) -> None:
        """Stop the timers."""
        self._sweeps.close()
        if self._wake is not None:
            self._wake.cancel()

    def change(self) -> None:
        """Call each watcher; one that raises is called again at the recheck."""
        told = [self._guard.call(on_change) for on_change in self.watchers]
        if not all(told):
            self.wake_in(None)

    def wake_in(self, seconds: float | None) -> None:
        """Recheck when a timer of the pool is due, and at each recheck interval.

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
        """Recheck at an instant of the shard's clock, unless an earlier recheck is due."""
        now_us = self._session.time.now_us
        seconds = 0.0 if now_us is None else (due_us - now_us) / 1e6
        at = self._loop.time() + seconds
        self._due_at = at if self._due_at is None else min(at, self._due_at)
        if self._wake is None or at < self._wake.when():
            self.wake_in(None)

    def _look(self) -> None:
        self._due_at = None
        self.change()

    def sweep_later(self, membership: Membership) -> None:
        """Sweep once an interval from now on, as long as the membership lasts."""
        self._sweeps.later(membership)

    def sweep(self) -> None:
        """Sweep now, as the pool's settings or claims have changed."""
        if self._session.membership is not None:
            self._sweeps.now(self._session.membership)

    def _remember(self, swept: Swept) -> None:
        self.memory = swept.memory or self.memory
        for task_id, function in swept.lost.items():
            if self.on_job_lost is not None:
                self._guard.call(self.on_job_lost, task_id, function)
