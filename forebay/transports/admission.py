"""The controllers of transports on event loops: given ones, or from own connections."""

from __future__ import annotations

import asyncio
import os

from forebay.connecting import Connection, connect
from forebay.contracts.errors import ConfigurationError, CoordinatorUnavailable
from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.attempts import RequestAttempt
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.threads import LoopCaller
from forebay.coordinator.supervision import outcome_of
from forebay.transports.joined import ALIAS, CLOSED, Admission, Joined
from forebay.transports.waits import LongWaits

log = Logger("forebay.transports")


class AsyncAdmission(Admission[AdaptiveRequestAdmissionController]):
    """Gives the controller of the running event loop; to a URL it connects anew on each new one."""

    def __post_init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._joining: set[asyncio.Task[AdaptiveRequestAdmissionController]] = set()
        self._joined = self._new()
        self._owner = LoopOwner()

    def _new(self) -> Joined[asyncio.Lock, AdaptiveRequestAdmissionController]:
        return Joined(asyncio.Lock(), LongWaits(self.on_long_wait))

    async def ready(self, provider_model: ProviderModelKey) -> AdaptiveRequestAdmissionController:
        """Return a controller that may be asked for a provider/model.

        Raises:
            ConfigurationError, CoordinatorError: connecting or registering failed, this was closed,
                or it is in use on another event loop.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            owner = self._owner
            owner.refuse_two_loops(self._loop)
            earlier, self._joined, self._loop = self._joined, self._new(), loop
            self._owner = LoopOwner()
            if owner.is_parent:
                keep_untouched(earlier)
            else:
                await self._leave_ended(earlier)
        joined = self._joined
        ready = joined.ready(provider_model, self.register_as)
        if ready is not None:
            return ready
        # A task of its own: whoever is cancelled midway would leave half a member behind.
        joining = loop.create_task(self._join(joined, provider_model))
        self._joining.add(joining)
        joining.add_done_callback(self._joining.discard)
        return await outcome_of(joining, f"connecting for {provider_model}")

    async def _join(
        self,
        joined: Joined[asyncio.Lock, AdaptiveRequestAdmissionController],
        provider_model: ProviderModelKey,
    ) -> AdaptiveRequestAdmissionController:
        register_as = self.register_as
        async with joined.lock:
            if self.is_closed:  # whoever closes waits for this lock, and then leaves
                raise CoordinatorUnavailable(CLOSED)
            if joined.controller is None:
                joined.controller, joined.connection = await self._connected()
            controller = joined.controller
            if register_as is not None and provider_model not in joined.registered:
                await controller.register(
                    provider_model, ALIAS, register_as.max_parallel_requests, register_as.config
                )
                joined.registered.add(provider_model)
        return controller

    async def enter(self, attempt: RequestAttempt, caller: LoopCaller) -> None:
        """Acquire the lease of an attempt; raises what `RequestAttempt` raises.

        Args:
            attempt: what is entered.
            caller: of the attempt's controller.
        """
        waits = self._joined.long_waits
        wait = waits.begin(caller)
        try:
            await attempt.__aenter__()
        finally:
            waits.end(wait)

    async def aclose(self) -> None:
        """Leave the fleet, if this made the connection, and connect no more."""
        self.is_closed = True
        if self._loop is not asyncio.get_running_loop():
            if self._owner.is_parent:
                keep_untouched(self._joined)
                return
            # Not its lock: whoever held it when its loop ended never lets go.
            await self._leave_ended(self._joined)
            return
        async with self._joined.lock:
            await self._leave(self._joined)

    async def _connected(self) -> tuple[AdaptiveRequestAdmissionController, Connection | None]:
        if not isinstance(self.requests, str):
            return self.requests, None
        connection = connect(self.requests, self.settings, event_sinks=self.event_sinks)
        return await connection.__aenter__(), connection

    async def _leave(
        self, joined: Joined[asyncio.Lock, AdaptiveRequestAdmissionController]
    ) -> None:
        connection = joined.forget()
        if connection is not None:
            await connection.__aexit__(None, None, None)

    async def _leave_ended(
        self, joined: Joined[asyncio.Lock, AdaptiveRequestAdmissionController]
    ) -> None:
        """Leave the shards joined on an event loop that has ended, as far as possible."""
        # What still waits on that loop raises at once; what it held is free after its TTL.
        try:
            await self._leave(joined)
        except Exception as error:  # noqa: BLE001 - nothing of an ended loop can be relied on
            log.debug("ended_loop_not_left", error_type=type(error).__qualname__)


_made_by_parents: list[object] = []


def keep_untouched(made: object) -> None:
    """Keep a parent's objects alive in a forked child, as freeing them would use sockets."""
    _made_by_parents.append(made)


class LoopOwner:
    """The process and event loop that own an object."""

    def __init__(self) -> None:
        self._process_id = os.getpid()

    @property
    def is_parent(self) -> bool:
        """Whether this process was forked from the owner."""
        return self._process_id != os.getpid()

    def refuse_two_loops(self, earlier: asyncio.AbstractEventLoop | None) -> None:
        """Refuse to leave an event loop that still runs here, as its connections are in use.

        Raises:
            ConfigurationError: the earlier loop still runs in this process.
        """
        if earlier is not None and earlier.is_running() and not self.is_parent:
            raise ConfigurationError(
                "a client was used on a second event loop while the first one runs in another"
                " thread, expected all its calls on one; make a client for each loop, or one with"
                " sync=True."
            )
