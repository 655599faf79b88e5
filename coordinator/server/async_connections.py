"""redis-py's asyncio connections, which lose no cancellation (spec 06).

Up to Python 3.11 `asyncio.wait_for`, in which redis-py sends a command, returns what it waited for
where that is done, and a cancellation of that very moment is forgotten. Whoever cancels a task
once and waits for its end, as `asyncio.timeout` and every stop do, would wait for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

import redis.asyncio as aioredis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelManagedConnection

from forebay.coordinator.server.address import Transport


class _Cancellable(AbstractConnection):
    """Sends commands; a cancellation that came meanwhile is raised, and the connection closed."""

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """Do as redis-py does.

        Raises:
            asyncio.CancelledError: the task was cancelled meanwhile, redis-py noticed it or not.
        """
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        await super().send_packed_command(command, check_health)
        if task is not None and task.cancelling() > before:
            await self.disconnect(nowait=True)  # else its reply were taken for the next command's
            raise asyncio.CancelledError


class _TcpConnection(_Cancellable, aioredis.Connection):
    pass


class _TlsConnection(_Cancellable, aioredis.SSLConnection):
    pass


class _SentinelConnection(_Cancellable, SentinelManagedConnection):
    pass


class _UnixConnection(_Cancellable, aioredis.UnixDomainSocketConnection):
    pass


ASYNC_CONNECTIONS: Final[Mapping[Transport, type[AbstractConnection]]] = {
    "tcp": _TcpConnection,
    "tls": _TlsConnection,
    "unix": _UnixConnection,
    "sentinel": _SentinelConnection,
}
"""Which connection each kind of address needs."""
