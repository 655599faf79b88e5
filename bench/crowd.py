"""Crowd: 100,000 waiters of one tenant in one process, and the rates of other tenants.

Three tenants of equal weight share a cap. Each has a few callers that hold a slot for a moment,
again and again; ``crowd`` and ``beside`` are of one process, ``apart`` is of another. Then
``crowd`` asks for as many leases as its waiters are, as fast as it can, and goes on. Meanwhile
its process has no time to spare and holds its slots for longer; the shares are what counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.figures import Figure, Iterations, middle, of_rounds, ratios
from bench.harness import (
    Fleet,
    Orders,
    Outcome,
    Progress,
    final_snapshots,
    new_runner,
    repeat,
    told,
    wait_for_state,
)
from forebay.contracts.errors import ForebayError
from forebay.contracts.identity import ProviderModelKey, RequestGroupSpec, RequestResourceKey
from forebay.contracts.outcomes import SUCCESS
from forebay.contracts.requests import RequestAdmissionItem
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection

PROVIDER_MODEL: Final = ProviderModelKey(provider_name="bench", model_id="crowd")
RESOURCE: Final = RequestResourceKey(provider_model=PROVIDER_MODEL)
CROWD, BESIDE, APART = "crowd", "beside", "apart"
TENANTS: Final = ((CROWD, BESIDE), (APART,))
"""The tenants of each process."""
CALLERS_PER_TURN: Final = 100
ENTER_SECONDS: Final = 600.0
"""Longest time for all of a crowd to ask, on a busy machine."""
PHASES: Final = {"entering": "while they ask", "waiting": "while they wait"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Parameters of one benchmark.

    Attributes:
        waiters: of the crowd.
        cap: the most holders.
        callers: of each tenant, before the crowd comes.
        hold_seconds: what a caller sleeps with its lease.
        seconds: that each phase is measured.
        rounds: how often it is measured.
    """

    waiters: int = 100_000
    cap: int = 16
    callers: int = 16
    hold_seconds: float = 0.05
    seconds: float = 10.0
    rounds: int = 3


FULL: Final = Inputs()
SMOKE: Final = Inputs(waiters=500, seconds=0.5, rounds=1)


class Tenants:
    """The callers of one process."""

    def __init__(self, controller: AdaptiveRequestAdmissionController, inputs: Inputs) -> None:
        self.granted: Counter[str] = Counter()
        self._controller = controller
        self._inputs = inputs
        self._calls: set[asyncio.Task[None]] = set()

    async def begin(self, tenant: str, callers: int) -> None:
        """Let so many callers of a tenant begin, a few in each turn of the loop.

        A program that begins all in one turn stands still for seconds, with the leases that it has.
        """
        for begun in range(0, callers, CALLERS_PER_TURN):
            count = min(CALLERS_PER_TURN, callers - begun)
            self._calls |= {asyncio.create_task(self._call(tenant)) for _ in range(count)}
            await asyncio.sleep(0)

    async def end(self) -> None:
        """End all callers, and release their leases."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        self._calls.clear()

    async def measure(self, seconds: float) -> dict[str, float]:
        """Return the grants to each tenant within a time."""
        before = Counter(self.granted)
        await asyncio.sleep(seconds)
        return {tenant: float(self.granted[tenant] - before[tenant]) for tenant in self.granted}

    async def _call(self, tenant: str) -> None:
        group = RequestGroupSpec(key=tenant)
        while True:
            with contextlib.suppress(ForebayError):
                item = RequestAdmissionItem(resource=RESOURCE, group=group)
                lease = await self._controller.acquire(item)
                self.granted[tenant] += 1
                try:
                    await asyncio.sleep(self._inputs.hold_seconds)
                finally:
                    self._controller.release(lease, SUCCESS)


async def _serve(orders: Orders, url: str, inputs: Inputs) -> None:
    async with await ServerConnection.open(url) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        await controller.register(PROVIDER_MODEL, "bench", inputs.cap, told(inputs.cap))
        tenants = Tenants(controller, inputs)
        beginning: set[asyncio.Task[None]] = set()
        async for order in orders:
            match order:
                case ["begin", tenant, callers]:
                    beginning.add(asyncio.create_task(tenants.begin(tenant, callers)))
                    orders.answer(None)
                case ["measure", seconds]:
                    found = await tenants.measure(seconds)
                    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                    orders.answer(found | {"rss_mb": kilobytes / 1024})
                case _:
                    await tenants.end()
                    orders.answer(None)
        await controller.close()


def _phase(fleet: Fleet, seconds: float, name: str) -> dict[str, float]:
    """Measure in all processes; the grants per second of each tenant, and of all."""
    order = ["measure", seconds]
    first, second = fleet.ask({0: order, 1: order})
    rates = {t: (first | second).get(t, 0.0) / seconds for t in (CROWD, BESIDE, APART)}
    total = sum(rates.values())
    return {f"{name}.{tenant}": rate for tenant, rate in rates.items()} | {
        f"{name}.total": total,
        f"{name}.fair": total / len(rates),
        f"{name}.rss_mb": first["rss_mb"],
    }


def _round(url: str, inputs: Inputs) -> dict[str, float]:
    async def waits(observer: Any) -> bool:
        snapshot = await observer.global_snapshot(PROVIDER_MODEL)
        return bool(snapshot.waiters >= inputs.waiters)

    async def until_they_wait() -> None:
        async with await ServerConnection.open(url) as connection:
            observer = RequestPressureSnapshotProvider(connection)
            what = f"{inputs.waiters} waiters"
            await wait_for_state(lambda: waits(observer), what, ENTER_SECONDS)

    with Fleet(2, _serve, url, inputs) as fleet, new_runner() as runner:
        for process, tenants in enumerate(TENANTS):
            for tenant in tenants:
                fleet.ask({process: ["begin", tenant, inputs.callers]})
        found = _phase(fleet, inputs.seconds, "before")
        fleet.ask({0: ["begin", CROWD, inputs.waiters]})
        found |= _phase(fleet, inputs.seconds, "entering")
        runner.run(until_they_wait())
        found |= _phase(fleet, inputs.seconds, "waiting")
        fleet.ask({0: ["end"], 1: ["end"]})
    return found


def figures(inputs: Inputs, found: Iterations) -> list[Figure]:
    """Return the used share of the capacity, and of each other tenant's third of it."""
    rows = []
    for phase, when in PHASES.items():
        rows.append(
            Figure(
                name=f"grants of all {when}, to those before",
                rounds=ratios(found, f"{phase}.total", "before.total"),
                aim=0.8 if phase == "waiting" else None,
                is_floor=True,
                beside=f"{middle(found, 'before.total', '/s')} before",
            )
        )
        for tenant, where in ((BESIDE, "the same process"), (APART, "another process")):
            rows.append(
                Figure(
                    name=f"grants of a tenant in {where} {when}, to its share",
                    rounds=ratios(found, f"{phase}.{tenant}", f"{phase}.fair"),
                    aim=0.9,
                    is_floor=True,
                    beside=f"{middle(found, f'{phase}.{tenant}', '/s')} granted",
                )
            )
    rows.append(
        Figure(
            name=f"memory of a process with {inputs.waiters} waiters",
            rounds=of_rounds(found, "waiting.rss_mb"),
            unit="MB",
            beside=f"{middle(found, 'before.rss_mb', 'MB')} before",
        )
    )
    return rows


def run(inputs: Inputs, progress: Progress) -> Outcome:
    """Run the scenario on an embedded server.

    Raises:
        InvariantBrokenError: something was left behind.
    """
    with EmbeddedServer() as server:
        iterations = repeat(
            "crowd", inputs.rounds, lambda _number: _round(server.url, inputs), progress
        )
        snapshots = final_snapshots(server.url, PROVIDER_MODEL)
    return Outcome(
        inputs=asdict(inputs),
        iterations=iterations,
        figures=figures(inputs, iterations),
        final_request_snapshots=snapshots,
    )
