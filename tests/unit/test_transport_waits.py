"""Calls that wait long while this process holds streams that it dropped (docs/adr/0008)."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import pytest

from forebay.coordinator.requests.threads import LoopCaller
from forebay.transports import waits
from forebay.transports.waits import (
    LEAST_PAUSE_SECONDS,
    LONG_WAIT_SECONDS,
    PAUSED_SECONDS,
    LongWaits,
    OpenBodies,
)
from tests.support import wait_until


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Collector:
    """Counts collections, each of which takes some time."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.times = 0
        self._clock = clock
        self._seconds = seconds

    def __call__(self) -> None:
        self.times += 1
        self._clock.now += self._seconds


class Body:
    def __init__(self, paused_since: float) -> None:
        self.paused_since = paused_since


@pytest.mark.parametrize(
    ("paused_for", "collections"), [(-math.inf, 0), (0.0, 0), (PAUSED_SECONDS, 1)]
)
def test_only_a_body_that_is_paused_for_long_is_worth_a_collection(
    paused_for: float, collections: int
) -> None:
    clock = Clock()
    collector = Collector(clock, 0.0)
    bodies = OpenBodies(clock, collector)
    bodies.free_dropped()
    body = Body(clock.now - paused_for)
    bodies.opened(body)
    bodies.free_dropped()
    assert collector.times == collections
    bodies.closed(body)
    clock.now += 1000 * LEAST_PAUSE_SECONDS
    bodies.free_dropped()
    assert collector.times == collections


@pytest.mark.parametrize(
    ("took", "pause"), [(0.001, LEAST_PAUSE_SECONDS), (1.0, 100.0)], ids=["quick", "slow"]
)
def test_collections_are_seldom_and_the_more_so_the_longer_they_take(
    took: float, pause: float
) -> None:
    clock = Clock()
    collector = Collector(clock, took)
    bodies = OpenBodies(clock, collector)
    bodies.opened(Body(0.0))
    for _ in range(3):  # two, for what the first one finds may hold what the second one finds
        bodies.free_dropped()
    clock.now += pause - 0.01
    bodies.free_dropped()
    assert collector.times == 2
    clock.now += 0.02
    bodies.free_dropped()
    assert collector.times == 3


class Loop:
    """Notes what is called later, and calls it when it is told to."""

    def __init__(self) -> None:
        self.later: list[Any] = []

    def call_later(self, _seconds: float, callback: Any) -> None:
        self.later.append(callback)

    def turn(self) -> None:
        later, self.later = self.later, []
        for callback in later:
            callback()


def test_a_wait_is_told_of_once_it_is_long_and_for_as_long_as_it_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, loop, told = Clock(), Loop(), []
    monkeypatch.setattr(waits, "asyncio", SimpleNamespace(get_running_loop=lambda: loop))
    caller: Any = SimpleNamespace(soon=lambda callback: callback())
    long_waits = LongWaits(lambda: told.append(clock.now), clock)
    first = long_waits.begin(caller)
    second = long_waits.begin(caller)
    assert len(loop.later) == 1
    loop.turn()
    assert told == []
    clock.now += LONG_WAIT_SECONDS
    long_waits.end(first)
    loop.turn()
    loop.turn()
    assert told == [clock.now] * 2
    long_waits.end(second)
    loop.turn()
    assert (told, loop.later) == ([clock.now] * 2, [])
    long_waits.begin(caller)
    assert len(loop.later) == 1


async def test_a_wait_in_a_thread_is_told_of_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "LONG_WAIT_SECONDS", 0.0)
    told: list[object] = []
    long_waits = LongWaits(lambda: told.append(asyncio.get_running_loop()))
    wait = await asyncio.to_thread(long_waits.begin, LoopCaller())
    await wait_until(lambda: told)
    long_waits.end(wait)
    assert set(told) == {asyncio.get_running_loop()}
