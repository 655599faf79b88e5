"""Pools of connections, also to the primary that Sentinels name (spec 06, "Where it runs").

Each new connection asks the Sentinels, in order, which server is the primary now: so whatever
reconnects follows a failover.
"""

from __future__ import annotations

from typing import Any, Final

import redis
import redis.asyncio as aioredis
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelPool
from redis.sentinel import Sentinel, SentinelConnectionPool

from forebay.coordinator.server.address import SentinelAddress, ServerAddress

# redis-py gives these no types
_AsyncManager: Final[Any] = AsyncSentinel
_Manager: Final[Any] = Sentinel


class _AsyncPool(AsyncSentinelPool):
    """Closes the connections to the Sentinels with its own."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


class _Pool(SentinelConnectionPool):
    """Closes the connections to the Sentinels with its own."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                sentinel.close()


_new_async_pool: Final[Any] = _AsyncPool
_new_pool: Final[Any] = _Pool


def async_pool(address: ServerAddress, **settings: Any) -> aioredis.ConnectionPool:
    """Return a pool of asyncio connections to a server, or to the primary of Sentinels."""
    if not isinstance(address, SentinelAddress):
        return aioredis.ConnectionPool(**settings)
    manager = _AsyncManager(list(address.sentinels), sentinel_kwargs=_settings(address, settings))
    pool: aioredis.ConnectionPool = _new_async_pool(address.service, manager, **settings)
    return pool


def sync_pool(address: ServerAddress, **settings: Any) -> redis.ConnectionPool:
    """Return a pool of blocking connections to a server, or to the primary of Sentinels."""
    if not isinstance(address, SentinelAddress):
        return redis.ConnectionPool(**settings)
    manager = _Manager(list(address.sentinels), sentinel_kwargs=_settings(address, settings))
    pool: redis.ConnectionPool = _new_pool(address.service, manager, **settings)
    return pool


def _settings(address: SentinelAddress, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the connections to the Sentinels themselves."""
    seconds = settings["socket_connect_timeout"]
    return {
        "socket_connect_timeout": seconds,
        "socket_timeout": seconds,
        "username": address.sentinel_username,
        "password": address.sentinel_password,
    }
