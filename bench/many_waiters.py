"""Many waiters: the cost of an acquire beside thousands of waiters, and beside ten.

Two provider/models on one server. In each a crowd waits, all of one process: of each group nine in
a domain that cools down and one in a domain that is full. The measured attempts are another
process's, in domains of their own and in the crowd's.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Final, Self

from bench.figures import Figure, Iterations, in_ms, middle, p95, ratios
from bench.harness import (
    Fleet,
    Orders,
    Outcome,
    Progress,
    final_snapshots,
    new_runner,
    repeat,
    rotated,
    told,
    wait_for_state,
)
from forebay.contracts.identity import (
    ProviderModelKey,
    RequestDomain,
    RequestGroupSpec,
    RequestResourceKey,
)
from forebay.contracts.outcomes import SUCCESS, RequestOutcomeKind, RequestReleaseOutcome
from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection

CAP: Final = 1_000_000_000
COOLING, FULL_UP = RequestDomain.CHAT, RequestDomain.IMAGE
FREE, ONE_SLOT = RequestDomain.EMBEDDING, RequestDomain.HEALTHCHECK
CONFIG: Final = told(CAP).model_copy(update={"max_limit_clamps": {FULL_UP: 1, ONE_SLOT: 1}})
LONG_COOLDOWN: Final = RequestReleaseOutcome(
    kind=RequestOutcomeKind.RATE_LIMITED, retry_after_seconds=300.0
)
CROWD_SETTINGS: Final = MemberSettings(recheck_seconds=60.0, call_timeout_seconds=60.0)
"""Settings of a crowd that makes no calls of its own during the measurement."""
FEW, MANY = "few", "many"
GROUP_SIZE: Final = 10
CASES: Final = {
    "granted": "acquire that is granted",
    "granted_of_crowd": "acquire that is granted, of a group that waits elsewhere",
    "handed_on": "acquire that waits for the next release",
    "joins_and_leaves": "acquire that joins the crowd and is cancelled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The parameters of a run of the scenario.

    Attributes:
        few: waiters of the one shard, in groups of ten.
        many: waiters of the other, in groups of ten.
        rounds: how often each case is measured on both shards.
        attempts: measured attempts of each case, shard and round.
    """

    few: int = 10
    many: int = 10_000
    rounds: int = 5
    attempts: int = 500


FULL: Final = Inputs()
SMOKE: Final = Inputs(many=300, rounds=1, attempts=30)


def shard_of(size: str) -> ProviderModelKey:
    """Return the provider/model where few or many wait."""
    return ProviderModelKey(provider_name="bench", model_id=f"{size}-waiters")


def item_of(size: str, domain: RequestDomain, group: int | None = None) -> RequestAdmissionItem:
    """Return a new attempt there."""
    return RequestAdmissionItem(
        resource=RequestResourceKey(provider_model=shard_of(size), domain=domain),
        group=RequestGroupSpec(key=None if group is None else f"tenant-{group}"),
    )


async def _gather_crowd(
    controller: AdaptiveRequestAdmissionController, size: str, waiters: int
) -> list[asyncio.Task[RequestAdmissionLease]]:
    await controller.register(shard_of(size), "crowd", CAP, CONFIG)
    refused = await controller.acquire(item_of(size, COOLING))
    await controller.release(refused, LONG_COOLDOWN)
    await controller.acquire(item_of(size, FULL_UP))
    items = [
        item_of(size, FULL_UP if number % GROUP_SIZE == 0 else COOLING, number // GROUP_SIZE)
        for number in range(waiters)
    ]
    return [asyncio.create_task(controller.acquire(item)) for item in items]


async def _serve_crowds(orders: Orders, url: str, inputs: Inputs) -> None:
    async with await ServerConnection.open(url, CROWD_SETTINGS) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        provider = RequestPressureSnapshotProvider(connection)
        crowd: list[asyncio.Task[RequestAdmissionLease]] = []
        for size, waiters in ((FEW, inputs.few), (MANY, inputs.many)):
            crowd += await _gather_crowd(controller, size, waiters)

            async def all_wait(size: str = size, waiters: int = waiters) -> bool:
                return (await provider.global_snapshot(shard_of(size))).waiters == waiters

            await wait_for_state(all_wait, f"{waiters} waiters")
        async for _order in orders:
            orders.answer(None)
        await controller.close()
        await asyncio.gather(*crowd, return_exceptions=True)


class Newcomer:
    """The measured process, which acquires beside the crowd."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._controller = AdaptiveRequestAdmissionController(connection)

    @classmethod
    async def join(cls, url: str) -> Self:
        """Take part in both shards."""
        self = cls(await ServerConnection.open(url))
        for size in (FEW, MANY):
            await self._controller.register(shard_of(size), "newcomer", CAP, CONFIG)
        return self

    async def close(self) -> None:
        """Leave both."""
        await self._controller.close()
        await self._connection.close()

    async def round(self, attempts: int, number: int) -> dict[str, float]:
        """Return the cost of attempts for caller and server, in each case."""
        measures: dict[str, Callable[[str, int], Awaitable[dict[str, float]]]] = {
            "granted": self._granted,
            "granted_of_crowd": partial(self._granted, group=0),
            "handed_on": self._handed_on,
            "joins_and_leaves": self._joins_and_leaves,
        }
        found = {}
        for case in rotated(list(CASES), number):
            for size in rotated((FEW, MANY), number):
                for measure, value in (await measures[case](size, attempts)).items():
                    found[f"{case}.{size}.{measure}"] = value
        return found

    async def _granted(
        self, size: str, attempts: int, group: int | None = None
    ) -> dict[str, float]:
        """Measure acquires that are granted at once; they are released afterwards."""
        leases: list[RequestAdmissionLease] = []

        async def acquire() -> None:
            leases.append(await self._controller.acquire(item_of(size, FREE, group)))

        found = await self._costs(acquire, attempts)
        for lease in leases:
            await self._controller.release(lease, SUCCESS)
        return found

    async def _handed_on(self, size: str, attempts: int) -> dict[str, float]:
        """Measure acquires that wait and get the slot that is then released, release included."""
        held = await self._controller.acquire(item_of(size, ONE_SLOT))

        async def wait_and_be_handed() -> None:
            nonlocal held
            waiting = asyncio.create_task(self._controller.acquire(item_of(size, ONE_SLOT)))
            await asyncio.sleep(0)  # it asks first, so it waits
            released = self._controller.release(held, SUCCESS)
            held = await waiting
            await released

        found = await self._costs(wait_and_be_handed, attempts)
        await self._controller.release(held, SUCCESS)
        return found

    async def _joins_and_leaves(self, size: str, attempts: int) -> dict[str, float]:
        """Measure acquires that join the crowd in the domain that cools down, and are cancelled."""

        async def join_and_leave() -> None:
            waiting = asyncio.create_task(self._controller.acquire(item_of(size, COOLING)))
            await asyncio.sleep(0)  # it asks
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting

        return await self._costs(join_and_leave, attempts)

    async def _costs(
        self, attempt: Callable[[], Awaitable[None]], attempts: int
    ) -> dict[str, float]:
        durations = []
        server_us = await self._script_us()
        for _ in range(attempts):
            start = time.perf_counter()
            await attempt()
            durations.append(time.perf_counter() - start)
        server = {"server_us": (await self._script_us() - server_us) / attempts}
        return server | in_ms(durations, {"client_p50_ms": median, "client_p95_ms": p95})

    async def _script_us(self) -> float:
        """Return the time that the server has spent in scripts, with the commands that they ran."""
        stats = await self._connection.client.info("commandstats")
        scripts = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_fcall")
        return float(sum(stats[name]["usec"] for name in scripts if name in stats))


def figures(inputs: Inputs, found: Iterations) -> list[Figure]:
    """Return the figures of an acquire beside many waiters with the aims of issue 3."""
    rows = []
    for case, what in CASES.items():
        for measure, unit in (("client_p50_ms", "ms"), ("server_us", "µs")):
            many, few = f"{case}.{MANY}.{measure}", f"{case}.{FEW}.{measure}"
            side = "caller's median" if unit == "ms" else "server's scripts"
            rows.append(
                Figure(
                    name=f"{what}, {inputs.many} waiters to {inputs.few}, {side}",
                    rounds=ratios(found, many, few),
                    aim=1.3,
                    beside=f"{middle(found, many, unit)} / {middle(found, few, unit)}",
                )
            )
    return rows


def run(inputs: Inputs, progress: Progress) -> Outcome:
    """Run the scenario on an embedded server.

    Raises:
        InvariantBrokenError: something was left behind.
    """
    with EmbeddedServer() as server:
        with Fleet(1, _serve_crowds, server.url, inputs), new_runner() as runner:
            newcomer = runner.run(Newcomer.join(server.url))
            runner.run(newcomer.round(inputs.attempts, 0))  # warm-up
            iterations = repeat(
                "many_waiters",
                inputs.rounds,
                lambda number: runner.run(newcomer.round(inputs.attempts, number)),
                progress,
            )
            runner.run(newcomer.close())
        snapshots = final_snapshots(server.url, shard_of(FEW), shard_of(MANY))
    return Outcome(
        inputs=asdict(inputs) | {"cap": CAP, "group_size": GROUP_SIZE},
        iterations=iterations,
        figures=figures(inputs, iterations),
        final_request_snapshots=snapshots,
    )
