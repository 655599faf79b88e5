"""A cap with a FIFO list in Redis and PUBLISH: the least that hands a slot on between processes.

Acquire is one script: it counts a slot up, or appends the caller's channel and ticket to the list.
Release is one script: it takes the first of the list and publishes the ticket on its channel, or
counts the slot down. Each process listens to one channel and wakes the caller of the ticket.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import redis.asyncio as aioredis

from bench.peers.limiter import Limiter, Setting
from bench.raw import Subscription, open_raw

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
"""Script that hands the slot to the first in line and publishes to its process."""


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


class BareFifo:
    """The FIFO list over redis-py, as a peer."""

    name = "fifo"
    said = "a bare FIFO list"

    def version(self) -> str:
        return ""

    @asynccontextmanager
    async def open(self, setting: Setting) -> AsyncIterator[Limiter]:
        async with open_raw(setting.url) as client:
            limiter = FifoLimiter(client, setting.cap)
            await limiter.open()
            yield limiter
            await limiter.close()
