"""Asks a shard at intervals for this member's share, and keeps the answer (docs/adr/0024)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from forebay.coordinator.requests.registering import AskShare
from forebay.coordinator.requests.shares import Share
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.shard.operation import Outcome, Submitted
from forebay.coordinator.shard.session import Session
from forebay.coordinator.supervision import Guard

SHORTEST_PAUSE_SECONDS: Final = 0.05
"""Pause before the next question while other members have not confirmed this one yet."""


class ShareWatch:
    """Asks for this member's share once in each interval of its heartbeat.

    Args:
        session: of the shard.
        guard: logs what a timer raises.

    Attributes:
        membership: the last one.
        latest: the last share of this membership and the loop time of its reply; None before that.
    """

    def __init__(self, session: Session, guard: Guard) -> None:
        self.membership: Membership | None = None
        self.latest: tuple[Share, float] | None = None
        self._session = session
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def on_joined(self, membership: Membership) -> Sequence[Submitted]:
        """Return the first question of a new membership; forget the share of an earlier one."""
        self.membership = membership
        self.latest = None
        return [(AskShare(0), partial(self._take, SHORTEST_PAUSE_SECONDS))]

    def ask(self, pause: float = SHORTEST_PAUSE_SECONDS) -> None:
        """Ask with the next call, as this member has registered or another one has entered."""
        self._session.submit(self._question, partial(self._take, pause))

    def _question(self) -> AskShare:
        """Return the question; made when its call is sent, as it names the last reply received."""
        return AskShare(self.latest[0].ticket if self.latest is not None else 0)

    def close(self) -> None:
        """Stop asking."""
        self.membership = None
        if self._timer is not None:
            self._timer.cancel()

    def _take(self, pause: float, outcome: Outcome[Share]) -> bool:
        """Keep a share and ask again, at once where others wait for this member's confirmation.

        It is 0, and asked for soon again, while others may not count this member yet.
        """
        earlier = self.latest and self.latest[0]
        if isinstance(outcome, Share):
            self.latest = outcome, self._loop.time()
            if earlier is not None and (outcome.members, outcome.rank) != (
                earlier.members,
                earlier.rank,
            ):
                self.ask()
        if self.membership is not None:
            interval = self.membership.ttl_seconds / 3
            is_new = isinstance(outcome, Share) and not outcome.is_entitled
            pause = min(interval, 2 * pause) if is_new else interval
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(pause, self._guard.call, self.ask, pause)
        return True
