"""The controllers that transports ask: given ones, or connections that they make themselves."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from forebay.connecting import Connection, connect
from forebay.contracts.checks import check_cap, check_type
from forebay.contracts.errors import ConfigurationError, CoordinatorUnavailable
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.settings import LARGEST_CAP, MemberSettings, RequestAdmissionConfig
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.attempts import RequestAttempt
from forebay.coordinator.requests.blocking import BlockingRequestAdmissionController
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.threads import LoopCaller
from forebay.coordinator.supervision import Guard, outcome_of
from forebay.transports.waits import OPEN_BODIES, LongWaits

log = Logger("forebay.transports")

LockT = TypeVar("LockT")
ControllerT = TypeVar("ControllerT")

_ALIAS: Final = "http"
_CLOSED: Final = "this client was closed, expected an open one; make another."


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterAs:
    """What a transport registers each provider/model with before it first asks for it.

    Attributes:
        max_parallel_requests: the cap of each.
        config: tuning, clamps, quotas of each.

    Raises:
        ConfigurationError: a cap below 1 or above 10^9, or another config.
    """

    max_parallel_requests: int
    config: RequestAdmissionConfig

    def __post_init__(self) -> None:
        check_cap("max_parallel_requests of a transport", self.max_parallel_requests, LARGEST_CAP)
        check_type("config of a transport", self.config, RequestAdmissionConfig)


@dataclass(slots=True)
class _Joined(Generic[LockT, ControllerT]):
    """What an admission has on one event loop, or in one process.

    Attributes:
        lock: held while it connects, registers or leaves.
        controller: None before it has connected.
        connection: made for the controller, to be left; None where that was given.
        registered: what the controller was told of.
        long_waits: the calls that wait for their leases.
    """

    lock: LockT
    long_waits: LongWaits
    controller: ControllerT | None = None
    connection: Connection | None = None
    registered: set[ProviderModelKey] = field(default_factory=set)

    def ready(
        self, provider_model: ProviderModelKey, register_as: RegisterAs | None
    ) -> ControllerT | None:
        """Return the controller if a provider/model needs no registering any more."""
        is_registered = register_as is None or provider_model in self.registered
        return self.controller if is_registered else None

    def forget(self) -> Connection | None:
        """Begin anew; return the connection that is to be left."""
        connection, self.connection = self.connection, None
        self.controller, self.registered = None, set()
        return connection


class AsyncAdmission:
    """Gives the controller of the running event loop.

    Args:
        requests: a controller, or the URL of a server to connect to when first needed, anew on
            each new event loop.
        register_as: how each provider/model is registered when first asked for; None leaves
            registering to the program.
        settings: how the process takes part in the fleet; for a URL.
        on_long_wait: told, about once a second, that a call waits for its lease since long.
    """

    def __init__(
        self,
        requests: AdaptiveRequestAdmissionController | str,
        register_as: RegisterAs | None,
        settings: MemberSettings | None = None,
        *,
        on_long_wait: Callable[[], None] = OPEN_BODIES.free_dropped,
    ) -> None:
        self._requests = requests
        self._register_as = register_as
        self._settings = settings
        self._on_long_wait = on_long_wait
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._joining: set[asyncio.Task[AdaptiveRequestAdmissionController]] = set()
        self._joined = self._new()

    def _new(self) -> _Joined[asyncio.Lock, AdaptiveRequestAdmissionController]:
        return _Joined(asyncio.Lock(), LongWaits(self._on_long_wait))

    async def ready(self, provider_model: ProviderModelKey) -> AdaptiveRequestAdmissionController:
        """Return a controller that may be asked for a provider/model.

        Raises:
            ConfigurationError, CoordinatorError: connecting or registering failed, this was closed,
                or it is in use on another event loop.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            refuse_two_loops(self._loop)
            earlier, self._joined, self._loop = self._joined, self._new(), loop
            await self._leave_ended(earlier)
        joined = self._joined
        ready = joined.ready(provider_model, self._register_as)
        if ready is not None:
            return ready
        # A task of its own: whoever is cancelled midway would leave half a member behind.
        joining = loop.create_task(self._join(joined, provider_model))
        self._joining.add(joining)
        joining.add_done_callback(self._joining.discard)
        return await outcome_of(joining, f"connecting for {provider_model}")

    async def _join(
        self,
        joined: _Joined[asyncio.Lock, AdaptiveRequestAdmissionController],
        provider_model: ProviderModelKey,
    ) -> AdaptiveRequestAdmissionController:
        register_as = self._register_as
        async with joined.lock:
            if self._is_closed:  # whoever closes waits for this lock, and then leaves
                raise CoordinatorUnavailable(_CLOSED)
            if joined.controller is None:
                joined.controller, joined.connection = await self._connected()
            controller = joined.controller
            if register_as is not None and provider_model not in joined.registered:
                await controller.register(
                    provider_model, _ALIAS, register_as.max_parallel_requests, register_as.config
                )
                joined.registered.add(provider_model)
        return controller

    async def enter(self, attempt: RequestAttempt, caller: LoopCaller) -> None:
        """Wait for the lease of an attempt; raises what entering it raises.

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
        self._is_closed = True
        if self._loop is not asyncio.get_running_loop():
            # Not its lock: whoever held it when its loop ended never lets go.
            await self._leave_ended(self._joined)
            return
        async with self._joined.lock:
            await self._leave(self._joined)

    async def _connected(self) -> tuple[AdaptiveRequestAdmissionController, Connection | None]:
        if not isinstance(self._requests, str):
            return self._requests, None
        connection = connect(self._requests, self._settings)
        return await connection.__aenter__(), connection

    async def _leave(
        self, joined: _Joined[asyncio.Lock, AdaptiveRequestAdmissionController]
    ) -> None:
        connection = joined.forget()
        if connection is not None:
            await connection.__aexit__(None, None, None)

    async def _leave_ended(
        self, joined: _Joined[asyncio.Lock, AdaptiveRequestAdmissionController]
    ) -> None:
        """Leave what was joined on an event loop that has ended, as far as that is possible."""
        # What still waits on that loop raises at once; what it held is free after its TTL.
        try:
            await self._leave(joined)
        except Exception as error:  # noqa: BLE001 - nothing of an ended loop can be relied on
            log.debug("ended_loop_not_left", error_type=type(error).__qualname__)


class BlockingAdmission:
    """Gives the controller of this process to threads; for the rest see `AsyncAdmission`."""

    def __init__(
        self,
        requests: BlockingRequestAdmissionController | str,
        register_as: RegisterAs | None,
        settings: MemberSettings | None = None,
        *,
        on_long_wait: Callable[[], None] = OPEN_BODIES.free_dropped,
    ) -> None:
        self._requests = requests
        self._register_as = register_as
        self._settings = settings
        self._on_long_wait = on_long_wait
        self._is_closed = False
        self._joined_by_process: dict[
            int, _Joined[threading.Lock, BlockingRequestAdmissionController]
        ] = {}

    def ready(self, provider_model: ProviderModelKey) -> BlockingRequestAdmissionController:
        """Return a controller that may be asked for a provider/model: `AsyncAdmission.ready`."""
        joined, register_as = self._joined_here(), self._register_as
        ready = joined.ready(provider_model, register_as)
        if ready is not None:
            return ready
        with joined.lock:
            if self._is_closed:  # as in AsyncAdmission
                raise CoordinatorUnavailable(_CLOSED)
            if joined.controller is None:
                joined.controller, joined.connection = self._connected()
            controller = joined.controller
            if register_as is not None and provider_model not in joined.registered:
                controller.register(
                    provider_model, _ALIAS, register_as.max_parallel_requests, register_as.config
                )
                joined.registered.add(provider_model)
        return controller

    def enter(self, attempt: RequestAttempt, caller: LoopCaller) -> None:
        """Wait for the lease of an attempt: `AsyncAdmission.enter`."""
        waits = self._joined_here().long_waits
        wait = waits.begin(caller)
        try:
            attempt.__enter__()
        finally:
            waits.end(wait)

    def close(self) -> None:
        """Leave the fleet, if this made the connection, and connect no more."""
        self._is_closed = True
        joined = self._joined_here()
        with joined.lock:
            connection = joined.forget()
            if connection is not None:
                _to_leave.discard(connection)
                connection.__exit__(None, None, None)

    def _joined_here(self) -> _Joined[threading.Lock, BlockingRequestAdmissionController]:
        process_id = os.getpid()  # a forked child has joined nothing
        if process_id not in self._joined_by_process:
            # One step: threads that come here at the same time all get the same.
            self._joined_by_process.setdefault(
                process_id, _Joined(threading.Lock(), LongWaits(self._on_long_wait))
            )
        return self._joined_by_process[process_id]

    def _connected(self) -> tuple[BlockingRequestAdmissionController, Connection | None]:
        if not isinstance(self._requests, str):
            return self._requests, None
        connection = connect(self._requests, self._settings)
        controller = connection.__enter__()
        _to_leave.add(connection)
        return controller, connection


_to_leave: set[Connection] = set()
"""Connections of clients for threads that were not closed yet."""


@atexit.register
def _leave_all() -> None:
    """Leave the fleet when the program ends: its leases would stay taken for a TTL."""
    guard = Guard(log)
    for connection in list(_to_leave):  # all at once: where the server is away, each takes seconds
        guard.call(connection.leave_soon)
    while _to_leave:
        guard.call(_to_leave.pop().__exit__, None, None, None)


def refuse_two_loops(earlier: asyncio.AbstractEventLoop | None) -> None:
    """Refuse to leave an event loop that still runs: its connections are in use.

    Raises:
        ConfigurationError: it does.
    """
    if earlier is not None and earlier.is_running():
        raise ConfigurationError(
            "a client was used on a second event loop while the first one runs in another thread,"
            " expected all its calls on one; make a client for each loop, or one with sync=True."
        )
