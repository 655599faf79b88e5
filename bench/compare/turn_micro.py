"""A turn of micro: a fixed number of pairs of acquire and release, alone and many in flight."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

import redis

from bench.compare.callgrind import counted_server
from bench.compare.counters import counted
from bench.figures import in_ms, p95
from bench.harness import STARTUP_SECONDS, Fleet, Orders, final_snapshots, new_runner, told
from bench.micro import ALONE, CAP, PROVIDER_MODEL, Load
from forebay.contracts.identity import RequestResourceKey
from forebay.contracts.outcomes import SUCCESS
from forebay.contracts.requests import RequestAdmissionItem
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection

LOADS: Final = (ALONE, Load(1, 64), Load(2, 64))
PATIENT: Final = MemberSettings(ttl_seconds=600.0, recheck_seconds=60.0, call_timeout_seconds=60.0)
"""No heartbeat falls into a turn, and a server under callgrind may take its time."""
RESOURCE: Final = RequestResourceKey(provider_model=PROVIDER_MODEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Parameters of a turn: the number of pairs of each process.

    Attributes:
        alone: one after the other.
        in_flight: many at a time.
        counted_alone: one after the other, while instructions are counted.
        counted_in_flight: many at a time, while instructions are counted.
    """

    alone: int = 1_000
    in_flight: int = 12_800
    counted_alone: int = 200
    counted_in_flight: int = 1_280

    def pairs(self, load: Load) -> int:
        """Return how many pairs each process of a load runs."""
        return self.alone if load == ALONE else self.in_flight


FULL: Final = Inputs()
SMOKE: Final = Inputs(alone=20, in_flight=128, counted_alone=10, counted_in_flight=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """One process's part: so many pairs, so many in flight, from an instant of CLOCK_MONOTONIC."""

    count: int
    in_flight: int
    start: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """Times of pairs: each pair's seconds, the last one's end, this process's CPU."""

    durations: list[float]
    end: float
    cpu_seconds: float


async def run_pairs(controller: AdaptiveRequestAdmissionController, pairs: Pairs) -> Took:
    """Run pairs, ``in_flight`` at a time, each slot the next one as soon as it is free."""
    durations: list[float] = []
    left: Iterator[int] = iter(range(pairs.count))

    async def repeat_pair() -> None:
        for _ in left:
            began = time.monotonic()
            lease = await controller.acquire(RequestAdmissionItem(resource=RESOURCE))
            await controller.release(lease, SUCCESS)
            durations.append(time.monotonic() - began)

    await asyncio.sleep(pairs.start - time.monotonic())
    cpu = time.process_time()
    await asyncio.gather(*(repeat_pair() for _ in range(pairs.in_flight)))
    return Took(durations=durations, end=time.monotonic(), cpu_seconds=time.process_time() - cpu)


async def _serve(orders: Orders, url: str) -> None:
    async with await ServerConnection.open(url, PATIENT) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        await controller.register(PROVIDER_MODEL, "bench", CAP, told(CAP))
        async for pairs in orders:
            orders.answer(await run_pairs(controller, pairs))
        await controller.close()


def _measure(fleet: Fleet, client: redis.Redis, load: Load, count: int) -> dict[str, float]:
    before = counted(client)
    start = time.monotonic() + STARTUP_SECONDS
    pairs = Pairs(count=count, in_flight=load.in_flight, start=start)
    answers: list[Took] = fleet.ask(dict.fromkeys(range(load.processes), pairs))
    costs = counted(client).since(before)
    durations = [seconds for took in answers for seconds in took.durations]
    return {
        f"{load}.pairs_per_second": len(durations) / (max(t.end for t in answers) - start),
        f"{load}.client_cpu_us": sum(t.cpu_seconds for t in answers) / len(durations) * 1e6,
        **in_ms(durations, {f"{load}.mean_ms": fmean, f"{load}.p95_ms": p95}),
        **costs.per(len(durations), str(load)),
    }


def timed(inputs: Inputs) -> dict[str, Any]:
    """Measure every load, after a tenth of it that does not count."""
    measures: dict[str, float] = {}
    processes = max(load.processes for load in LOADS)
    with EmbeddedServer() as server, redis.Redis.from_url(server.url) as client:
        with Fleet(processes, _serve, server.url) as fleet:
            for load in LOADS:
                _measure(fleet, client, load, inputs.pairs(load) // 10)
                measures |= _measure(fleet, client, load, inputs.pairs(load))
        snapshots = final_snapshots(server.url, PROVIDER_MODEL)
    return {"measures": measures, "final_request_snapshot": snapshots}


async def _run_alone(url: str, pairs: Pairs) -> None:
    async with await ServerConnection.open(url, PATIENT) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        await controller.register(PROVIDER_MODEL, "bench", CAP, told(CAP))
        await run_pairs(controller, pairs)
        await controller.close()


def instructions(inputs: Inputs) -> dict[str, Any]:
    """Count the instructions of a pair, alone and with 64 in flight, on a server each."""
    measures = {}
    for load, count in (
        (ALONE, inputs.counted_alone),
        (Load(1, 64), inputs.counted_in_flight),
    ):
        with counted_server() as server, new_runner() as runner:
            pairs = Pairs(count=count, in_flight=load.in_flight, start=time.monotonic())
            runner.run(_run_alone(server.url, pairs))
        measures[f"{load}.instructions"] = server.instructions / count
    return {"measures": measures}
