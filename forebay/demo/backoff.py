"""The demo's calls with exponential back-off alone: the same provider, as many callers, no leases.

Each caller does what SDKs do by themselves: a refused call sleeps for the provider's hint, or
twice as long as before, and tries again. No caller knows of the others.
"""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import TYPE_CHECKING, Final

from forebay.demo.scenario import (
    CAPACITY,
    DROP_AT,
    DROPPED_CAPACITY,
    DROPPED_FOR_SECONDS,
    PROVIDER,
    SLOTS_PER_WORKER,
    WORKERS,
    Observations,
    take_log,
)
from forebay.mock_provider.server import MockProviderServer

if TYPE_CHECKING:
    import httpx2

SHORTEST_SECONDS: Final = 0.5
LONGEST_SECONDS: Final = 8.0
REFUSED: Final = 429
TIMEOUT_SECONDS: Final = 60.0


class BackoffRun:
    """Makes ``calls`` calls from as many callers as the demo's workers have slots."""

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._done = 0
        self._next = 0
        self._random = Random(7)  # noqa: S311 - repeatable on purpose
        self._seen = Observations()

    async def run(self) -> Observations:
        """Run it to the end and return what the provider saw."""
        import httpx2  # noqa: PLC0415 - an extra

        with MockProviderServer(PROVIDER, seed=7) as provider:
            self._started = time.monotonic() - provider.state.elapsed_seconds()
            limits = httpx2.Limits(max_connections=None)
            async with (
                httpx2.AsyncClient(
                    base_url=provider.base_url, limits=limits, timeout=TIMEOUT_SECONDS
                ) as client,
                asyncio.TaskGroup() as group,
            ):
                group.create_task(self._change(provider))
                for _ in range(WORKERS * SLOTS_PER_WORKER):
                    group.create_task(self._call_on(client))
            take_log(provider, self._seen)
        return self._seen

    async def _call_on(self, client: httpx2.AsyncClient) -> None:
        while self._next < self._calls:
            self._next += 1
            await self._call(client, f"message {self._next}")
            self._done += 1

    async def _call(self, client: httpx2.AsyncClient, message: str) -> None:
        body = {"model": "mock-large", "messages": [{"role": "user", "content": message}]}
        longest = SHORTEST_SECONDS
        while (answer := await client.post("chat/completions", json=body)).status_code == REFUSED:
            hint = answer.headers.get("retry-after-ms")
            pause = longest * (1 - 0.25 * self._random.random())
            await asyncio.sleep(pause if hint is None else int(hint) / 1000)
            longest = min(LONGEST_SECONDS, 2 * longest)
        answer.raise_for_status()

    async def _change(self, provider: MockProviderServer) -> None:
        while self._done < DROP_AT * self._calls:  # noqa: ASYNC110 - as the demo looks
            await asyncio.sleep(0.1)
        for before, after in ((CAPACITY, DROPPED_CAPACITY), (DROPPED_CAPACITY, CAPACITY)):
            await asyncio.to_thread(provider.change_truth, concurrency=after)
            now = time.monotonic() - self._started
            self._seen.notes.append((now, f"capacity {before} -> {after}"))
            if after == DROPPED_CAPACITY:
                await asyncio.sleep(DROPPED_FOR_SECONDS)
