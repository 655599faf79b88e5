"""Pools of connections, also to the primary that Sentinels name (spec 06, "Where it runs").

Each new connection asks the Sentinels, in order, which server is the primary now: so whatever
reconnects follows a failover.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import redis
import redis.asyncio as aioredis
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelPool
from redis.sentinel import Sentinel, SentinelConnectionPool

from forebay.coordinator.server.address import SentinelAddress, ServerAddress


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


@dataclass(frozen=True, slots=True)
class Pools:
    """One face of redis-py: its classes, which have no types there.

    Attributes:
        plain: a pool of connections to one server.
        managed: a pool of connections to the primary that Sentinels name.
        sentinels: the clients of those Sentinels.
    """

    plain: Any
    managed: Any
    sentinels: Any


ASYNC_POOLS: Final = Pools(aioredis.ConnectionPool, _AsyncPool, AsyncSentinel)
BLOCKING_POOLS: Final = Pools(redis.ConnectionPool, _Pool, Sentinel)


def new_pool(pools: Pools, address: ServerAddress, settings: dict[str, Any]) -> Any:
    """Return a pool of connections to a server, or to the primary of Sentinels.

    Args:
        pools: asyncio's or the blocking ones.
        address: a server's, or that of Sentinels.
        settings: of the connections.
    """
    if not isinstance(address, SentinelAddress):
        return pools.plain(**settings)
    sentinels = pools.sentinels(
        list(address.sentinels), sentinel_kwargs=_settings(address, settings)
    )
    return pools.managed(address.service, sentinels, **settings)


def _settings(address: SentinelAddress, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the connections to the Sentinels themselves."""
    seconds = settings["socket_connect_timeout"]
    return {
        "socket_connect_timeout": seconds,
        "socket_timeout": seconds,
        "username": address.sentinel_username,
        "password": address.sentinel_password,
    }
