"""A request shard's timers: registrations made again, sweeps for dead members (spec 06)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from forebay.contracts.errors import ForebayError
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.requests.rechecks import SHORTEST_WAKE_SECONDS
from forebay.coordinator.requests.registering import Register, Sweep, Swept
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.server.retrying import retry_while_away
from forebay.coordinator.shard.operation import OnOutcome, Outcome
from forebay.coordinator.shard.session import Session
from forebay.coordinator.supervision import Guard


class Upkeep:
    """The timers of one member's part of a request shard.

    Args:
        session: of the shard.
        settings: the recheck interval, after which what was refused is tried again.
        guard: logs what a timer raises.

    Attributes:
        registrations: what this process has registered, by alias.
        memory: what the shard last said of its windows, budgets and settings, as JSON.
    """

    def __init__(self, session: Session, settings: MemberSettings, guard: Guard) -> None:
        self.registrations: dict[str, Register] = {}
        self.memory: str | None = None
        self._session = session
        self._settings = settings
        self._recheck_seconds = settings.recheck_seconds
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    def close(self) -> None:
        """Look at nothing any more."""
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()

    # -- registrations

    async def register(self, operation: Register, on_sent: Callable[[], None] | None) -> int:
        """Register, and again under each new membership; return the static cap.

        Args:
            operation: what is registered.
            on_sent: called each time it is about to be sent with the next call.
        """

        def ask() -> asyncio.Future[int]:
            registering = self._session.ask(operation)
            if on_sent is not None:
                on_sent()
            return registering

        static_cap = await retry_while_away(self._settings, ask, lambda: self._session.is_closed)
        self.registrations[operation.alias] = operation
        return static_cap

    def register_anew(self) -> list[tuple[Register, OnOutcome[int]]]:
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

    def _swept(self, membership: Membership, outcome: Outcome[Swept]) -> bool:
        """Take when to look next; without an answer that is after an interval."""
        if isinstance(outcome, Swept):
            self.memory = outcome.memory
            self.sweep_later(membership, outcome.next_seconds)
        elif isinstance(outcome, ForebayError):
            self.sweep_later(membership)
        return True
