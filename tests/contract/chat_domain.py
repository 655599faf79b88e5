"""The chat domain of one model, as tests of whole programs ask of it and look at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import forebay
from forebay.contracts.snapshots import DomainSnapshot
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection
from tests.support import wait_until

MODEL = forebay.ProviderModelKey(provider_name="p", model_id="m")
CHAT = forebay.RequestResourceKey(provider_model=MODEL)


def item(**fields: Any) -> forebay.RequestAdmissionItem:
    return forebay.RequestAdmissionItem(resource=CHAT, **fields)


def is_idle(seen: DomainSnapshot) -> bool:
    return seen.in_flight_count == seen.waiters == 0


def counts(seen: DomainSnapshot) -> dict[str, int]:
    """How many leases ended in which way."""
    return {str(kind): count for kind, count in seen.outcomes.items() if count}


async def when(
    connection: ServerConnection,
    wanted: Callable[[DomainSnapshot], bool],
    resource: forebay.RequestResourceKey = CHAT,
) -> DomainSnapshot:
    """Wait until a domain is as wanted, its books in order: what was released has arrived."""
    pressure = RequestPressureSnapshotProvider(connection)

    async def is_wanted() -> bool:
        return wanted(await pressure.snapshot(resource))

    await wait_until(is_wanted)
    assert (await pressure.audit(resource.provider_model)).ok
    return await pressure.snapshot(resource)


def see(url: str, wanted: Callable[[DomainSnapshot], bool]) -> DomainSnapshot:
    """Do as ``when``, in a thread without a loop."""

    async def look() -> DomainSnapshot:
        async with await ServerConnection.open(url) as connection:
            return await when(connection, wanted)

    return asyncio.run(look())


@contextmanager
def joined(url: str, cap: int) -> Iterator[forebay.BlockingRequestAdmissionController]:
    with forebay.connect(url) as requests:
        assert requests.register(MODEL, "mine", cap) == cap
        yield requests
