"""Detects a failover where the old primary is silent and its connections stay open.

Sentinels are asked who the primary is whenever a call stays unanswered, so that a stopped or
unreachable primary is left as soon as there is another (design 06, *Where it runs*).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import RedisError

from forebay.coordinator.logs import Logger
from forebay.coordinator.server.slots import Peer
from forebay.coordinator.supervision import Background, Guard

SILENT_SECONDS: Final = 0.25
"""Sentinels are asked at this interval while a call stays unanswered for as long."""
LONGEST_QUESTION_SECONDS: Final = 1.0
DOUBLINGS: Final = 4
"""Doublings of the pause between two tries to connect: up to a third of a second."""

log = Logger("forebay.channel")


class Failover:
    """Asks Sentinels, while a server is silent, whether another one has become the primary.

    Args:
        pool: asyncio's, of the primary that Sentinels name.

    Attributes:
        on_moved: each called when there is another primary.
        primary: its host and port; None before there was another one.
    """

    def __init__(self, pool: Any) -> None:
        self.on_moved: set[Callable[[], None]] = set()
        self.primary: Peer | None = None
        self._pool = pool
        self._guard = Guard(log)
        self._query = Background("forebay-failover", self._ask, self._guard)
        self._silent: Peer | None = None

    def suspect(self, peer: Peer) -> None:
        """Start asking the Sentinels whether a silent server is replaced, unless under way."""
        self._silent = peer
        self._query.start()

    async def stop(self) -> None:
        """Stop asking."""
        await self._query.stop()

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(LONGEST_QUESTION_SECONDS):
                primary = await self._pool.get_master_address()
        except (RedisError, OSError):
            return  # no primary, or no Sentinel: asked again while the call is unanswered
        if primary == self._silent:
            return
        self.primary = primary
        log.warning("primary_moved", primary=f"{primary[0]}:{primary[1]}")
        for callback in list(self.on_moved):
            self._guard.call(callback)
