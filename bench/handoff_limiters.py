"""A process of the hand-off: its share of the waiters, and what they wait for."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final, Protocol

from bench.harness import Orders, told
from bench.holds import Hold
from bench.raw import FifoLimiter, PublishProbe, open_raw
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.outcomes import SUCCESS
from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController

PROVIDER_MODEL: Final = ProviderModelKey(provider_name="bench", model_id="handoff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One process's part of one limiter's turn, by CLOCK_MONOTONIC.

    Attributes:
        limiter: whose turn it is.
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
        to_process: whose channel.
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


class Limiter(Protocol):
    """What is compared."""

    async def acquire(self) -> Any:
        """Wait for a slot; returns what ``release`` needs."""
        ...

    async def release(self, token: Any) -> None:
        """Give the slot back; returns once that is acknowledged."""
        ...


class ForebayLimiter:
    """The controller as a limiter."""

    def __init__(self, controller: AdaptiveRequestAdmissionController) -> None:
        self._controller = controller
        self._resource = RequestResourceKey(provider_model=PROVIDER_MODEL)

    async def acquire(self) -> RequestAdmissionLease:
        return await self._controller.acquire(RequestAdmissionItem(resource=self._resource))

    async def release(self, token: RequestAdmissionLease) -> None:
        await self._controller.release(token, SUCCESS)


class SemaphoreLimiter:
    """``asyncio.Semaphore``: one process, no server."""

    def __init__(self, cap: int) -> None:
        self._semaphore = asyncio.Semaphore(cap)

    async def acquire(self) -> None:
        await self._semaphore.acquire()

    async def release(self, _token: Any) -> None:
        self._semaphore.release()


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
    """Return the delays of what reached this process in the counted time, in seconds."""

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


async def serve(orders: Orders, url: str, cap: int) -> None:
    """Take turns until the orders end."""
    async with await Coordinator.open(url) as coordinator:
        client = open_raw(coordinator.address)
        controller = AdaptiveRequestAdmissionController(coordinator)
        await controller.register(PROVIDER_MODEL, "bench", cap, told(cap))
        fifo = FifoLimiter(client, cap)
        probe = PublishProbe(client, orders.process)
        await fifo.open()
        await probe.open()
        limiters: dict[str, Limiter] = {
            "forebay": ForebayLimiter(controller),
            "semaphore": SemaphoreLimiter(cap),
            "fifo": fifo,
        }
        async for order in orders:
            match order:
                case Turn():
                    orders.answer(
                        await _hold_in_turn(limiters[order.limiter], orders.process, order)
                    )
                case PublishTurn():
                    orders.answer(await _publish(probe, order))
        await fifo.close()
        await probe.close()
        await client.aclose()
        await controller.close()
