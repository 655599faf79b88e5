"""self-limiters: a semaphore in Redis with its client in Rust, by a list and BLPOP.

A lone pair is three calls: a script that makes the list, BLPOP, and a pipeline that pushes the slot
back. There is no fairness by weight, no window, and no recovery from a dead holder.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from bench.peers.limiter import Limiter, Setting, installed_version

LONGEST_WAIT_SECONDS: Final = 600
"""Longer than any turn: no wait ends with an error, and the list outlives each pause."""


class _SelfLimiter:
    def __init__(self, semaphore: Any) -> None:
        self._semaphore = semaphore

    async def acquire(self) -> None:
        await self._semaphore.__aenter__()

    async def release(self, _token: Any) -> None:
        await self._semaphore.__aexit__(None, None, None)


class SelfLimiters:
    """The package's semaphore, one a process, with a connection for each caller.

    A caller that waits keeps its connection; of the usual fifteen none would be left to the others.
    """

    name = "self_limiters"
    said = "self-limiters"

    def version(self) -> str | None:
        return installed_version("self-limiters")

    @asynccontextmanager
    async def open(self, setting: Setting) -> AsyncIterator[Limiter]:
        package = importlib.import_module("self_limiters")
        yield _SelfLimiter(
            package.Semaphore(
                name="bench",
                capacity=setting.cap,
                max_sleep=LONGEST_WAIT_SECONDS,
                expiry=LONGEST_WAIT_SECONDS,
                redis_url=setting.url,
                connection_pool_size=setting.callers,
            )
        )
