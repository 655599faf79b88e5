"""The check that a server is one that Forebay can use (design 06, *Where it runs*)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import redis
import redis.asyncio as aioredis

from forebay.contracts.errors import ConfigurationError, ServerTooOld
from forebay.coordinator.server.address import SentinelAddress, ServerAddress
from forebay.coordinator.server.refusals import EXPECTED_SERVER, connection_error
from forebay.coordinator.supervision import pause_seconds

OLDEST: Final = {"redis": (7, 0, 0), "valkey": (8, 0, 0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerVersion:
    """The product and version of a server.

    Attributes:
        product: what it calls itself.
        number: major, minor, patch.
    """

    product: Literal["redis", "valkey"]
    number: tuple[int, int, int]

    @property
    def is_supported(self) -> bool:
        """Whether it is at least Redis 7.0 or Valkey 8 (design 06, *Where it runs*)."""
        return self.number >= OLDEST[self.product]

    def __str__(self) -> str:
        return f"{self.product.capitalize()} {'.'.join(map(str, self.number))}"


async def check_server(
    client: aioredis.Redis,
    address: ServerAddress,
    *,
    timeout_seconds: float = 5.0,
    only_reads: bool = False,
    is_node: bool = False,
) -> ServerVersion:
    """Ask the server for INFO and refuse one that is too old, a replica, or part of a cluster.

    Args:
        client: a client of ``address``; it stays open, on failure too.
        address: named, with its password masked, in messages.
        timeout_seconds: bound of the whole, name lookup and login included.
        only_reads: whether nothing is to be written, so that a replica will do.
        is_node: whether it is used as a node of a cluster.

    Returns:
        The version.

    Raises:
        CoordinatorUnavailable: nobody answered in time.
        ConfigurationError: the server refused the login, the database or the INFO command, it
            is no Redis, or it is a replica, a node of a cluster or a Sentinel.
        ServerTooOld: older than Redis 7.0 or Valkey 8.
    """
    attempt = f"connecting and asking for INFO for up to {timeout_seconds:g} s"
    try:
        async with asyncio.timeout(timeout_seconds):
            info = await _look(client)
            while isinstance(address, SentinelAddress) and is_replica(info):
                await asyncio.sleep(pause_seconds(1))  # it was the primary a moment ago
                info = await _look(client)
    except (redis.RedisError, OSError, TimeoutError) as error:
        raise connection_error(error, address, attempt) from error
    version = parse_server_version(info)
    require_supported(version, address)
    if not is_node:
        require_single(info, address)
    if not only_reads:
        require_primary(info, address)
    return version


async def _look(client: Any) -> Mapping[str, Any]:
    info: Mapping[str, Any] = await client.info("server", "replication")
    return info


def is_replica(server_info: Mapping[str, Any]) -> bool:
    """Return whether a server is another's replica, by the ``replication`` section of INFO."""
    return server_info.get("role") == "slave"


def require_primary(server_info: Mapping[str, Any], address: ServerAddress) -> None:
    """Refuses a replica, which takes no writes.

    Args:
        server_info: INFO as redis-py parses it.
        address: named in the message.

    Raises:
        ConfigurationError: it is one.
    """
    if is_replica(server_info):
        primary = f"{server_info.get('master_host')}:{server_info.get('master_port')}"
        raise ConfigurationError(
            f"the server at {address} is a replica, which takes no writes, of {primary}; expected"
            " the primary; give the URL of that, or the Sentinels' that watch it:"
            " redis+sentinel://host:port,.../service"
        )


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
        f"the server's INFO holds no redis_version or valkey_version; expected {EXPECTED_SERVER}; "
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
            f"the server at {address} is {version}; expected {EXPECTED_SERVER}; upgrade it,"
            " give the URL of a newer one, or use a private one on this machine: embedded://"
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
                f"the server at {address} is a node of a cluster, expected one with cluster-enabled"
                f" no; for requests alone write {_cluster_url(address)}, and give task pools the"
                " URL of a server outside cluster mode."
            )
        case "sentinel":
            raise ConfigurationError(
                f"the server at {address} is a Sentinel, expected the server that it watches; give"
                " the URL redis+sentinel://host:port,.../service, which follows its failovers"
            )
        case _:
            pass


def _cluster_url(address: ServerAddress) -> str:
    """Return the URL of the cluster that a node is of."""
    scheme, _, rest = str(address).partition("://")
    host, _, _database = rest.partition("/")
    return f"{scheme}+cluster://{host}"
