"""The controllers that transports for threads ask; see `admission` for those on event loops."""

from __future__ import annotations

import atexit
import os
import sys
import threading

from forebay.connecting import Connection, connect
from forebay.contracts.errors import CoordinatorUnavailable
from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.attempts import RequestAttempt
from forebay.coordinator.requests.blocking import BlockingRequestAdmissionController
from forebay.coordinator.requests.threads import LoopCaller
from forebay.coordinator.supervision import Guard
from forebay.transports.joined import ALIAS, CLOSED, Admission, Joined
from forebay.transports.waits import LongWaits

log = Logger("forebay.transports")


class BlockingAdmission(Admission[BlockingRequestAdmissionController]):
    """Gives the controller of this process to threads; for the rest see `AsyncAdmission`."""

    def __post_init__(self) -> None:
        self._joined_by_process: dict[
            int, Joined[threading.Lock, BlockingRequestAdmissionController]
        ] = {}

    def ready(self, provider_model: ProviderModelKey) -> BlockingRequestAdmissionController:
        """Return a controller that may be asked for a provider/model: `AsyncAdmission.ready`."""
        joined, register_as = self._joined_here(), self.register_as
        ready = joined.ready(provider_model, register_as)
        if ready is not None:
            return ready
        with joined.lock:
            if self.is_closed:  # as in AsyncAdmission
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
        self.is_closed = True
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
                process_id, Joined(threading.Lock(), LongWaits(self.on_long_wait))
            )
        return self._joined_by_process[process_id]

    def _connected(self) -> tuple[BlockingRequestAdmissionController, Connection | None]:
        if not isinstance(self.requests, str):
            return self.requests, None
        connection = connect(self.requests, self.settings, event_sinks=self.event_sinks)
        controller = connection.__enter__()
        _to_leave.add(connection)
        _leave_with_pools()
        return controller, connection


_to_leave: set[Connection] = set()
"""Connections of clients for threads that were not closed yet."""


def _leave_with_pools() -> None:
    """Leave the fleet at the end of a pool's process, too: a forked one runs no `atexit`."""
    for name in ("multiprocessing.util", "billiard.util"):
        if (pools := sys.modules.get(name)) is not None:
            pools.Finalize(None, _leave_all, exitpriority=0)


@atexit.register
def _leave_all() -> None:
    """Leave the fleet when the program ends: its leases would stay taken for a TTL."""
    guard = Guard(log)
    for connection in list(_to_leave):  # all at once: where the server is away, each takes seconds
        guard.call(connection.leave_soon)
    while _to_leave:
        guard.call(_to_leave.pop().__exit__, None, None, None)
