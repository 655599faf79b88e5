"""What transports do in the background gives leases back and is said where it raises."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from structlog.testing import capture_logs

from forebay.coordinator.requests.threads import LoopCaller
from forebay.transports import streams, waits
from forebay.transports.lanes import Exchange
from forebay.transports.streams import AsyncBody, Dropped
from forebay.transports.waits import LongWaits
from tests.support import wait_until

SECRET = "a secret"  # no line of a traceback quotes it, only the message does


class Lease(Exchange):
    """An exchange that counts how often it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.times_closed = 0

    @property
    def is_closed(self) -> bool:
        return self.times_closed > 0

    def closed(self) -> None:
        self.times_closed += 1


class Body:
    """A body that cannot be closed."""

    async def aclose(self) -> None:
        raise ValueError(SECRET)

    def close(self) -> None:
        raise ValueError(SECRET)


@pytest.fixture(autouse=True)
def _own_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams._guard, "_said_at", {})


def said(logs: list[Any]) -> list[str]:
    assert SECRET not in str(logs)
    return [entry["event"] for entry in logs]


async def test_a_dropped_body_that_cannot_be_closed_gives_its_lease_back_and_is_said() -> None:
    lease = Lease()
    with capture_logs() as logs:
        body = AsyncBody(Body(), lease)
        del body
        gc.collect()
        await wait_until(lambda: lease.is_closed)
        await wait_until(lambda: not streams._closing)
    assert said(logs) == ["unexpected_exception"]


async def test_a_dropped_body_whose_closing_is_cancelled_gives_its_lease_back() -> None:
    lease = Lease()
    streams._close_soon(asyncio.get_running_loop(), Body(), lease)
    for task in list(streams._closing):
        task.cancel()
    await wait_until(lambda: lease.is_closed)


def test_dropped_bodies_of_threads_are_all_closed_though_one_cannot_be() -> None:
    dropped, leases = Dropped(), [Lease(), Lease()]
    for lease in leases:
        dropped.add(Body(), lease)
    with capture_logs() as logs:
        dropped.close()
    assert [lease.times_closed for lease in leases] == [1, 1]
    assert said(logs) == ["unexpected_exception"]


async def test_a_long_wait_is_told_again_though_that_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waits, "LONG_WAIT_SECONDS", 0.0)
    told: list[int] = []

    def raise_at_first() -> None:
        told.append(1)
        if len(told) < 3:
            raise ValueError(SECRET)

    long_waits = LongWaits(raise_at_first)
    with capture_logs() as logs:
        wait = long_waits.begin(LoopCaller())
        await wait_until(lambda: len(told) > 3)
        long_waits.end(wait)
    assert said(logs) == ["unexpected_exception"]
