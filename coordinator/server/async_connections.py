"""redis-py's asyncio connections, which lose no cancellation and wait for no resolver.

Rules: design 06, *Where it runs*.

Up to Python 3.11 `asyncio.wait_for`, in which redis-py sends a command, returns what it waited for
where that is done, and a cancellation of that very moment is forgotten. Whoever cancels a task
once and waits for its end, as `asyncio.timeout` and every stop do, would wait for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

import redis.asyncio as aioredis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelManagedConnection
from redis.exceptions import ConnectionError  # noqa: A004 - redis-py's name

from forebay.coordinator.server.address import Transport
from forebay.coordinator.server.host_names import addresses_of


class _Cancellable(AbstractConnection):
    """Sends commands; a cancellation that came meanwhile is raised, and the connection closed."""

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """Override redis-py's method of this name; same effect.

        Raises:
            asyncio.CancelledError: the task was cancelled meanwhile, redis-py noticed it or not.
            ConnectionError: the connection was closed; redis-py lets uvloop's `RuntimeError` pass.
        """
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            if self.is_connected:
                raise
            raise ConnectionError(f"the connection was closed while it sent: {error}") from error
        if task is not None and task.cancelling() > before:
            await self.disconnect(nowait=True)  # else its reply were taken for the next command's
            raise asyncio.CancelledError


class _ByHostName(_Cancellable):
    """Looks its host up as `addresses_of` does, and tries one address after another."""

    host: str
    _address: str | None = None

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = {**super()._connection_arguments(), "host": self._address}  # type: ignore[misc] # redis-py's
        if "ssl" in arguments:
            arguments["server_hostname"] = self.host  # the certificate's, which names no address
        return arguments

    async def _connect(self) -> None:
        """Override redis-py's method of this name; same effect.

        Raises:
            OSError: the name is not known, or none of its addresses takes a connection.
        """
        async with asyncio.timeout(self.socket_connect_timeout):
            addresses = await addresses_of(self.host)
        failure: OSError = OSError(f"the name {self.host} has no address")
        for self._address in addresses:
            try:
                await super()._connect()  # type: ignore[safe-super, no-untyped-call] # redis-py's
            except OSError as error:
                failure = error
            else:
                return
        raise failure


class TcpConnection(_ByHostName, aioredis.Connection):
    """A connection to a server by host and port."""


class _TlsConnection(_ByHostName, aioredis.SSLConnection):
    pass


class _SentinelConnection(_ByHostName, SentinelManagedConnection):
    pass


class _UnixConnection(_Cancellable, aioredis.UnixDomainSocketConnection):
    pass


ASYNC_CONNECTIONS: Final[Mapping[Transport, type[AbstractConnection]]] = {
    "tcp": TcpConnection,
    "tls": _TlsConnection,
    "unix": _UnixConnection,
    "sentinel": _SentinelConnection,
}
"""Kind of address -> its class of connection."""
