"""Pools of connections, also to the primary that Sentinels name (design 06, *Where it runs*).

Each new connection asks the Sentinels which server is the primary now: so whatever reconnects
follows a failover.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import redis
import redis.asyncio as aioredis
from redis.asyncio.sentinel import MasterNotFoundError
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelPool
from redis.exceptions import RedisError
from redis.sentinel import Sentinel, SentinelConnectionPool

from forebay.coordinator.server.address import SentinelAddress, ServerAddress
from forebay.coordinator.server.async_connections import TcpConnection

SENTINEL_TIMEOUT_SECONDS: Final = 1.0
"""Bound of connecting to one Sentinel, and of one wait for its answer."""


class _AsyncSentinels(AsyncSentinel):
    """Asks all Sentinels at once; a silent one, as on the primary's machine, delays nothing."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)  # type: ignore[no-untyped-call] # redis-py's
        for sentinel in self.sentinels:
            sentinel.connection_pool.connection_class = TcpConnection

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the primary, as the first Sentinel to answer names it.

        Raises:
            MasterNotFoundError: none names one that it takes to be up.
        """
        asked = [asyncio.ensure_future(self._ask(one, service_name)) for one in self.sentinels]
        faults = []
        try:
            for answered in asyncio.as_completed(asked):
                try:
                    found = await answered
                except (RedisError, OSError) as error:
                    faults.append(str(error) or type(error).__name__)
                    continue
                if found is not None:
                    return found
        finally:
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise MasterNotFoundError(
            f"no Sentinel names a primary of {service_name!r} that is up"
            + "".join(f"; {fault}" for fault in faults)
        )

    async def _ask(self, sentinel: Any, service_name: str) -> tuple[str, int] | None:
        state = (await sentinel.sentinel_masters()).get(service_name)
        if not state or not self.check_master_state(state, service_name):
            return None
        return state["ip"], state["port"]


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
    """The pool classes of redis-py's asyncio or blocking side, which redis-py leaves untyped.

    Attributes:
        plain: a pool of connections to one server.
        managed: a pool of connections to the primary that Sentinels name.
        sentinels: the clients of those Sentinels.
    """

    plain: Any
    managed: Any
    sentinels: Any


ASYNC_POOLS: Final = Pools(aioredis.ConnectionPool, _AsyncPool, _AsyncSentinels)
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
    seconds = min(SENTINEL_TIMEOUT_SECONDS, settings["socket_connect_timeout"])
    return {
        "socket_connect_timeout": seconds,
        "socket_timeout": seconds,
        "username": address.sentinel_username,
        "password": address.sentinel_password,
    }
