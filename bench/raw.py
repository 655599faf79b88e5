"""Messages over redis-py with its defaults: no timeout of the socket and no health check.

Forebay's own connections have neither; a timeout per reply alone costs a third of the rate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import redis.asyncio as aioredis


def open_raw(url: str) -> aioredis.Redis:
    """Return the client to measure with, for calls and subscriptions; its opener closes it."""
    client: aioredis.Redis = aioredis.Redis.from_url(url)
    return client


class Subscription:
    """A channel of this process and a task that reads it.

    Args:
        client: closed by its owner.
        channel: which.
        on_message: called in the reading task with each payload.
    """

    def __init__(
        self, client: aioredis.Redis, channel: str, on_message: Callable[[bytes], None]
    ) -> None:
        self._pubsub: Any = client.pubsub(ignore_subscribe_messages=True)
        self._channel = channel
        self._on_message = on_message
        self._reader: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen."""
        await self._pubsub.subscribe(self._channel)
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def close(self) -> None:
        """Stop listening."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        await self._pubsub.aclose()

    async def _read(self) -> None:
        async for message in self._pubsub.listen():
            self._on_message(message["data"])


class PublishProbe:
    """Measures the time from a bare PUBLISH to the task that it wakes in another process.

    Args:
        client: for PUBLISH and the subscription; closed by its owner.
        process: the number of this process, which names its channel.
    """

    def __init__(self, client: aioredis.Redis, process: int) -> None:
        self._client: Any = client  # as above
        self._subscription = Subscription(client, self._channel_of(process), self._heard)
        self.delays: list[float] = []

    async def open(self) -> None:
        """Listen."""
        await self._subscription.open()

    async def close(self) -> None:
        """Stop listening."""
        await self._subscription.close()

    async def publish(self, process: int) -> None:
        """Tell a process, in the message, the instant just before the call."""
        await self._client.publish(self._channel_of(process), repr(time.monotonic()))

    def _heard(self, payload: bytes) -> None:
        self.delays.append(time.monotonic() - float(payload))

    @staticmethod
    def _channel_of(process: int) -> str:
        return f"bench:probe:{process}"
