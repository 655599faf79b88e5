"""The processes of the jobs scenario: workers, and one that submits; each takes orders."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from bench.harness import Orders
from bench.peers.job_library import Running
from bench.peers.registry import JOBS, installed

SUBMITS_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Start a worker of a library; answered when it runs."""

    library: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Answered with how many jobs have started in this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End the worker; answered with the instants at which its jobs started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Submit jobs; answered when all are there.

    The answer is the instants just before each submit; of those that go all together, none.

    Attributes:
        library: through which.
        count: how many.
        pause_seconds: between one and the next; None for all together.
    """

    library: str
    count: int
    pause_seconds: float | None = None


Order = Start | Count | Stop | Submit


async def serve(orders: Orders, url: str) -> None:
    """Carry out orders until they end."""
    for library in ("saq", "taskiq"):  # they warn of the idle tasks that their stop cancels
        logging.getLogger(library).setLevel(logging.ERROR)
    worker: Running | None = None
    async for order in orders:
        match order:
            case Start():
                worker = await installed(JOBS)[order.library].start(url)
                orders.answer(None)
            case Count() if worker is not None:
                orders.answer(await worker.count())
            case Stop() if worker is not None:
                orders.answer(await worker.stop())
            case Submit():
                orders.answer(await _submit(url, order))
            case _:
                raise TypeError(f"{order!r} cannot be carried out now.")


async def _submit(url: str, order: Submit) -> list[float]:
    submitter = await installed(JOBS)[order.library].submitter(url)
    submitted_at = []
    if order.pause_seconds is None:
        for first in range(0, order.count, SUBMITS_AT_ONCE):
            numbers = range(first, min(order.count, first + SUBMITS_AT_ONCE))
            await asyncio.gather(*(submitter.submit(number) for number in numbers))
    else:
        for number in range(order.count):
            await asyncio.sleep(order.pause_seconds)
            submitted_at.append(await submitter.submit(number))
    await submitter.close()
    return submitted_at
