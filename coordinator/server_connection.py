"""A process's connection to a server or a cluster (design 06, *Where it runs*)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from redis.exceptions import RedisError, ResponseError

from forebay.contracts.checks import check_type
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.host_process import refuse_green_threads
from forebay.coordinator.keys import POOL_TAG, SHARDS_KEY, ShardKeys
from forebay.coordinator.scripts.composing import script
from forebay.coordinator.scripts.operator_library import publish_functions
from forebay.coordinator.server.address import (
    ClusterAddress,
    EmbeddedAddress,
    SentinelAddress,
    ServerAddress,
)
from forebay.coordinator.server.availability import Availability
from forebay.coordinator.server.cluster import Cluster
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.embedded_start import started
from forebay.coordinator.server.failover import DOUBLINGS
from forebay.coordinator.server.node import Node
from forebay.coordinator.server.place import OneServer, Place
from forebay.coordinator.server.reading import run_read_only
from forebay.coordinator.server.refusals import connection_error, no_pool_on, reading_error
from forebay.coordinator.server.shard_index import ShardIndex
from forebay.coordinator.server.slots import is_redirection
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.supervision import MOST_DOUBLINGS, in_thread, pause_seconds

T = TypeVar("T")

_RANDOM_DIGITS: Final = 8


def pid_of(member_id: str) -> int:
    """Return the pid of a member's process, with which the member id begins."""
    return int(member_id.partition("-")[0][:-_RANDOM_DIGITS], 16)


class ServerConnection:
    """One process, one server or cluster: made by ``ServerConnection.open``, ended by ``close``.

    Attributes:
        address: the server, or the cluster.
        settings: how this process takes part in the fleet.
        availability: which of this process's connections are lost.
        most_doublings: how often the pause between two tries to connect is doubled.
    """

    def __init__(self, address: ServerAddress, settings: MemberSettings) -> None:
        self.address = address
        self.settings = settings
        self.availability = Availability(address)
        is_watched = isinstance(address, SentinelAddress | ClusterAddress)
        self.most_doublings = DOUBLINGS if is_watched else MOST_DOUBLINGS
        self._servers: OneServer | Cluster
        if isinstance(address, ClusterAddress):
            self._servers = Cluster(address, settings, self.most_doublings)
        else:
            self._servers = OneServer(address, settings, self.availability, self.most_doublings)
        self._index = ShardIndex(self.ask, self.most_doublings)
        self._process_id = f"{os.getpid():x}{secrets.token_hex(_RANDOM_DIGITS // 2)}"
        self._memberships = 0
        self._embedded: EmbeddedServer | None = None

    @classmethod
    async def open(
        cls, url: str, settings: MemberSettings | None = None, *, only_reads: bool = False
    ) -> Self:
        """Connect to a server, or to a cluster, and check that it can be used.

        Args:
            url: ``embedded://``, ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://``,
                or, for requests alone, ``redis+cluster://`` or ``rediss+cluster://``.
            settings: TTL and deadlines; the defaults are safe.
            only_reads: whether nothing is to be written, so that a replica will do.

        Raises:
            ConfigurationError: the URL or the credentials are wrong, or the server is a replica, a
                Sentinel, or a node of a cluster under the URL of one server.
            CoordinatorUnavailable: nothing answers there.
            ServerTooOld: the server is older than Redis 7.0 or Valkey 8.
        """
        refuse_green_threads()
        check_type("url", url, str)
        address = parse_url(url)
        embedded = None
        if isinstance(address, EmbeddedAddress):
            embedded = EmbeddedServer(address.data_dir)
            address = parse_url(await started(embedded))
        self = cls(address, settings or MemberSettings())
        self._embedded = embedded
        try:
            await self._servers.check(only_reads=only_reads)
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Close every connection, and the embedded server if this process started it."""
        async with contextlib.AsyncExitStack() as stack:  # a failure of one stops no other
            if self._embedded is not None:
                stack.push_async_callback(in_thread, self._embedded.stop)
            stack.push_async_callback(self._servers.close)
            stack.push_async_callback(self._index.stop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # -- servers

    def place(self, keys: ShardKeys) -> Place:
        """Return where a shard is, now and later.

        Raises:
            ConfigurationError: a task pool on a cluster.
        """
        if keys.tag.startswith(POOL_TAG) and isinstance(self._servers, Cluster):
            raise ConfigurationError(no_pool_on(self.address))
        return self._servers.place(keys["meta"])

    @property
    def is_cluster(self) -> bool:
        """Whether shards lie on the masters of a cluster."""
        return isinstance(self._servers, Cluster)

    def nodes(self) -> list[Node]:
        """Return the server, or the masters of the cluster, in the order of their slots."""
        return self._servers.nodes()

    @property
    def node(self) -> Node:
        """The one server.

        Raises:
            ConfigurationError: it is a cluster, which task pools cannot use.
        """
        if isinstance(self._servers, Cluster):
            raise ConfigurationError(no_pool_on(self.address))
        return self._servers.node

    @property
    def client(self) -> Any:
        """The client of the one server, as `node`: single commands, looking, operating."""
        return self.node.client

    async def ask(self, key: str, call: Callable[[Node], Awaitable[T]]) -> T:
        """Call the server that has a key; again while the key's slot moves to another node.

        Args:
            key: any key of what is asked for.
            call: what is done on the server, with the time that the caller has.

        Raises:
            RedisError, OSError: no answer, or an error.
        """
        place = self._servers.place(key)
        failures = 0
        while True:
            try:
                return await call(await place.find())
            except (RedisError, OSError) as error:
                place.note(error)
                if not (isinstance(error, ResponseError) and is_redirection(error)):
                    raise
            failures += 1
            await asyncio.sleep(pause_seconds(failures, self.most_doublings))

    async def time(self) -> float:
        """Return the time of the server in seconds; on a cluster, of one node.

        Raises:
            RedisError, OSError: no answer.
        """
        seconds, micros = await self.ask(SHARDS_KEY, lambda node: node.client.time())
        return float(seconds) + float(micros) / 1e6

    # -- members

    def new_member_id(self) -> str:
        """Return a name that was never used and will never be used again."""
        self._memberships += 1
        return f"{self._process_id}-{self._memberships}"

    def deadline(self) -> asyncio.Timeout:
        """Return a block that ends with TimeoutError after the deadline of a call."""
        return asyncio.timeout(self.settings.call_timeout_seconds)

    async def is_registered(self, keys: ShardKeys) -> bool:
        """Return whether any member has registered a request shard's provider/model.

        Raises:
            CoordinatorError: the server could not be used.
        """
        try:
            async with self.deadline():
                aliases = keys["aliases"]
                return bool(await self.ask(aliases, lambda node: node.client.exists(aliases)))
        except (RedisError, OSError) as error:
            raise connection_error(error, self.address, f"looking for {keys.tag}") from error

    async def is_listened_to(self, keys: ShardKeys) -> bool:
        """Return whether any member listens to a shard, and so exists even after lost state.

        Raises:
            CoordinatorError: the server could not be used.
        """
        prefix = keys.wake_channel("")
        try:
            async with self.deadline():
                channels = await self.client.pubsub_channels(f"{prefix}*")
        except (RedisError, OSError) as error:
            raise connection_error(error, self.address, f"looking for {keys.tag}") from error
        return bool(channels)

    async def list_shard(self, keys: ShardKeys) -> None:
        """Put a shard into the index, and the operators' functions where redis-cli finds them."""
        await self._index.add(keys.tag, wait=isinstance(self._servers, OneServer))
        await publish_functions(self._servers.place(keys["meta"]).node.patient)

    async def shards(self) -> list[str]:
        """Return the tags of all shards that any member ever joined, sorted.

        Raises:
            CoordinatorError: the server could not be used.
        """
        try:
            async with self.deadline():
                tags = await self.ask(SHARDS_KEY, lambda node: node.client.smembers(SHARDS_KEY))
        except (RedisError, OSError) as error:
            raise connection_error(error, self.address, "listing the shards") from error
        return sorted(tag.decode(errors="backslashreplace") for tag in tags)

    async def live_shards(self, prefix: str) -> list[str]:
        """Return the names of the shards that exist now, sorted, as they stand in keys.

        Args:
            prefix: of their tags, such as ``pool:``; it is left out.

        Raises:
            CoordinatorError: the server could not be used.
        """
        try:
            async with self.deadline():
                tags = [tag for tag in await self.shards() if tag.startswith(prefix)]
                live: list[str] = []
                for node, own in self.by_node(tags):
                    pipe = node.client.pipeline(transaction=False)
                    for tag in own:
                        pipe.exists(ShardKeys(tag, ())["meta"])
                    live += [tag for tag, n in zip(own, await pipe.execute(), strict=True) if n]
        except (RedisError, OSError) as error:
            raise connection_error(error, self.address, "listing the shards") from error
        return sorted(tag.removeprefix(prefix) for tag in live)

    def by_node(self, tags: Iterable[str]) -> list[tuple[Node, list[str]]]:
        """Return the servers that have shards, each with the tags of its own."""
        own: dict[Node, list[str]] = {}
        for tag in tags:
            own.setdefault(self.place(ShardKeys(tag, ())).node, []).append(tag)
        return list(own.items())

    async def read(self, name: str, keys: Sequence[str], args: Sequence[str | int] = ()) -> bytes:
        """Run a read-only script of a shard and return its reply.

        A user who may evaluate no script, such as a reader, has the operators' functions run it.

        Raises:
            CoordinatorError: the server could not be used.
        """
        try:
            async with self.deadline():
                return await self.ask(keys[0], lambda node: run_read_only(node, name, keys, args))
        except (RedisError, OSError) as error:
            raise reading_error(script(name), keys, error, self.address) from error
