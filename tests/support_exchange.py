"""A driver on a server, from joining to leaving, with the books looked at in the end."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import forebay
from forebay.contracts.snapshots import DomainSnapshot
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.chat_domain import CHAT, MODEL, counts, is_idle, when
from tests.support_drivers import Driver, client_for, driver
from tests.support_raw_provider import RawProvider


@dataclass(kw_only=True)
class Exchanges:
    """What a test of transports works with.

    Attributes:
        driver: calls the provider.
        requests: the controller below it.
        provider: answers.
        outcomes: how the leases ended, once the block is left.
    """

    driver: Driver
    requests: Any
    provider: RawProvider
    connection: ServerConnection
    outcomes: dict[str, int]

    async def ended(self) -> dict[str, int]:
        """Return how the leases ended, once none is out."""
        return counts(await when(self.connection, is_idle, CHAT))

    async def level(self, budget: forebay.QuotaBudget) -> float:
        """Return what is left of a quota; all there is where nobody has told of it."""
        shard = await RequestPressureSnapshotProvider(self.connection).global_snapshot(MODEL)
        levels = {bucket.budget: bucket.level for bucket in shard.budgets}
        return levels.get(budget, math.inf)

    async def when_collected(self) -> None:
        """Collect garbage until no lease is out.

        Once is not enough: what an event loop must close by itself is freed a turn later.
        """

        def nothing_is_out(seen: DomainSnapshot) -> bool:
            gc.collect()
            return seen.in_flight_count == 0

        await when(self.connection, nothing_is_out)

    async def when(self, in_flight: int) -> DomainSnapshot:
        """Wait until so many leases are out."""
        return await when(self.connection, lambda seen: seen.in_flight_count == in_flight)

    async def when_waiting(self, waiters: int) -> DomainSnapshot:
        """Wait until so many wait."""
        return await when(self.connection, lambda seen: seen.waiters == waiters)


@asynccontextmanager
async def exchanging(
    name: str,
    redis_url: str,
    provider: RawProvider,
    *,
    cap: int = 8,
    config: forebay.RequestAdmissionConfig | None = None,
    max_retries: int = 0,
    **options: Any,
) -> AsyncIterator[Exchanges]:
    """Join, register MODEL, and leave; in the end no lease and no waiter may be left."""
    block = forebay.connect(redis_url)
    is_sync = name.endswith("-sync")
    outcomes: dict[str, int] = {}
    async with await ServerConnection.open(redis_url) as connection, asyncio.timeout(30):
        if is_sync:
            requests: Any = await asyncio.to_thread(block.__enter__)
            await asyncio.to_thread(requests.register, MODEL, "mine", cap, config)
        else:
            requests = await block.__aenter__()
            await requests.register(MODEL, "mine", cap, config)
        client = client_for(name, requests, provider, **options)
        exchanges = Exchanges(
            driver=driver(name, client, provider.base_url, max_retries),
            requests=requests,
            provider=provider,
            connection=connection,
            outcomes=outcomes,
        )
        try:
            yield exchanges
            outcomes |= await exchanges.ended()
        finally:
            await exchanges.driver.aclose()
            if is_sync:
                await asyncio.to_thread(block.__exit__, None, None, None)
            else:
                await block.__aexit__(None, None, None)


async def outcomes_on(redis_url: str) -> dict[str, int]:
    """Return how the leases on a server ended, once none is out."""
    async with await ServerConnection.open(redis_url) as connection:
        return counts(await when(connection, is_idle))
