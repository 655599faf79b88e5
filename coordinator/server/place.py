"""Where a shard is: on one server, or on the master that serves its slot of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol

from forebay.contracts.settings import MemberSettings
from forebay.coordinator.logs import Logger
from forebay.coordinator.server.address import SentinelAddress, ServerAddress
from forebay.coordinator.server.availability import Availability
from forebay.coordinator.server.failover import Failover
from forebay.coordinator.server.node import Node
from forebay.coordinator.server.slots import Peer
from forebay.coordinator.server.version import check_server
from forebay.coordinator.supervision import Background, Guard

log = Logger("forebay.coordinator")


class Place(Protocol):
    """The server on which a shard is now."""

    @property
    def node(self) -> Node:
        """The server, as far as known."""

    @property
    def on_moved(self) -> set[Callable[[], None]] | None:
        """Called when another server may have the shard; None where it never moves."""

    async def find(self) -> Node:
        """Return the server, once it was asked for where it is in doubt.

        Raises:
            RedisError, OSError: nobody tells.
        """

    def note(self, error: BaseException) -> None:
        """Learn from an error of the server, or of a connection to it."""

    def serves(self, peer: Peer) -> bool:
        """Return whether the shard is on the server at this host and port, as far as known."""

    def has(self, node: Node) -> bool:
        """Return whether the shard is on a server, as far as known."""

    def suspect(self, peer: Peer) -> None:
        """Find out, in the background, whether another server has the shard: this one is silent."""


class OneServer:
    """The only server that there is, or the primary that Sentinels name: every shard is there.

    Args:
        address: the server's, or the Sentinels'.
        settings: how this process takes part in the fleet.
        availability: told which of its connections are lost.
        most_doublings: how often the pause between two tries to connect is doubled.
    """

    def __init__(
        self,
        address: ServerAddress,
        settings: MemberSettings,
        availability: Availability,
        most_doublings: int,
    ) -> None:
        self._node = Node(address, settings, availability, most_doublings)
        self._timeout_seconds = settings.call_timeout_seconds
        self._failover: Failover | None = None
        if isinstance(address, SentinelAddress):
            self._failover = Failover(self._node.patient.connection_pool)
            self._failover.on_moved.add(self._leave_primary)
        self._leaving = Background(
            "forebay-leave-primary", self._node.client.connection_pool.disconnect, Guard(log)
        )

    async def check(self, *, only_reads: bool) -> None:
        """Check that the server can be used, as `check_server`."""
        await check_server(
            self._node.client,
            self._node.address,
            timeout_seconds=self._timeout_seconds,
            only_reads=only_reads,
        )

    def place(self, _key: str) -> OneServer:
        """Return this server."""
        return self

    def nodes(self) -> list[Node]:
        """Return the server."""
        return [self._node]

    @property
    def node(self) -> Node:
        """The server."""
        return self._node

    @property
    def on_moved(self) -> set[Callable[[], None]] | None:
        """Called when Sentinels name another primary."""
        return None if self._failover is None else self._failover.on_moved

    async def find(self) -> Node:
        """Return the server, whose pool asks the Sentinels for each new connection."""
        return self._node

    def note(self, error: BaseException) -> None:
        """Nothing is learned from errors."""

    def serves(self, peer: Peer) -> bool:
        """Return whether a server is the primary, as far as known."""
        return self._failover is None or self._failover.primary in {None, peer}

    def has(self, node: Node) -> bool:
        """Return whether this is the server."""
        return node is self._node

    def suspect(self, peer: Peer) -> None:
        """Ask the Sentinels."""
        if self._failover is not None:
            self._failover.suspect(peer)

    def _leave_primary(self) -> None:
        """Drop the connections of this process, each of which may lead to the old primary."""
        self._node.subscriber.drop("another server is the primary now")
        self._leaving.start()

    async def close(self) -> None:
        """Close every connection."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._node.close)
            if self._failover is not None:
                stack.push_async_callback(self._failover.stop)
            stack.push_async_callback(self._leaving.stop)
