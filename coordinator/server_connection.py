"""A process's connection to one server, shared by its shards (design 06, *Where it runs*)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from redis.exceptions import NoPermissionError, NoScriptError, RedisError

from forebay.contracts.checks import check_type
from forebay.contracts.errors import CoordinatorError
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.host_process import refuse_green_threads
from forebay.coordinator.keys import SHARDS_KEY, ShardKeys
from forebay.coordinator.logs import Logger
from forebay.coordinator.scripts.composing import script
from forebay.coordinator.scripts.operator_library import LIBRARY, library_version, publish_functions
from forebay.coordinator.server.address import EmbeddedAddress, SentinelAddress, ServerAddress
from forebay.coordinator.server.availability import Availability
from forebay.coordinator.server.condition import SECTIONS, warn_of_risks
from forebay.coordinator.server.connections import (
    CONNECT_TIMEOUT_SECONDS,
    SOCKET_TIMEOUT_SECONDS,
    open_async,
    open_sync,
)
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.failover import DOUBLINGS, Failover, Peer
from forebay.coordinator.server.heartbeat import Heartbeat
from forebay.coordinator.server.libraries import Libraries
from forebay.coordinator.server.refusals import connection_error, reading_error
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server.version import check_server
from forebay.coordinator.server.wakeups import Subscriber
from forebay.coordinator.supervision import MOST_DOUBLINGS, Background, Guard, in_thread

_RANDOM_DIGITS: Final = 8

log = Logger("forebay.coordinator")


def pid_of(member_id: str) -> int:
    """Return the pid of a member's process, with which the member id begins."""
    return int(member_id.partition("-")[0][:-_RANDOM_DIGITS], 16)


class ServerConnection:
    """A process's connection to one server: ``ServerConnection.open``, then ``close``.

    Attributes:
        address: the server.
        settings: how this process takes part in the fleet.
        availability: which of this process's connections are lost.
        client: for whatever is not a shard's batch: single commands, looking, operating.
        patient: a client without a socket timeout, for calls that their caller bounds.
        libraries: the functions that members call there.
        failover: notices another primary, where Sentinels name it; None elsewhere.
        most_doublings: how often the pause between two tries to connect is doubled.
        heartbeat: keeps the memberships of this process alive.
        subscriber: the channel on which it is woken.
    """

    def __init__(self, address: ServerAddress, settings: MemberSettings) -> None:
        self.address = address
        self.settings = settings
        self.availability = Availability(address)
        # Any: redis-py 5 declares one return type for its blocking and its async client, which
        # cannot be awaited for mypy. Whoever takes a client's attribute does the same.
        self.client: Any = open_async(address)
        self.patient: Any = open_async(address, socket_timeout_seconds=None)
        self.libraries = Libraries()
        self.failover = (
            Failover(self.patient.connection_pool) if isinstance(address, SentinelAddress) else None
        )
        self.most_doublings = DOUBLINGS if self.failover is not None else MOST_DOUBLINGS
        self.heartbeat = Heartbeat(
            open_sync(address, socket_timeout_seconds=_heartbeat_timeout(settings)),
            settings,
            self.availability,
            self.libraries,
            partial(open_async, address),
        )
        self.subscriber = Subscriber(
            self.patient,
            self.availability.state_of("wake-ups"),
            min(CONNECT_TIMEOUT_SECONDS, settings.call_timeout_seconds),
            self.most_doublings,
        )
        if self.failover is not None:
            self.failover.on_moved.add(self._on_moved)
        self._leaving_primary = Background(
            "forebay-leave-primary", self.client.connection_pool.disconnect, Guard(log)
        )
        self._process_id = f"{os.getpid():x}{secrets.token_hex(_RANDOM_DIGITS // 2)}"
        self._memberships = 0
        self._embedded: EmbeddedServer | None = None

    @classmethod
    async def open(
        cls, url: str, settings: MemberSettings | None = None, *, only_reads: bool = False
    ) -> Self:
        """Connect to a server and check that it can be used.

        Args:
            url: ``embedded://``, ``redis://``, ``rediss://``, ``unix://`` or ``redis+sentinel://``.
            settings: TTL and deadlines; the defaults are safe.
            only_reads: whether nothing is to be written, so that a replica will do.

        Raises:
            ConfigurationError: the URL or the credentials are wrong, or the server is a replica, a
                node of a cluster or a Sentinel.
            CoordinatorUnavailable: nothing answers there.
            ServerTooOld: the server is older than Redis 7.0 or Valkey 8.
        """
        refuse_green_threads()
        check_type("url", url, str)
        address = parse_url(url)
        embedded = None
        if isinstance(address, EmbeddedAddress):
            embedded = EmbeddedServer(address.data_dir)
            address = parse_url(await _started(embedded))
        self = cls(address, settings or MemberSettings())
        self._embedded = embedded
        try:
            await check_server(
                self.client,
                address,
                timeout_seconds=self.settings.call_timeout_seconds,
                only_reads=only_reads,
            )
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Close every connection, and the embedded server if this process started it."""
        async with contextlib.AsyncExitStack() as stack:  # a failure of one stops no other
            if self._embedded is not None:
                stack.push_async_callback(in_thread, self._embedded.stop)
            for client in (self.client, self.patient):
                stack.push_async_callback(client.aclose)
            stack.push_async_callback(self.subscriber.close)
            if self.failover is not None:
                stack.push_async_callback(self.failover.stop)
            stack.push_async_callback(self._leaving_primary.stop)
            stack.push_async_callback(self.heartbeat.stop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _on_moved(self, _primary: Peer) -> None:
        """Drop the connections of this process, each of which may lead to the old primary."""
        self.subscriber.drop("another server is the primary now")
        self._leaving_primary.start()

    def new_member_id(self) -> str:
        """Return a name that was never used and will never be used again."""
        self._memberships += 1
        return f"{self._process_id}-{self._memberships}"

    async def warn_of_risks(self) -> None:
        """Log the server's risks of data loss once; called when a member joins."""
        warn_of_risks(await self.patient.info(*SECTIONS), self.address)

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
                return bool(await self.client.exists(keys["aliases"]))
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
        await self.patient.sadd(SHARDS_KEY, keys.tag)
        await publish_functions(self.patient)

    async def shards(self) -> list[str]:
        """Return the tags of all shards that any member ever joined, sorted.

        Raises:
            CoordinatorError: the server could not be used.
        """
        try:
            async with self.deadline():
                tags = await self.client.smembers(SHARDS_KEY)
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
                pipe = self.client.pipeline(transaction=False)
                for tag in tags:
                    pipe.exists(ShardKeys(tag, ())["meta"])
                exist = await pipe.execute()
        except (RedisError, OSError) as error:
            raise connection_error(error, self.address, "listing the shards") from error
        return [tag.removeprefix(prefix) for tag, n in zip(tags, exist, strict=True) if n]

    async def read(self, name: str, keys: Sequence[str], args: Sequence[str | int] = ()) -> bytes:
        """Run a read-only script of a shard and return its reply.

        A user who may evaluate no script, such as a reader, has the operators' functions run it.

        Raises:
            CoordinatorError: the server could not be used.
        """
        which = script(name)
        try:
            async with self.deadline():
                try:
                    reply = await self.client.evalsha_ro(which.sha, len(keys), *keys, *args)
                except NoScriptError:
                    reply = await self.client.eval_ro(which.text, len(keys), *keys, *args)
                except NoPermissionError:
                    reply = await self._read_by_function(name, keys, args)
        except (RedisError, OSError) as error:
            raise reading_error(which, keys, error, self.address) from error
        return bytes(reply)

    async def _read_by_function(
        self, name: str, keys: Sequence[str], args: Sequence[str | int]
    ) -> bytes:
        """Have the operators' function run a script, if it is this version's."""
        if await self.client.fcall_ro("fb_version", 0) != library_version().encode():
            raise CoordinatorError(
                f"the functions {LIBRARY} of the server at {self.address} are another version's,"
                " and this user may run no others; ask with that version, let a member of this one"
                " join, or grant +evalsha_ro +eval_ro."
            )
        tag, what = keys[0].partition("{")[2].partition("}")[0], name.partition("/")[2]
        return bytes(await self.client.fcall_ro("fb_read", 0, tag, "", "", "", what, *args))


def _heartbeat_timeout(settings: MemberSettings) -> float:
    """Return how long a heartbeat waits for its answer: two more fit into the TTL after it."""
    return min(SOCKET_TIMEOUT_SECONDS, settings.ttl_seconds / 3)


async def _started(server: EmbeddedServer) -> str:
    """Start an embedded server and return its URL; a cancelled start leaves none behind."""
    starting = asyncio.ensure_future(asyncio.to_thread(server.start))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait({starting})  # a thread cannot be cancelled
        await asyncio.to_thread(server.stop)
        raise
