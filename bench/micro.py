"""Micro: the cost of acquire and release, beside a raw pair of scripts and self-limiters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from statistics import fmean, median
from typing import Final, NamedTuple

from bench.figures import Figure, Iterations, in_ms, middle, of_rounds, p95, ratios
from bench.harness import (
    STARTUP_SECONDS,
    Fleet,
    Orders,
    Outcome,
    Progress,
    final_snapshots,
    repeat,
    rotated,
)
from bench.peers.limiter import Limiter, Setting, all_open
from bench.peers.registry import PAIRS, installed, missing
from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.server.embedded import EmbeddedServer

PROVIDER_MODEL: Final = ProviderModelKey(provider_name="bench", model_id="micro")
CAP: Final = 1000
"""Cap above all calls in flight, so that no call waits for a slot."""

SAID: Final = {"raw": "raw pairs", "self_limiters": "pairs of self-limiters"}

Pair = Callable[[], Awaitable[None]]


class Load(NamedTuple):
    """A load: number of processes, and of attempts in flight in each."""

    processes: int
    in_flight: int

    def __str__(self) -> str:
        return f"{self.processes}x{self.in_flight}"


ALONE: Final = Load(1, 1)
LOADS: Final = (ALONE, Load(1, 64), Load(1, 256), Load(2, 64), Load(4, 64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The parameters of a run of the scenario.

    Attributes:
        rounds: how often every load is put on Forebay and on each peer.
        seconds: the counted time of each turn.
        warm_up_seconds: of each turn, before it.
    """

    rounds: int = 5
    seconds: float = 1.0
    warm_up_seconds: float = 0.25


FULL: Final = Inputs()
SMOKE: Final = Inputs(rounds=1, seconds=0.1, warm_up_seconds=0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One process's part of one turn: repeat pairs, by CLOCK_MONOTONIC."""

    limiter: str
    in_flight: int
    start: float
    counted_from: float
    end: float


async def _turn(pair: Pair, order: Order) -> list[float]:
    """Return how long each pair took that ended in the counted time, in seconds."""
    durations: list[float] = []

    async def repeat_pair() -> None:
        while (began := time.monotonic()) < order.end:
            await pair()
            if order.counted_from <= (ended := time.monotonic()) < order.end:
                durations.append(ended - began)

    await asyncio.sleep(order.start - time.monotonic())
    await asyncio.gather(*(repeat_pair() for _ in range(order.in_flight)))
    return durations


async def _serve(orders: Orders, setting: Setting) -> None:
    async with all_open(list(installed(PAIRS).values()), setting) as limiters:

        async def pair(limiter: Limiter) -> None:
            await limiter.release(await limiter.acquire())

        async for order in orders:
            orders.answer(await _turn(partial(pair, limiters[order.limiter]), order))


def _measure(fleet: Fleet, limiter: str, load: Load, inputs: Inputs) -> dict[str, float]:
    start = time.monotonic() + STARTUP_SECONDS
    counted_from = start + inputs.warm_up_seconds
    order = Order(
        limiter=limiter,
        in_flight=load.in_flight,
        start=start,
        counted_from=counted_from,
        end=counted_from + inputs.seconds,
    )
    answers = fleet.ask(dict.fromkeys(range(load.processes), order))
    durations = [duration for answer in answers for duration in answer]
    name = f"{limiter}.{load}"
    rate = {f"{name}.pairs_per_second": len(durations) / inputs.seconds}
    return rate | in_ms(
        durations, {f"{name}.mean_ms": fmean, f"{name}.p50_ms": median, f"{name}.p95_ms": p95}
    )


def _round(fleet: Fleet, inputs: Inputs, number: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for load in rotated(LOADS, number):
        # next to each other, so that a slow moment of the machine meets both
        for limiter in rotated(list(installed(PAIRS)), number):
            found |= _measure(fleet, limiter, load, inputs)
    return found


def _rate_figure(found: Iterations, load: Load) -> Figure:
    raw = middle(found, f"raw.{load}.pairs_per_second", "pairs/s")
    process = "process" if load.processes == 1 else "processes"
    return Figure(
        name=f"{load.in_flight} in flight in {load.processes} {process}",
        rounds=of_rounds(found, f"forebay.{load}.pairs_per_second"),
        unit="pairs/s",
        beside=f"raw {raw}",
    )


def figures(found: Iterations) -> list[Figure]:
    """Return the figures of a call with the aims of issues 3 and 15."""

    def alone(measure: str, aim: float | None, peer: str = "raw") -> Figure:
        ours, theirs = f"forebay.{ALONE}.{measure}", f"{peer}.{ALONE}.{measure}"
        return Figure(
            name=f"pair alone, {measure.removesuffix('_ms')}, in {SAID[peer]}",
            rounds=ratios(found, ours, theirs),
            aim=aim,
            beside=f"{middle(found, ours, 'ms')} / {middle(found, theirs, 'ms')}",
        )

    def rate(name: str, one: str, other: str, aim: float | None) -> Figure:
        one, other = f"{one}.pairs_per_second", f"{other}.pairs_per_second"
        return Figure(
            name=name,
            rounds=ratios(found, one, other),
            aim=aim,
            is_floor=True,
            beside=f"{middle(found, one, 'pairs/s')} / {middle(found, other, 'pairs/s')}",
        )

    return [
        alone("mean_ms", 1.4),
        alone("p50_ms", None),
        alone("p95_ms", None),
        alone("mean_ms", 1.0, "self_limiters"),
        *(_rate_figure(found, load) for load in LOADS[1:]),
        rate("64 in flight in 1 process, to raw", "forebay.1x64", "raw.1x64", 2.5),
        rate(
            "64 in flight in 1 process, to self-limiters",
            "forebay.1x64",
            "self_limiters.1x64",
            1.0,
        ),
        rate("256 in flight, to raw with 64", "forebay.1x256", "raw.1x64", None),
        rate("256 in flight, to 64", "forebay.1x256", "forebay.1x64", 1.0),
        rate("2 processes, to 1", "forebay.2x64", "forebay.1x64", 1.0),
        rate("4 processes, to 1", "forebay.4x64", "forebay.1x64", None),
    ]


def run(inputs: Inputs, progress: Progress) -> Outcome:
    """Run the scenario on an embedded server.

    Raises:
        InvariantBrokenError: something was left behind.
    """
    for sentence in missing(PAIRS):
        progress(f"micro: {sentence}")
    with EmbeddedServer() as server:
        setting = Setting(
            url=server.url,
            cap=CAP,
            callers=max(load.in_flight for load in LOADS),
            provider_model=PROVIDER_MODEL,
        )
        with Fleet(max(load.processes for load in LOADS), _serve, setting) as fleet:
            iterations = repeat(
                "micro", inputs.rounds, lambda number: _round(fleet, inputs, number), progress
            )
        snapshots = final_snapshots(server.url, PROVIDER_MODEL)
    return Outcome(
        inputs=asdict(inputs) | {"cap": CAP, "loads": [str(load) for load in LOADS]},
        iterations=iterations,
        figures=figures(iterations),
        final_request_snapshots=snapshots,
    )
