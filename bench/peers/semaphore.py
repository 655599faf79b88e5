"""``asyncio.Semaphore``: one process and no server, which no coordination can beat by much."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bench.peers.limiter import Limiter, Setting


class _SemaphoreLimiter:
    def __init__(self, cap: int) -> None:
        self._semaphore = asyncio.Semaphore(cap)

    async def acquire(self) -> None:
        await self._semaphore.acquire()

    async def release(self, _token: Any) -> None:
        self._semaphore.release()


class InProcessSemaphore:
    """The standard library's, which knows of no other process."""

    name = "semaphore"
    said = "asyncio.Semaphore of one process"

    def version(self) -> str:
        return ""

    @asynccontextmanager
    async def open(self, setting: Setting) -> AsyncIterator[Limiter]:
        yield _SemaphoreLimiter(setting.cap)
