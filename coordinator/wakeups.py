"""The subscriber: one connection per process and server, on which members are woken.

A message is a hint; the state of the shard is the truth (spec 06, *Wake-ups*).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any

import redis.asyncio as aioredis
import structlog
from redis.exceptions import RedisError

Handler = Callable[[bytes], None]

log = structlog.get_logger("forebay.wakeups")


class Subscriber:
    """Hands each channel's messages to its handler, and reconnects by itself."""

    def __init__(self, client: aioredis.Redis) -> None:
        # Any: parts of redis-py's PubSub have no types
        self._pubsub: Any = client.pubsub(ignore_subscribe_messages=False)
        self._handlers: dict[bytes, Handler] = {}
        self._confirmed: dict[bytes, asyncio.Event] = {}
        self._reader: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()  # two first subscribers would open two connections

    async def subscribe(self, channel: str, handler: Handler) -> None:
        """Listen on a channel; returns once the server has confirmed it.

        Raises:
            RedisError, OSError: the server could not be reached.
        """
        name = channel.encode()
        self._handlers[name] = handler
        confirmed = self._confirmed.setdefault(name, asyncio.Event())
        async with self._connecting:
            await self._pubsub.subscribe(channel)
        if self._reader is None:
            self._reader = asyncio.get_running_loop().create_task(
                self._read(), name="forebay-wakeups"
            )
        await confirmed.wait()

    async def unsubscribe(self, channel: str) -> None:
        """Stop listening on a channel."""
        self._handlers.pop(channel.encode(), None)
        self._confirmed.pop(channel.encode(), None)
        with contextlib.suppress(RedisError, OSError):
            await self._pubsub.unsubscribe(channel)

    async def close(self) -> None:
        """Stop listening."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        await self._pubsub.aclose()

    async def _read(self) -> None:
        pause = 0.0
        while True:
            try:
                message = await self._pubsub.parse_response(block=True)
                pause = 0.0
            except (RedisError, OSError) as error:
                pause = min(1.0, max(0.05, pause * 2))
                log.debug("subscriber_reconnects", error=type(error).__name__)
                await asyncio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311
                with contextlib.suppress(RedisError, OSError):
                    await self._pubsub.connect()
                continue
            if message is None:
                continue
            self._deliver(message)

    def _deliver(self, message: list[bytes]) -> None:
        kind, channel = message[0], message[1]
        if kind == b"message":
            handler = self._handlers.get(channel)
            if handler is not None:
                handler(message[2])
        elif kind == b"subscribe" and channel in self._confirmed:
            self._confirmed[channel].set()
