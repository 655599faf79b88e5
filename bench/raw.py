"""What Forebay is measured against: scripts and messages that do the least, over redis-py.

The client is redis-py's with the settings of Forebay's own connections (no socket timeout, no
health check; both are redis-py's defaults): a timeout per reply alone costs a third of the rate.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

import redis.asyncio as aioredis

from forebay.coordinator.server.address import ServerAddress
from forebay.coordinator.server.connections import open_async

RAW_ACQUIRE: Final = """
local now = redis.call('TIME')
local cap = redis.call('HGET', KEYS[1], 'cap')
if redis.call('ZCARD', KEYS[2]) >= tonumber(cap) then
  return 0
end
redis.call('ZADD', KEYS[2], now[1], ARGV[1])
redis.call('HINCRBY', KEYS[1], 'granted', 1)
redis.call('PEXPIRE', KEYS[2], 60000)
return 1
"""
"""Six commands: what any script does that takes a slot with an expiry."""

RAW_RELEASE: Final = """
local now = redis.call('TIME')
local removed = redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HINCRBY', KEYS[1], 'released', removed)
redis.call('HSET', KEYS[1], 'released_at', now[1])
return {removed, redis.call('ZCARD', KEYS[2])}
"""
"""Five commands: gives the slot back."""

FIFO_ACQUIRE: Final = """
if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[1]) then
  redis.call('INCR', KEYS[1])
  return 1
end
redis.call('RPUSH', KEYS[2], ARGV[2])
return 0
"""

FIFO_RELEASE: Final = """
local next = redis.call('LPOP', KEYS[2])
if next then
  local channel, ticket = next:match('^(%S+) (%S+)$')
  redis.call('PUBLISH', channel, ticket)
else
  redis.call('DECR', KEYS[1])
end
return 1
"""
"""Hands the slot to the first in line and tells the process it waits in."""


def open_raw(address: ServerAddress) -> aioredis.Redis:
    """Return the client to measure with, for calls and subscriptions; its opener closes it."""
    return open_async(address, socket_timeout_seconds=None, health_check_seconds=0)


class RawPair:
    """A pair of scripts, 6 and 5 commands, one round trip each: the floor of acquire and release.

    Args:
        client: the client to call over; closed by its owner.
        cap: the most slots.
    """

    def __init__(self, client: aioredis.Redis, cap: int) -> None:
        self._client: Any = client  # redis-py types its async calls as maybe synchronous
        self._cap = cap
        self._keys = ("bench:raw:meta", "bench:raw:slots")
        self._owner = secrets.token_hex(4)
        self._tickets = itertools.count()
        self._acquire = self._release = ""

    async def load(self) -> None:
        """Load the scripts, so that each call is one EVALSHA, and set the cap."""
        self._acquire = await self._client.script_load(RAW_ACQUIRE)
        self._release = await self._client.script_load(RAW_RELEASE)
        await self._client.hset(self._keys[0], "cap", self._cap)

    async def acquire(self) -> str:
        """Take a slot; returns its ticket.

        Raises:
            RuntimeError: none is free.
        """
        ticket = f"{self._owner}{next(self._tickets)}"
        if not await self._client.evalsha(self._acquire, 2, *self._keys, ticket):
            raise RuntimeError(
                f"all {self._cap} raw slots are taken; expected a free one; raise the cap."
            )
        return ticket

    async def release(self, ticket: str) -> None:
        """Give it back."""
        await self._client.evalsha(self._release, 2, *self._keys, ticket)


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


class FifoLimiter:
    """A cap with a FIFO list and PUBLISH: no fairness, no window, no recovery from a dead holder.

    Args:
        client: for the scripts and the subscription; closed by its owner.
        cap: the most holders over all processes.
    """

    def __init__(self, client: aioredis.Redis, cap: int) -> None:
        self._client: Any = client  # as above
        self._cap = cap
        self._channel = f"bench:fifo:{secrets.token_hex(6)}"
        self._subscription = Subscription(client, self._channel, self._granted)
        self._keys = ("bench:fifo:held", "bench:fifo:queue")
        self._tickets = itertools.count()
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        self._acquire = self._release = ""

    async def open(self) -> None:
        """Load the scripts and listen."""
        self._acquire = await self._client.script_load(FIFO_ACQUIRE)
        self._release = await self._client.script_load(FIFO_RELEASE)
        await self._subscription.open()

    async def close(self) -> None:
        """Stop listening."""
        await self._subscription.close()

    async def acquire(self) -> None:
        """Wait in line for a slot."""
        ticket = b"%d" % next(self._tickets)
        # before the call, as the message may overtake the reply
        granted = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        place = f"{self._channel} {ticket.decode()}"
        if not await self._client.evalsha(self._acquire, 2, *self._keys, self._cap, place):
            await granted
        del self._waiting[ticket]

    async def release(self, _token: Any) -> None:
        """Hand the slot on."""
        await self._client.evalsha(self._release, 2, *self._keys)

    def _granted(self, ticket: bytes) -> None:
        self._waiting[ticket].set_result(None)


class PublishProbe:
    """How long a bare PUBLISH takes to run a task of another process.

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
