"""A request shard's timers: registrations made again, sweeps for dead members.

Rules: design 06, *Members*.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from forebay.contracts.errors import ForebayError
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.requests.registering import Register, Sweep, Swept
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.server.retrying import retry_while_away
from forebay.coordinator.shard.operation import OnOutcome, Outcome
from forebay.coordinator.shard.session import Session
from forebay.coordinator.shard.sweeping import Sweeps
from forebay.coordinator.supervision import Guard


class Upkeep:
    """The timers of one member's part of a request shard.

    Args:
        session: of the shard.
        settings: the recheck interval, after which a refused registration is sent again.
        guard: logs what a timer raises.

    Attributes:
        registrations: what this process has registered, by alias.
        memory: the windows, budgets and settings that the shard last told, as JSON.
    """

    def __init__(self, session: Session, settings: MemberSettings, guard: Guard) -> None:
        self.registrations: dict[str, Register] = {}
        self.memory: str | None = None
        self._session = session
        self._settings = settings
        self._recheck_seconds = settings.recheck_seconds
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._sweeps = Sweeps(session, Sweep(), self._remember, guard)
        self._is_closed = False

    def close(self) -> None:
        """Stop the timers."""
        self._is_closed = True
        self._sweeps.close()

    # -- registrations

    async def register(self, operation: Register, on_sent: Callable[[], None] | None) -> int:
        """Register now and under each new membership; return the static cap.

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
        """Return the registrations of this process, to be sent under a new membership."""
        return [
            (operation, partial(self._registered, operation))
            for operation in self.registrations.values()
        ]

    def _registered(self, operation: Register, outcome: Outcome[int]) -> bool:
        """Register again later if the shard refused, as it denies acquires until then."""
        if isinstance(outcome, ForebayError) and not self._is_closed:
            self._loop.call_later(
                self._recheck_seconds, self._guard.call, self._register_again, operation
            )
        return True

    def _register_again(self, operation: Register) -> None:
        """Repeat a registration that was refused, such as by a server without memory."""
        if self.registrations.get(operation.alias) is operation and not self._is_closed:
            self._session.submit(operation, partial(self._registered, operation))

    # -- members that died

    def sweep_later(self, membership: Membership) -> None:
        """Sweep once an interval from now on, as long as the membership lasts."""
        self._sweeps.later(membership)

    def sweep(self) -> None:
        """Sweep now, as an operator has changed the shard's settings."""
        if self._session.membership is not None:
            self._sweeps.now(self._session.membership)

    def _remember(self, swept: Swept) -> None:
        self.memory = swept.memory or self.memory
