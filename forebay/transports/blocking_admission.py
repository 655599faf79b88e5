"""The controllers that transports for threads ask; see `admission` for those on event loops."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable

from forebay.connecting import Connection, connect
from forebay.contracts.errors import CoordinatorUnavailable
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.attempts import RequestAttempt
from forebay.coordinator.requests.blocking import BlockingRequestAdmissionController
from forebay.coordinator.requests.threads import LoopCaller
from forebay.coordinator.supervision import Guard
from forebay.transports.joined import ALIAS, CLOSED, Joined, RegisterAs
from forebay.transports.waits import OPEN_BODIES, LongWaits

log = Logger("forebay.transports")


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
            int, Joined[threading.Lock, BlockingRequestAdmissionController]
        ] = {}

    def ready(self, provider_model: ProviderModelKey) -> BlockingRequestAdmissionController:
        """Return a controller that may be asked for a provider/model: `AsyncAdmission.ready`."""
        joined, register_as = self._joined_here(), self._register_as
        ready = joined.ready(provider_model, register_as)
        if ready is not None:
            return ready
        with joined.lock:
            if self._is_closed:  # as in AsyncAdmission
                raise CoordinatorUnavailable(CLOSED)
            if joined.controller is None:
                joined.controller, joined.connection = self._connected()
            controller = joined.controller
            if register_as is not None and provider_model not in joined.registered:
                controller.register(
                    provider_model, ALIAS, register_as.max_parallel_requests, register_as.config
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

    def _joined_here(self) -> Joined[threading.Lock, BlockingRequestAdmissionController]:
        process_id = os.getpid()  # a forked child has joined nothing
        if process_id not in self._joined_by_process:
            # One step: threads that come here at the same time all get the same.
            self._joined_by_process.setdefault(
                process_id, Joined(threading.Lock(), LongWaits(self._on_long_wait))
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
