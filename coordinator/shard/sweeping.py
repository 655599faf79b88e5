"""Looks at a shard where nobody else calls: once an interval, sooner where a member is due."""

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


class Looked(Protocol):
    """A shard's answer to a look."""

    @property
    def next_seconds(self) -> float | None:
        """Until the next member is to be looked at; None where none is."""


LookedT = TypeVar("LookedT", bound=Looked)


class Sweeps(Generic[LookedT]):
    """The timer of one member's looks at a shard.

    Args:
        session: of the shard.
        look: the operation.
        on_looked: called with each answer.
        guard: logs what the timer raises.
    """

    def __init__(
        self,
        session: Session,
        look: Operation[LookedT],
        on_looked: Callable[[LookedT], None],
        guard: Guard,
    ) -> None:
        self._session = session
        self._look = look
        self._on_looked = on_looked
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def close(self) -> None:
        """Look at nothing any more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def later(self, membership: Membership, seconds: float | None = None) -> None:
        """Look after a pause: an interval at most.

        Args:
            membership: this process's.
            seconds: until the shard has somebody to look at.
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
        """Look with the next call."""
        self.later(membership)
        self._session.submit(self._look, partial(self._take, membership))

    def _take(self, membership: Membership, outcome: Outcome[LookedT]) -> bool:
        """Take when to look next; without an answer that is after an interval."""
        if isinstance(outcome, ForebayError):
            self.later(membership)
        elif not isinstance(outcome, Ended):
            self._on_looked(outcome)
            self.later(membership, outcome.next_seconds)
        return True
