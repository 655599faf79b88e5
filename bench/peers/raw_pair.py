"""A pair of scripts, 6 and 5 commands, a round trip each: the least of acquire and release."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import redis.asyncio as aioredis

from bench.peers.limiter import Limiter, Setting
from bench.raw import open_raw

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
        """Release the slot."""
        await self._client.evalsha(self._release, 2, *self._keys, ticket)


class RawScripts:
    """The raw pair over redis-py, as a peer."""

    name = "raw"
    said = "a raw pair of scripts"

    def version(self) -> str:
        return ""

    @asynccontextmanager
    async def open(self, setting: Setting) -> AsyncIterator[Limiter]:
        async with open_raw(setting.url) as client:
            pair = RawPair(client, setting.cap)
            await pair.load()
            yield pair
