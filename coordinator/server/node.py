"""A process's clients, libraries, heartbeat and subscriber of one server or cluster node."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from forebay.contracts.settings import MemberSettings
from forebay.coordinator.server.address import ServerAddress
from forebay.coordinator.server.availability import Availability
from forebay.coordinator.server.condition import SECTIONS, warn_of_risks
from forebay.coordinator.server.connections import (
    CONNECT_TIMEOUT_SECONDS,
    SOCKET_TIMEOUT_SECONDS,
    open_async,
    open_sync,
)
from forebay.coordinator.server.heartbeat import Heartbeat
from forebay.coordinator.server.libraries import Libraries
from forebay.coordinator.server.wakeups import Subscriber


class Node:
    """The clients of one server, its function libraries, its subscriber and its heartbeat.

    Args:
        address: the server's.
        settings: how this process takes part in the fleet.
        availability: told which of its connections are lost.
        most_doublings: how often the pause between two tries to connect is doubled.
        on_silent: called when a heartbeat failed, on the event loop; None for a server that is no
            node of a cluster.

    Attributes:
        address: the server's.
        client: for whatever is not a shard's batch: single commands, looking, operating.
        patient: a client without a socket timeout, for calls that their caller bounds.
        libraries: the functions that members call there.
        heartbeat: keeps the memberships of this process there alive.
        subscriber: the channel on which it is woken.
    """

    def __init__(
        self,
        address: ServerAddress,
        settings: MemberSettings,
        availability: Availability,
        most_doublings: int,
        on_silent: Callable[[], None] | None = None,
    ) -> None:
        self.address = address
        # Any: redis-py 5 declares one return type for its blocking and its async client, which
        # cannot be awaited for mypy. Whoever takes a client's attribute does the same.
        self.client: Any = open_async(address)
        self.patient: Any = open_async(address, socket_timeout_seconds=None)
        self.libraries = Libraries(on_cluster=on_silent is not None)
        self.heartbeat = Heartbeat(
            open_sync(address, socket_timeout_seconds=_heartbeat_timeout(settings)),
            settings,
            availability,
            self.libraries,
            partial(open_async, address),
            on_failed=on_silent,
        )
        self.subscriber = Subscriber(
            self.patient,
            availability.state_of("wake-ups"),
            min(CONNECT_TIMEOUT_SECONDS, settings.call_timeout_seconds),
            most_doublings,
            is_sharded=on_silent is not None,
        )

    @property
    def is_idle(self) -> bool:
        """Whether no membership of this process is on this server."""
        return not self.subscriber.channels and not self.heartbeat.is_beating

    async def warn_of_risks(self) -> None:
        """Log what the server may lose, the first time; a member does on joining."""
        warn_of_risks(await self.patient.info(*SECTIONS), self.address)

    async def close(self) -> None:
        """Close every connection, also where closing another one fails."""
        async with contextlib.AsyncExitStack() as stack:
            for client in (self.client, self.patient):
                stack.push_async_callback(client.aclose)
            stack.push_async_callback(self.subscriber.close)
            stack.push_async_callback(self.heartbeat.stop)


def _heartbeat_timeout(settings: MemberSettings) -> float:
    """Return how long a heartbeat waits for its answer: two more fit into the TTL after it."""
    return min(SOCKET_TIMEOUT_SECONDS, settings.ttl_seconds / 3)
