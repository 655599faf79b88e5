"""What Forebay is measured against: scripts that do the least, over the same redis-py client."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from typing import Any, Final

import redis.asyncio as aioredis

RAW_ACQUIRE: Final = """
local now = redis.call('TIME')
local cap = redis.call('HGET', KEYS[1], 'cap')
local held = redis.call('ZCARD', KEYS[2])
redis.call('ZADD', KEYS[2], now[1], ARGV[1])
redis.call('HINCRBY', KEYS[1], 'granted', 1)
redis.call('PEXPIRE', KEYS[2], 60000)
return {held, cap}
"""
"""Six commands: what any script does that takes a lease with an expiry."""

RAW_RELEASE: Final = """
local now = redis.call('TIME')
local removed = redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HINCRBY', KEYS[1], 'released', removed)
redis.call('HSET', KEYS[1], 'released_at', now[1])
redis.call('PUBLISH', KEYS[3], ARGV[1])
return removed
"""
"""Five commands: gives the lease back and tells a channel."""

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


class RawPair:
    """A pair of scripts, 6 and 5 commands, one round trip each: the floor of acquire and release.

    Args:
        client: the client to call over; closed by its owner.
    """

    def __init__(self, client: aioredis.Redis) -> None:
        self._client: Any = client  # redis-py types its async calls as maybe synchronous
        self._keys = tuple(f"bench:raw:{part}" for part in ("meta", "leases", "channel"))
        self._tickets = itertools.count()
        self._acquire = self._release = ""

    async def load(self) -> None:
        """Load the scripts, so that each call is one EVALSHA."""
        self._acquire = await self._client.script_load(RAW_ACQUIRE)
        self._release = await self._client.script_load(RAW_RELEASE)

    async def acquire(self) -> int:
        """Take a lease that is never refused; returns its ticket."""
        ticket = next(self._tickets)
        await self._client.evalsha(self._acquire, 3, *self._keys, ticket)
        return ticket

    async def release(self, ticket: int) -> None:
        """Give it back."""
        await self._client.evalsha(self._release, 3, *self._keys, ticket)


class FifoLimiter:
    """A cap with a FIFO list and PUBLISH: no fairness, no window, no recovery from a dead holder.

    Args:
        client: for the scripts; closed by its owner.
        patient_client: for the subscription, so without a socket timeout; closed by its owner.
        cap: the most holders over all processes.
    """

    def __init__(self, client: aioredis.Redis, patient_client: aioredis.Redis, cap: int) -> None:
        self._client: Any = client  # as above
        self._cap = cap
        self._pubsub: Any = patient_client.pubsub(ignore_subscribe_messages=True)
        self._channel = f"bench:fifo:{secrets.token_hex(6)}"
        self._keys = ("bench:fifo:held", "bench:fifo:queue")
        self._tickets = itertools.count()
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        self._acquire = self._release = ""
        self._reader: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Load the scripts and listen."""
        self._acquire = await self._client.script_load(FIFO_ACQUIRE)
        self._release = await self._client.script_load(FIFO_RELEASE)
        await self._pubsub.subscribe(self._channel)
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def close(self) -> None:
        """Stop listening."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        await self._pubsub.aclose()

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

    async def _read(self) -> None:
        async for message in self._pubsub.listen():
            self._waiting[message["data"]].set_result(None)
