"""The subscriber: one connection per process and server, on which members are woken.

A message is a hint; the state of the shard is the truth (spec 06, *Wake-ups*).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio as aioredis
from redis.backoff import EqualJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.logs import Logger
from forebay.coordinator.wire import Wire, open_wire

log = Logger("forebay.wakeups")


@dataclass(slots=True, kw_only=True)
class _Listener:
    on_message: Callable[[bytes], None]
    on_resumed: Callable[[], None]
    confirmed: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Subscriber:
    """Hands each channel's messages to its listener, and reconnects by itself.

    Args:
        client: whose pool makes the connection.
    """

    def __init__(self, client: aioredis.Redis) -> None:
        self._client = client
        self._listeners: dict[bytes, _Listener] = {}
        self._wire: Wire | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._failures = 0
        self._connecting = asyncio.Lock()  # two first subscribers would open two connections

    async def subscribe(
        self, channel: str, on_message: Callable[[bytes], None], on_resumed: Callable[[], None]
    ) -> None:
        """Listen on a channel; returns once the server has confirmed it.

        Args:
            channel: its name.
            on_message: told each message.
            on_resumed: told when listening goes on after a gap, in which messages may be lost.

        Raises:
            RedisError, OSError: the server could not be reached.
            ConfigurationError: its user may not listen on the channel.
        """
        listener = _Listener(on_message=on_message, on_resumed=on_resumed)
        self._listeners[channel.encode()] = listener
        if self._wire is not None:
            self._wire.write("SUBSCRIBE", channel)
        else:
            await self._connect()
        try:
            await listener.confirmed
        except asyncio.CancelledError:
            self._drop()  # nothing came: the next try takes another connection
            raise

    def unsubscribe(self, channel: str) -> None:
        """Stop listening on a channel."""
        if self._listeners.pop(channel.encode(), None) and self._wire is not None:
            self._wire.write("UNSUBSCRIBE", channel)

    async def close(self) -> None:
        """Stop listening."""
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reconnecting
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
            self._on_lost(RedisConnectionError("the subscriber's connection was dropped"))

    async def _connect(self) -> None:
        async with self._connecting:
            if self._wire is None:
                self._wire = await open_wire(self._client, self._on_message, self._on_lost)
                if self._listeners:
                    self._wire.write("SUBSCRIBE", *self._listeners)

    def _on_message(self, message: Any) -> None:
        if not isinstance(message, list):  # an error reply, such as a channel that ACL forbids
            log.warning("subscriber_refused", error=str(message)[:200])
            for refused in self._listeners.values():
                if not refused.confirmed.done():
                    refused.confirmed.set_exception(
                        ConfigurationError(
                            f"the server refused to let this user listen ({message}); grant it"
                            " &fb:* +@pubsub, or name another user in the URL."
                        )
                    )
            return
        kind, channel, payload = message
        listener = self._listeners.get(channel)
        if listener is None:
            return
        if kind == b"message":
            listener.on_message(payload)
        elif kind == b"subscribe":
            self._failures = 0
            if listener.confirmed.done():
                listener.on_resumed()
            else:
                listener.confirmed.set_result(None)

    def _on_lost(self, error: Exception) -> None:
        self._wire = None
        log.debug("subscriber_reconnects", error=type(error).__name__)
        if self._reconnecting is None or self._reconnecting.done():
            self._reconnecting = asyncio.get_running_loop().create_task(
                self._reconnect(), name="forebay-wakeups"
            )

    async def _reconnect(self) -> None:
        backoff = EqualJitterBackoff(cap=1.0, base=0.02)
        while self._wire is None:
            self._failures += 1
            if self._failures > 1:
                await asyncio.sleep(backoff.compute(self._failures - 1))
            with contextlib.suppress(RedisError, OSError):
                await self._connect()
                return
