"""A request shard's timers: rechecks of waiters, registrations made again, sweeps (spec 06)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from forebay.contracts.errors import ForebayError
from forebay.coordinator.requests.denials import timed_out
from forebay.coordinator.requests.operations import Answer, Attempt, Cancel, State
from forebay.coordinator.requests.registering import Register, Sweep
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.shard.operation import Ended, Outcome, Told
from forebay.coordinator.shard.session import Session
from forebay.coordinator.supervision import Guard

SHORTEST_WAKE_SECONDS: Final = 0.001


class Upkeep:
    """The timers of one member's part of a request shard.

    A lost wake-up costs at most the recheck interval.

    Args:
        session: of the shard.
        attempts: those that are open, by encoded id.
        recheck_seconds: how often an attempt that waits is looked at.
        guard: logs what a timer raises.

    Attributes:
        registrations: what this process has registered, by alias.
        wake: when time alone may change something for an attempt that waits.
    """

    def __init__(
        self,
        session: Session,
        attempts: Mapping[str, Attempt],
        recheck_seconds: float,
        guard: Guard,
    ) -> None:
        self.registrations: dict[str, Register] = {}
        self._session = session
        self._attempts = attempts
        self._recheck_seconds = recheck_seconds
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self.wake: asyncio.TimerHandle | None = None
        self._recheck: asyncio.TimerHandle | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    def close(self) -> None:
        """Look at nothing any more."""
        self._is_closed = True
        for timer in (self.wake, self._recheck, self._sweep):
            if timer is not None:
                timer.cancel()

    # -- attempts

    def wake_in(self, seconds: float | None) -> None:
        """Look again at the instant at which time alone may have changed something."""
        if self.wake is not None:
            self.wake.cancel()
            self.wake = None
        if seconds is not None and self._attempts:  # one of them may be about to hear that it waits
            pause = max(SHORTEST_WAKE_SECONDS, seconds)
            self.wake = self._loop.call_later(pause, self._guard.call, self.look)

    def look(self) -> None:
        """Look at an attempt that waits, if there is one: that settles the whole shard."""
        self.wake = None
        waiting = next((a for a in self._attempts.values() if a.is_waiting), None)
        if waiting is not None:
            self.recheck(waiting)

    def note_waiting(self, attempt: Attempt) -> None:
        """Look at an attempt at intervals from now on; at once where a wake-up may be lost."""
        attempt.is_waiting = True
        self._keep_rechecking()
        if attempt.is_in_doubt:
            self.recheck(attempt)

    def doubt(self) -> None:
        """Ask for the truth of everything that waits, or is about to hear that it waits."""
        for attempt in list(self._attempts.values()):
            attempt.is_in_doubt = True
            self.recheck(attempt)

    def recheck(self, attempt: Attempt) -> None:
        """Ask what became of an attempt that waits, unless such a question is on its way."""
        if attempt.is_waiting and attempt.end is None and not attempt.is_rechecked:
            attempt.is_rechecked = True
            attempt.is_in_doubt = False
            self._session.submit(State(attempt.item), partial(self._rechecked, attempt))

    def _rechecked(self, attempt: Attempt, outcome: Outcome[Answer]) -> bool:
        attempt.is_rechecked = False
        return attempt.tell(outcome)

    def _keep_rechecking(self) -> None:
        if self._recheck is None and not self._is_closed:
            self._recheck = self._loop.call_later(
                self._recheck_seconds, self._guard.call, self._recheck_all
            )

    def later(self, look: Callable[[Attempt], None], attempt: Attempt) -> None:
        """Look at an attempt after the recheck interval."""
        self._loop.call_later(self._recheck_seconds, self._guard.call, look, attempt)

    def _recheck_all(self) -> None:
        self._recheck = None
        waiting = [attempt for attempt in self._attempts.values() if attempt.is_waiting]
        if not waiting:
            return
        self._keep_rechecking()
        before = self._loop.time() - self._recheck_seconds
        for attempt in waiting:
            if attempt.asked_at > before:
                continue
            if attempt.deadline is None or attempt.deadline > before:
                self.recheck(attempt)
            elif attempt.end is None:
                # The shard should have said so; it is away, or its word was lost.
                attempt.tell(timed_out(attempt.item))
                self._session.submit(Cancel(attempt.encoded_id))

    # -- registrations

    def register_anew(self) -> list[tuple[Register, Told[int]]]:
        """Return what registers again, under a new membership, all that this process uses."""
        return [
            (operation, partial(self._registered, operation))
            for operation in self.registrations.values()
        ]

    def _registered(self, operation: Register, outcome: Outcome[int]) -> bool:
        """See whether it was taken: without it every acquire would be denied."""
        if isinstance(outcome, ForebayError) and not self._is_closed:
            self._loop.call_later(
                self._recheck_seconds, self._guard.call, self._register_again, operation
            )
        return True

    def _register_again(self, operation: Register) -> None:
        """Try once more what was refused, such as by a server without memory."""
        if self.registrations.get(operation.alias) is operation and not self._is_closed:
            self._session.submit(operation, partial(self._registered, operation))

    # -- members that died

    def sweep_later(self, membership: Membership, seconds: float | None = None) -> None:
        """Look whether a member has died: on a quiet shard nobody's call would end one.

        Args:
            membership: this process's.
            seconds: until the shard has somebody to look at; an interval at most.
        """
        if self._sweep is not None:
            self._sweep.cancel()
        if not self._is_closed:
            interval = membership.ttl_seconds / 3
            pause = interval if seconds is None else max(SHORTEST_WAKE_SECONDS, seconds)
            self._sweep = self._loop.call_later(
                min(interval, pause), self._guard.call, self._sweep_now, membership
            )

    def _sweep_now(self, membership: Membership) -> None:
        self.sweep_later(membership)
        self._session.submit(Sweep(), partial(self._swept, membership))

    def _swept(self, membership: Membership, outcome: Outcome[float | None]) -> bool:
        """Take when to look next; without an answer that is after an interval."""
        if not isinstance(outcome, Ended):
            seconds = None if isinstance(outcome, ForebayError) else outcome
            self.sweep_later(membership, seconds)
        return True
