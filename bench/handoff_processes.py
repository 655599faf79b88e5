"""One process of the hand-off benchmark: its share of the waiters, and the limiters."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from bench.harness import Orders
from bench.holds import Hold
from bench.peers.limiter import Limiter, Setting, all_open
from bench.peers.registry import HAND_OFFS, installed
from bench.raw import PublishProbe, open_raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One process's part in measuring one limiter; instants are of CLOCK_MONOTONIC.

    Attributes:
        limiter: name of the limiter that is measured.
        waiters: the numbers of its waiters.
        hold_seconds: what each hold sleeps.
        arrival_seconds: between the first calls of a waiter and the next one.
        start: when the first waiter comes.
        end: when none asks any more.
    """

    limiter: str
    waiters: range
    hold_seconds: float
    arrival_seconds: float
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishTurn:
    """One process's part of the bare hand-offs: tasks that sleep and PUBLISH to another process.

    Attributes:
        tasks: how many; 0 only listens.
        to_process: the process whose channel gets the messages.
        pause_seconds: what each sleeps before each message.
        start: when they begin.
        counted_from: since when delays count.
        end: when they stop.
    """

    tasks: int
    to_process: int
    pause_seconds: float
    start: float
    counted_from: float
    end: float


async def _hold_in_turn(limiter: Limiter, process: int, turn: Turn) -> list[Hold]:
    holds: list[Hold] = []

    async def wait_and_hold(waiter: int) -> None:
        await asyncio.sleep(turn.start + waiter * turn.arrival_seconds - time.monotonic())
        while time.monotonic() < turn.end:
            token = await limiter.acquire()
            start = time.monotonic()
            await asyncio.sleep(turn.hold_seconds)
            end = time.monotonic()
            holds.append(Hold(process=process, waiter=waiter, start=start, end=end))
            await limiter.release(token)

    await asyncio.gather(*(wait_and_hold(waiter) for waiter in turn.waiters))
    return holds


async def _publish(probe: PublishProbe, turn: PublishTurn) -> list[float]:
    """Return the delays, in seconds, of the messages that arrived in the counted time."""

    async def sleep_and_publish() -> None:
        while time.monotonic() < turn.end:
            await asyncio.sleep(turn.pause_seconds)
            await probe.publish(turn.to_process)

    await asyncio.sleep(turn.start - time.monotonic())
    publishing = [asyncio.create_task(sleep_and_publish()) for _ in range(turn.tasks)]
    await asyncio.sleep(turn.counted_from - time.monotonic())
    probe.delays.clear()
    await asyncio.sleep(turn.end - time.monotonic())
    delays = list(probe.delays)
    await asyncio.gather(*publishing)
    return delays


async def serve(orders: Orders, setting: Setting, names: tuple[str, ...]) -> None:
    """Take turns until the orders end; ``names`` are those of the limiters to open."""
    peers = installed(HAND_OFFS)
    async with (
        open_raw(setting.url) as client,
        all_open([peers[name] for name in names], setting) as limiters,
    ):
        probe = PublishProbe(client, orders.process)
        await probe.open()
        async for order in orders:
            match order:
                case Turn():
                    limiter = limiters[order.limiter]
                    orders.answer(await _hold_in_turn(limiter, orders.process, order))
                case PublishTurn():
                    orders.answer(await _publish(probe, order))
        await probe.close()
