"""Clients for a server address.

Design 06, *Where it runs*; design 06, *When Redis is away*.

A client never sends a command twice by itself:
what may be sent again is decided by whoever numbered the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypedDict, Unpack, assert_never

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import SentinelManagedConnection

from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.server.address import (
    ClusterAddress,
    EmbeddedAddress,
    SentinelAddress,
    ServerAddress,
    TcpAddress,
    Transport,
    UnixAddress,
    transport,
)
from forebay.coordinator.server.async_connections import ASYNC_CONNECTIONS
from forebay.coordinator.server.refusals import no_pool_on
from forebay.coordinator.server.sentinels import ASYNC_POOLS, BLOCKING_POOLS, new_pool

CONNECT_TIMEOUT_SECONDS: Final = 2.0
SOCKET_TIMEOUT_SECONDS: Final = 5.0

_BLOCKING_CONNECTIONS: Final[Mapping[Transport, type]] = {
    "tcp": redis.Connection,
    "tls": redis.SSLConnection,
    "unix": redis.UnixDomainSocketConnection,
    "sentinel": SentinelManagedConnection,
}


class Bounds(TypedDict, total=False):
    """Bounds of a client's connections, each with a default.

    Attributes:
        connect_timeout_seconds: bound of one attempt to connect.
        socket_timeout_seconds: bound of one wait for a reply; None for a subscriber.
        max_connections: size of the pool; None for no bound.
    """

    connect_timeout_seconds: float
    socket_timeout_seconds: float | None
    max_connections: int | None


def open_async(address: ServerAddress, **bounds: Unpack[Bounds]) -> aioredis.Redis:
    """Make an asyncio client with a pool of its own; it connects at its first command.

    Args:
        address: where the server is; an embedded one must be started and given by its URL.
        **bounds: see `Bounds`.

    Returns:
        The client (replies are bytes); the caller closes it with ``aclose`` or ``async with``.

    Raises:
        ConfigurationError: the address is an embedded one.
    """
    settings = _settings(address, bounds, ASYNC_CONNECTIONS) | {"retry": AsyncRetry(NoBackoff(), 0)}
    return aioredis.Redis.from_pool(new_pool(ASYNC_POOLS, address, settings))


def open_sync(address: ServerAddress, **bounds: Unpack[Bounds]) -> redis.Redis:
    """Make a blocking client, for a thread of its own; otherwise as `open_async`.

    Returns:
        The client (replies are bytes); the caller closes it with ``close`` or ``with``.

    Raises:
        ConfigurationError: the address is an embedded one.
    """
    settings = _settings(address, bounds, _BLOCKING_CONNECTIONS) | {"retry": Retry(NoBackoff(), 0)}
    return redis.Redis.from_pool(new_pool(BLOCKING_POOLS, address, settings))


def _settings(
    address: ServerAddress, bounds: Bounds, classes: Mapping[Transport, type]
) -> dict[str, Any]:
    if isinstance(address, EmbeddedAddress):
        raise ConfigurationError(
            f"{address} is no server yet; expected the URL of a running one; start it with "
            "EmbeddedServer(address.data_dir).start() and use the URL that returns"
        )
    if isinstance(address, ClusterAddress):
        raise ConfigurationError(no_pool_on(address))
    settings: dict[str, Any] = {
        "connection_class": classes[transport(address)],
        "socket_connect_timeout": bounds.get("connect_timeout_seconds", CONNECT_TIMEOUT_SECONDS),
        "socket_timeout": bounds.get("socket_timeout_seconds", SOCKET_TIMEOUT_SECONDS),
        "health_check_interval": 0,  # a PING, which a member may not send and which saves nothing
        "max_connections": bounds.get("max_connections"),
        "decode_responses": False,
        "username": address.username,
        "password": address.password,
        "db": address.database,
    }
    match address:
        case TcpAddress(host=host, port=port, tls=tls):
            settings |= {"host": host, "port": port, "socket_keepalive": True}
            if tls is not None:
                settings |= {
                    "ssl_ca_certs": tls.ca_file,
                    "ssl_certfile": tls.cert_file,
                    "ssl_keyfile": tls.key_file,
                    "ssl_cert_reqs": "none" if tls.verifies == "nothing" else "required",
                    # redis-py's default is False
                    "ssl_check_hostname": tls.verifies == "certificate_and_host",
                }
        case UnixAddress(path=path):
            settings |= {"path": path}
        case SentinelAddress():  # host and port are those of the primary
            settings |= {"socket_keepalive": True}
        case _:
            assert_never(address)
    return settings
