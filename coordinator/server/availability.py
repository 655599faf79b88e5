"""States of a process's connections to its server, logged once per change.

Rules: design 06, *When Redis is away*.

A server that is away is noticed by many: the calls of each shard, the wake-ups, the heartbeat, the
single commands of a driver or a worker. The first of them is logged, and so is its return; another
one is logged only if it fails when that one is back.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from forebay.coordinator.logs import Logger
from forebay.coordinator.server.address import ServerAddress

log = Logger("forebay.channel")


class ConnectionState:
    """Whether one connection works; every thread may use it. Made by `Availability.state_of`.

    Args:
        availability: of the server.
        fields: what the log lines say of this connection.
    """

    def __init__(self, availability: Availability, fields: dict[str, Any]) -> None:
        self._availability = availability
        self._fields = fields
        self._is_lost = False
        self._lost_at = 0.0

    @property
    def lost_at(self) -> float | None:
        """When the connection was lost, on the monotonic clock; None while it works."""
        return self._lost_at if self._is_lost else None

    @property
    def is_lost(self) -> bool:
        """Whether the connection was lost and has not been back since."""
        return self._is_lost

    def lost(self, error: Exception) -> None:
        """Note that the connection failed; called for each failure, logged once."""
        if not self._is_lost:
            self._lost_at = time.monotonic()
        self._is_lost = True
        self._availability.note_lost(self, error)

    def back(self) -> None:
        """Note that the connection works; logged if its loss was."""
        if self._is_lost:
            self._is_lost = False
            self._availability.note_back(self)

    def forget(self) -> None:
        """Note that the connection was closed for good; losses of others are logged again."""
        self._is_lost = False
        self._availability.forget(self)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of this connection's log lines."""
        return self._fields


class Availability:
    """Logs ``coordinator_unavailable`` and ``coordinator_available``, both as warnings.

    Args:
        address: the server.
    """

    def __init__(self, address: ServerAddress) -> None:
        self._address = address
        self._logged: ConnectionState | None = None  # whose loss was, and whose return was not yet
        self._lock = threading.Lock()  # the heartbeat has a thread of its own

    def state_of(self, name: str, **fields: Any) -> ConnectionState:
        """Return the state of another connection.

        Args:
            name: what it is for, in the log's field ``noticed_by``: ``calls``, ``wake-ups``.
            fields: what the log says besides, such as the shard.
        """
        return ConnectionState(self, {"noticed_by": name, **fields})

    def note_lost(self, connection: ConnectionState, error: Exception) -> None:
        """Log the loss of a connection, unless another one's was logged and lasts."""
        with self._lock:
            if self._logged is not None:
                return
            self._logged = connection
        log.warning(
            "coordinator_unavailable",
            server=str(self._address),
            **connection.fields,
            error=str(error)[:200] or type(error).__name__,
        )

    def note_back(self, connection: ConnectionState) -> None:
        """Log the return of a connection, if its loss was logged."""
        if self.forget(connection):
            log.warning("coordinator_available", server=str(self._address), **connection.fields)

    def forget(self, connection: ConnectionState) -> bool:
        """Let the loss of another be logged; return whether the loss of this one was."""
        with self._lock:
            was_logged = self._logged is connection
            if was_logged:
                self._logged = None
        return was_logged
