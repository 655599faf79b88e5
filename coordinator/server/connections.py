"""Clients for a server address, and the check that the server behind it can be used.

Spec 06, "Where it runs" and "When Redis is away". A client never sends a command twice by itself:
what may be sent again is decided by whoever numbered the batch.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import SentinelManagedConnection

from forebay.contracts.errors import (
    ConfigurationError,
    CoordinatorUnavailable,
    ForebayError,
    ServerTooOld,
)
from forebay.coordinator.server.address import (
    EmbeddedAddress,
    SentinelAddress,
    ServerAddress,
    TcpAddress,
    UnixAddress,
)
from forebay.coordinator.server.async_connections import async_connection_class
from forebay.coordinator.server.sentinels import async_pool, sync_pool

CONNECT_TIMEOUT_SECONDS = 2.0
SOCKET_TIMEOUT_SECONDS = 5.0
HEALTH_CHECK_SECONDS = 15
_OLDEST = {"redis": (7, 0, 0), "valkey": (8, 0, 0)}
_EXPECTED = "Redis 7.0 or newer, or Valkey 8 or newer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerVersion:
    """Which server answers.

    Attributes:
        product: what it calls itself.
        number: major, minor, patch.
    """

    product: Literal["redis", "valkey"]
    number: tuple[int, int, int]

    @property
    def is_supported(self) -> bool:
        """Whether it is at least Redis 7.0 or Valkey 8 (spec 06, "Where it runs")."""
        return self.number >= _OLDEST[self.product]

    def __str__(self) -> str:
        return f"{self.product.capitalize()} {'.'.join(map(str, self.number))}"


def open_async(
    address: ServerAddress,
    *,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    socket_timeout_seconds: float | None = SOCKET_TIMEOUT_SECONDS,
    health_check_seconds: int = HEALTH_CHECK_SECONDS,
    max_connections: int | None = None,
) -> aioredis.Redis:
    """Makes an asyncio client with a pool of its own; it connects at its first command.

    Args:
        address: where the server is; an embedded one must be started and given by its URL.
        connect_timeout_seconds: bound of one attempt to connect.
        socket_timeout_seconds: bound of one wait for a reply; None for a subscriber.
        health_check_seconds: a connection that idled longer is tried with PING; 0 for never.
        max_connections: size of the pool; None for no bound.

    Returns:
        The client (replies are bytes); the caller closes it with ``aclose`` or ``async with``.

    Raises:
        ConfigurationError: the address is an embedded one.
    """
    pool = async_pool(
        address,
        connection_class=async_connection_class(address),
        retry=AsyncRetry(NoBackoff(), 0),
        max_connections=max_connections,
        **_connection_settings(
            address, connect_timeout_seconds, socket_timeout_seconds, health_check_seconds
        ),
    )
    return aioredis.Redis.from_pool(pool)


def open_sync(
    address: ServerAddress,
    *,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    socket_timeout_seconds: float | None = SOCKET_TIMEOUT_SECONDS,
    health_check_seconds: int = HEALTH_CHECK_SECONDS,
    max_connections: int | None = None,
) -> redis.Redis:
    """Makes a blocking client, for a thread of its own; otherwise as ``open_async``.

    Args:
        address: as for ``open_async``.
        connect_timeout_seconds: as for ``open_async``.
        socket_timeout_seconds: as for ``open_async``.
        health_check_seconds: as for ``open_async``.
        max_connections: as for ``open_async``.

    Returns:
        The client (replies are bytes); the caller closes it with ``close`` or ``with``.

    Raises:
        ConfigurationError: the address is an embedded one.
    """
    pool = sync_pool(
        address,
        connection_class=_sync_connection_class(address),
        retry=Retry(NoBackoff(), 0),
        max_connections=max_connections,
        **_connection_settings(
            address, connect_timeout_seconds, socket_timeout_seconds, health_check_seconds
        ),
    )
    return redis.Redis.from_pool(pool)


async def check_server(
    client: aioredis.Redis, address: ServerAddress, *, timeout_seconds: float = 5.0
) -> ServerVersion:
    """Asks the server for its version, once, and refuses one that is too old.

    Args:
        client: a client of ``address``; it stays open, on failure too.
        address: named, with its password masked, in messages.
        timeout_seconds: bound of the whole, name lookup and login included.

    Returns:
        The version.

    Raises:
        CoordinatorUnavailable: nobody answered in time.
        ConfigurationError: the server refused the login, the database or the INFO command, it
            is no Redis, or it is a node of a cluster or a Sentinel.
        ServerTooOld: older than Redis 7.0 or Valkey 8.
    """
    attempt = f"connecting and asking for INFO for up to {timeout_seconds:g} s"
    try:
        async with asyncio.timeout(timeout_seconds):
            info = await client.info("server")
    except (redis.RedisError, OSError, TimeoutError) as error:
        raise connection_error(error, address, attempt) from error
    version = parse_server_version(info)
    require_supported(version, address)
    require_single(info, address)
    return version


def parse_server_version(server_info: Mapping[str, Any]) -> ServerVersion:
    """Reads the version out of the ``server`` section of INFO.

    Valkey reports a ``redis_version`` of 7.2 for compatibility, so ``valkey_version`` goes first.

    Args:
        server_info: INFO as redis-py parses it.

    Returns:
        The version, supported or not.

    Raises:
        ConfigurationError: it holds no version.
    """
    products: tuple[Literal["valkey", "redis"], ...] = ("valkey", "redis")
    for product in products:
        # redis-py turns a version such as 8.0 into a float
        found = re.match(
            r"(\d+)\.(\d+)(?:\.(\d+))?", str(server_info.get(f"{product}_version", ""))
        )
        if found:
            major, minor, patch = (int(part or 0) for part in found.groups())
            return ServerVersion(product=product, number=(major, minor, patch))
    raise ConfigurationError(
        f"the server's INFO holds no redis_version or valkey_version; expected {_EXPECTED}; "
        "give the URL of such a server"
    )


def require_supported(version: ServerVersion, address: ServerAddress) -> None:
    """Refuses a version that lacks what the scripts need.

    Args:
        version: what ``parse_server_version`` found.
        address: named in the message.

    Raises:
        ServerTooOld: older than Redis 7.0 or Valkey 8.
    """
    if not version.is_supported:
        raise ServerTooOld(
            f"the server at {address} is {version}; expected {_EXPECTED}; upgrade it, give the "
            "URL of a newer one, or use a private one on this machine: embedded://"
        )


def require_single(server_info: Mapping[str, Any], address: ServerAddress) -> None:
    """Refuses a node of a cluster, whose keys lie on several servers, and a Sentinel.

    Args:
        server_info: as for ``parse_server_version``.
        address: named in the message.

    Raises:
        ConfigurationError: it is one of them.
    """
    # Valkey 9 calls it server_mode
    match server_info.get("redis_mode") or server_info.get("server_mode"):
        case "cluster":
            raise ConfigurationError(
                f"the server at {address} is a node of a cluster, which this version does not"
                " support, neither for request admission nor for task pools; expected a server with"
                " cluster-enabled no; give the URL of one, with replicas if you like (one server"
                " admits tens of thousands of requests a second), or use a private one on this"
                " machine: embedded://"
            )
        case "sentinel":
            raise ConfigurationError(
                f"the server at {address} is a Sentinel, expected the server that it watches; give"
                " the URL redis+sentinel://host:port,.../service, which follows its failovers"
            )
        case _:
            pass


def connection_error(
    error: redis.RedisError | OSError, address: ServerAddress, attempt: str
) -> ForebayError:
    """What a failed attempt to use the server means, so that no bare redis error escapes.

    Args:
        error: what redis-py or the socket raised.
        address: named, with its password masked, in the message.
        attempt: what was tried, as in "asking for INFO".

    Returns:
        The error to raise ``from`` the given one.
    """
    if isinstance(error.__cause__, redis.RedisError):
        # on a unix socket redis-py wraps what the server answered to the login
        error = error.__cause__
    cause = str(error) or type(error).__name__
    match error:
        # the first three are to be told from the ConnectionError and ResponseError they derive from
        case (
            redis.AuthenticationError()
            | redis.exceptions.AuthenticationWrongNumberOfArgsError()
            | redis.exceptions.AuthorizationError()
        ):
            return ConfigurationError(
                f"the server at {address} refused the login ({cause}); expected a user and "
                "password that it knows; correct them in the URL: redis://user:password@host:port"
            )
        case redis.exceptions.NoPermissionError():
            return ConfigurationError(
                f"the server at {address} forbids this user what Forebay needs ({cause}); expected "
                "the ACL rules of the documentation; grant them or name another user in the URL"
            )
        case _ if "CERTIFICATE_VERIFY_FAILED" in cause:
            return ConfigurationError(
                f"the certificate of the server at {address} cannot be verified ({cause}); expected"
                " one of an authority that this machine knows; name the server's own authority in"
                " the URL: ?ssl_ca_certs=/path/ca.pem, or verify nothing: ?ssl_cert_reqs=none"
            )
        case redis.ConnectionError() | redis.TimeoutError() | OSError():
            return CoordinatorUnavailable(
                f"no answer from the server at {address}, {attempt} ({cause}); expected "
                f"{_EXPECTED}; is it running, and is the URL right? A private server on this "
                "machine needs no setup: embedded://"
            )
        case _:
            return ConfigurationError(
                f"the server at {address} answered {attempt} with an error ({cause}); expected "
                f"{_EXPECTED}, and a database that it has; correct the URL"
            )


def _connection_settings(
    address: ServerAddress,
    connect_timeout_seconds: float,
    socket_timeout_seconds: float | None,
    health_check_seconds: int,
) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "socket_connect_timeout": connect_timeout_seconds,
        "socket_timeout": socket_timeout_seconds,
        "health_check_interval": health_check_seconds,
        "decode_responses": False,
    }
    match address:
        case EmbeddedAddress():
            raise ConfigurationError(
                f"{address} is no server yet; expected the URL of a running one; start it with "
                "EmbeddedServer(address.data_dir).start() and use the URL that returns"
            )
        case TcpAddress():
            settings |= {"host": address.host, "port": address.port, "socket_keepalive": True}
            if address.tls is not None:
                settings |= {
                    "ssl_ca_certs": address.tls.ca_file,
                    "ssl_certfile": address.tls.cert_file,
                    "ssl_keyfile": address.tls.key_file,
                    "ssl_cert_reqs": "none" if address.tls.verifies == "nothing" else "required",
                    # redis-py's default is False
                    "ssl_check_hostname": address.tls.verifies == "certificate_and_host",
                }
        case UnixAddress():
            settings |= {"path": address.path}
        case SentinelAddress():  # host and port are those of the primary
            settings |= {"socket_keepalive": True}
        case _:
            assert_never(address)
    return settings | {
        "username": address.username,
        "password": address.password,
        "db": address.database,
    }


def _sync_connection_class(address: ServerAddress) -> type[redis.connection.AbstractConnection]:
    if isinstance(address, SentinelAddress):
        return SentinelManagedConnection
    if isinstance(address, UnixAddress):
        return redis.UnixDomainSocketConnection
    if isinstance(address, TcpAddress) and address.tls is not None:
        return redis.SSLConnection
    return redis.Connection
