"""The index of all shards, which every member adds its shards to (`SHARDS_KEY`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis.exceptions import RedisError

from forebay.coordinator.keys import SHARDS_KEY
from forebay.coordinator.logs import Logger
from forebay.coordinator.server.node import Node
from forebay.coordinator.supervision import Background, Guard, pause_seconds

TRY_SECONDS: Final = 5.0
"""Bound of one try to write to the index."""

log = Logger("forebay.coordinator")


class ShardIndex:
    """Adds tags of shards to the index.

    Args:
        ask: calls the server that has a key, as `ServerConnection.ask`.
        most_doublings: how often the pause between two tries is doubled.
    """

    def __init__(
        self,
        ask: Callable[[str, Callable[[Node], Awaitable[Any]]], Awaitable[Any]],
        most_doublings: int,
    ) -> None:
        self._ask = ask
        self._most_doublings = most_doublings
        self._tags: set[str] = set()
        self._adding = Background("forebay-shard-index", self._add_all, Guard(log))

    async def add(self, tag: str, *, wait: bool) -> None:
        """Add a shard's tag.

        Args:
            tag: the shard's.
            wait: whether to return when it is there. On a cluster the index may be on another node
                than the shard, which must not wait for that node.

        Raises:
            RedisError, OSError: no answer; only where it waits.
        """
        if wait:
            await self._ask(SHARDS_KEY, lambda node: node.patient.sadd(SHARDS_KEY, tag))
            return
        self._tags.add(tag)
        self._adding.start()

    async def stop(self) -> None:
        """Add nothing more."""
        await self._adding.stop()

    async def _add_all(self) -> None:
        failures = 0
        while self._tags:
            tags = sorted(self._tags)
            try:
                async with asyncio.timeout(TRY_SECONDS):
                    await self._ask(SHARDS_KEY, lambda node: node.client.sadd(SHARDS_KEY, *tags))  # noqa: B023 - awaited at once
            except (RedisError, OSError) as error:
                if not failures:
                    log.warning("shards_not_listed_yet", shards=tags, error=str(error)[:200])
                failures += 1
                await asyncio.sleep(pause_seconds(failures, self._most_doublings))
            else:
                self._tags.difference_update(tags)
                failures = 0
