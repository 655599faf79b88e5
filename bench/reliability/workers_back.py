"""Counts how workers come back to a server that was away: links, wake-ups, heartbeats, commands."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from arq.worker import func

from forebay.coordinator.server.address import UnixAddress
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.urls import parse_url
from forebay.workers.arq.open_worker import open_worker
from tests.support import wait_until

BUCKET_SECONDS: Final = 0.1
START_SECONDS: Final = 120.0


async def _echo(_context: Any) -> None:
    return None


echo: Any = _echo  # arq's types know a coroutine function by its exact arguments


async def workers_come_back(
    workers: int, away_seconds: float, seen_seconds: float = 3.0
) -> list[int]:
    """Return how many tries to connect workers made in each tenth of a second after an outage.

    The server dies under all of them at one instant. Then it takes their connections and closes
    each, so that all try again: the worst that a server which is starting can do.
    """
    with EmbeddedServer() as server:
        address = parse_url(server.url)
        assert isinstance(address, UnixAddress)
        made = [
            await open_worker(
                server.url,
                functions=[func(echo, name="echo")],
                handle_signals=False,
                allow_abort_jobs=True,
            )
            for _ in range(workers)
        ]
        runs = [asyncio.create_task(worker.async_run()) for worker in made]
        is_up = lambda: all(worker.scheduler._puller is not None for worker in made)  # noqa: E731
        await wait_until(is_up, START_SECONDS)
        server.kill()
        Path(address.path).unlink(missing_ok=True)  # noqa: ASYNC240 - a local socket
        await asyncio.sleep(away_seconds)
        counts: Counter[int] = Counter()
        began_at = time.monotonic()

        def accepted(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            counts[int((time.monotonic() - began_at) / BUCKET_SECONDS)] += 1
            writer.close()

        async with await asyncio.start_unix_server(accepted, address.path):
            await asyncio.sleep(seen_seconds)
            await asyncio.gather(*(worker.close() for worker in made))
        for run in runs:
            with contextlib.suppress(asyncio.CancelledError):
                await run
    return [counts[bucket] for bucket in range(round(seen_seconds / BUCKET_SECONDS))]
