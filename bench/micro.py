"""Micro: what acquire and release cost, beside a raw pair of scripts (spec 08, scenario 1)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

from bench import InvariantBrokenError, loop_name, new_event_loop
from bench.raw import RawPair
from contracts.identity import ProviderModelKey, RequestResourceKey
from contracts.requests import SUCCESS, RequestAdmissionItem
from coordinator.coordinator import Coordinator
from coordinator.embedded import EmbeddedServer
from coordinator.requests.controller import AdaptiveRequestAdmissionController
from coordinator.requests.snapshots import RequestPressureSnapshotProvider

PROVIDER_MODEL: Final = ProviderModelKey(provider_name="bench", model_id="micro")
CAP: Final = 1000
"""Above what is in flight: nobody waits for a slot, so what is measured is the call."""

Pair = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroInputs:
    """What a run of the scenario is given, in pairs of acquire and release."""

    rounds: int = 5
    alone_pairs: int = 1000
    in_flight_pairs: int = 8192


def derive(iterations: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the medians over the rounds, and Forebay relative to raw by round."""
    derived = {name: median(round_[name] for round_ in iterations) for name in iterations[0]}

    def ratio(one: str, other: str) -> float:
        return median(round_[one] / round_[other] for round_ in iterations)

    return derived | {
        "alone_time_to_raw": ratio("forebay_alone_ms", "raw_alone_ms"),
        "64_rate_to_raw": ratio("forebay_64_pairs_per_second", "raw_64_pairs_per_second"),
        "256_rate_to_raw": ratio("forebay_256_pairs_per_second", "raw_64_pairs_per_second"),
    }


async def _pairs_per_second(pair: Pair, tasks: int, pairs: int) -> float:
    async def repeat() -> None:
        for _ in range(pairs // tasks):
            await pair()

    start = time.perf_counter()
    await asyncio.gather(*(repeat() for _ in range(tasks)))
    return pairs // tasks * tasks / (time.perf_counter() - start)


async def _round(forebay: Pair, raw: Pair, inputs: MicroInputs, number: int) -> dict[str, float]:
    cases = [
        ("forebay_alone", forebay, 1),
        ("raw_alone", raw, 1),
        ("forebay_64", forebay, 64),
        ("raw_64", raw, 64),
        ("forebay_256", forebay, 256),
    ]
    found: dict[str, float] = {}
    # every other round backwards: neither is always measured after the other
    for name, pair, tasks in cases if number % 2 else reversed(cases):
        pairs = inputs.alone_pairs if tasks == 1 else inputs.in_flight_pairs
        rate = await _pairs_per_second(pair, tasks, pairs)
        if tasks == 1:
            found[f"{name}_ms"] = 1e3 / rate
        else:
            found[f"{name}_pairs_per_second"] = rate
    return found


async def _measure(url: str, inputs: MicroInputs, progress: Callable[[str], None]) -> Any:
    async with await Coordinator.open(url) as coordinator:
        controller = AdaptiveRequestAdmissionController(coordinator)
        await controller.register(PROVIDER_MODEL, "bench", CAP)
        resource = RequestResourceKey(provider_model=PROVIDER_MODEL)
        scripts = RawPair(coordinator.client)
        await scripts.load()

        async def forebay() -> None:
            lease = await controller.acquire(RequestAdmissionItem(resource=resource))
            await controller.release(lease, SUCCESS)

        async def raw() -> None:
            await scripts.release(await scripts.acquire())

        await _round(forebay, raw, MicroInputs(alone_pairs=100, in_flight_pairs=1024), 0)  # warm-up
        iterations = []
        for number in range(inputs.rounds):
            found = await _round(forebay, raw, inputs, number)
            iterations.append(found)
            progress(
                f"micro round {number + 1}/{inputs.rounds}: alone {found['forebay_alone_ms']:.2f}"
                f" ms (raw {found['raw_alone_ms']:.2f} ms),"
                f" 64 in flight {found['forebay_64_pairs_per_second']:.0f}/s"
                f" (raw {found['raw_64_pairs_per_second']:.0f}/s)"
            )
        audit = await RequestPressureSnapshotProvider(coordinator).audit(PROVIDER_MODEL)
        await controller.close()
    return iterations, audit.model_dump(mode="json")


def run(inputs: MicroInputs, progress: Callable[[str], None]) -> dict[str, Any]:
    """Run the scenario on an embedded server, in this process, and return its artifact.

    Raises:
        InvariantBrokenError: the books do not agree afterwards.
    """
    with EmbeddedServer() as server, asyncio.Runner(loop_factory=new_event_loop) as runner:
        iterations, audit = runner.run(_measure(server.url, inputs, progress))
    if not audit["ok"]:
        raise InvariantBrokenError(
            f"the books of {PROVIDER_MODEL} do not agree: {audit}; expected no difference; this is"
            " a defect, please report it."
        )
    return {
        "scenario_id": "micro",
        "scenario_version": 1,
        "inputs": asdict(inputs) | {"cap": CAP, "loop": loop_name()},
        "iterations": iterations,
        "derived_metrics": derive(iterations),
        "final_request_snapshot": {"audit": audit},
    }
