"""The timer of a member's sweeps: one an interval, sooner where a membership is due to expire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

from forebay.contracts.errors import ForebayError
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.shard.operation import Ended, Operation, Outcome
from forebay.coordinator.shard.session import Session
from forebay.coordinator.supervision import Guard

SHORTEST_PAUSE_SECONDS: Final = 0.001


class SweepAnswer(Protocol):
    """A shard's answer to a sweep."""

    @property
    def next_seconds(self) -> float | None:
        """Seconds until the next membership may expire; None where there is none."""


SweptT = TypeVar("SweptT", bound=SweepAnswer)


class Sweeps(Generic[SweptT]):
    """Sends a sweep once an interval, so that a shard without calls ends expired members.

    Args:
        session: of the shard.
        sweep: the operation.
        on_swept: called with each answer.
        guard: logs what the timer raises.
    """

    def __init__(
        self,
        session: Session,
        sweep: Operation[SweptT],
        on_swept: Callable[[SweptT], None],
        guard: Guard,
    ) -> None:
        self._session = session
        self._sweep = sweep
        self._on_swept = on_swept
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def close(self) -> None:
        """Stop the timer."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def later(self, membership: Membership, seconds: float | None = None) -> None:
        """Sweep after a pause: an interval at most.

        Args:
            membership: this process's.
            seconds: until the next membership may expire; None for an interval.
        """
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_closed:
            interval = membership.ttl_seconds / 3
            pause = interval if seconds is None else max(SHORTEST_PAUSE_SECONDS, seconds)
            self._timer = self._loop.call_later(
                min(interval, pause), self._guard.call, self.now, membership
            )

    def now(self, membership: Membership) -> None:
        """Sweep with the next call."""
        self.later(membership)
        self._session.submit(self._sweep, partial(self._take, membership))

    def _take(self, membership: Membership, outcome: Outcome[SweptT]) -> bool:
        """Set the timer for the next sweep: at the instant of the reply, or after an interval."""
        if isinstance(outcome, ForebayError):
            self.later(membership)
        elif not isinstance(outcome, Ended):
            self._on_swept(outcome)
            self.later(membership, outcome.next_seconds)
        return True
