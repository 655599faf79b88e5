"""Recovery: when a killed holder's slots go to a waiting process (design 08, *Scenarios* 5)."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Final

from bench.figures import Figure, Iterations, of_rounds
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
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.outcomes import SUCCESS
from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection

PROVIDER_MODEL: Final = ProviderModelKey(provider_name="bench", model_id="recovery")
RESOURCE: Final = RequestResourceKey(provider_model=PROVIDER_MODEL)
AIM_SECONDS: Final = 0.5
"""Beyond the membership TTL."""
JUST_BEATEN: Final = 0.97
"""Of its TTL: a member that has more left was renewed a moment ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The parameters of a run of the scenario.

    Attributes:
        cap: slots, all held by the process that is killed, and attempts that wait in the other.
        rounds: how often with ``ttl_seconds``.
        ttl_seconds: of both members.
        long_ttl_seconds: the same, in the last round, once; None leaves it out.
    """

    cap: int = 8
    rounds: int = 5
    ttl_seconds: float = 2.0
    long_ttl_seconds: float | None = MemberSettings().ttl_seconds


FULL: Final = Inputs()
SMOKE: Final = Inputs(rounds=1, ttl_seconds=0.6, long_ttl_seconds=None)


async def _hold_all(orders: Orders, url: str, cap: int, ttl_seconds: float) -> None:
    """Hold every slot until killed."""
    settings = MemberSettings(ttl_seconds=ttl_seconds)
    async with await ServerConnection.open(url, settings) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        await controller.register(PROVIDER_MODEL, "bench", cap, told(cap))
        item = RequestAdmissionItem
        leases = [await controller.acquire(item(resource=RESOURCE)) for _ in range(cap)]
        async for _order in orders:
            orders.answer(leases[0].member_id)


async def _kill_and_wait(
    fleet: Fleet, url: str, inputs: Inputs, ttl_seconds: float
) -> tuple[float, float]:
    """Return the seconds from the kill to the first and the last slot's grant."""
    granted_at: list[float] = []
    settings = MemberSettings(ttl_seconds=ttl_seconds)
    async with await ServerConnection.open(url, settings) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        await controller.register(PROVIDER_MODEL, "bench", inputs.cap, told(inputs.cap))
        (holder,) = fleet.ask({0: "who are you?"})

        async def wait_for_slot() -> RequestAdmissionLease:
            lease = await controller.acquire(RequestAdmissionItem(resource=RESOURCE))
            granted_at.append(time.monotonic())
            return lease

        waiters = [asyncio.create_task(wait_for_slot()) for _ in range(inputs.cap)]
        provider = RequestPressureSnapshotProvider(connection)

        async def is_worst_moment() -> bool:
            """All wait, and the holder has just beaten: it will be missed the latest."""
            seen = await provider.global_snapshot(PROVIDER_MODEL)
            left = {member.member_id: member.expires_in_seconds for member in seen.members}
            return seen.waiters == inputs.cap and left[holder] > JUST_BEATEN * ttl_seconds

        await wait_for_state(is_worst_moment, f"{inputs.cap} waiters and a heartbeat of {holder}")
        killed_at = fleet.kill(0)
        for lease in await asyncio.gather(*waiters):
            await controller.release(lease, SUCCESS)
        await controller.close()
    return min(granted_at) - killed_at, max(granted_at) - killed_at


def _measure(url: str, inputs: Inputs, ttl_seconds: float) -> dict[str, float]:
    with Fleet(1, _hold_all, url, inputs.cap, ttl_seconds) as fleet, new_runner() as runner:
        first, last = runner.run(_kill_and_wait(fleet, url, inputs, ttl_seconds))
    return {
        f"ttl_{ttl_seconds:g}.first_slot_seconds": first,
        f"ttl_{ttl_seconds:g}.last_slot_seconds": last,
    }


def figures(inputs: Inputs, found: Iterations) -> list[Figure]:
    """Return the figures of a killed holder's slots with the aims of issue 3."""
    return [
        Figure(
            name=f"{which} slot of a killed holder, membership TTL {ttl:g} s, worst round",
            rounds=of_rounds(found, f"ttl_{ttl:g}.{which}_slot_seconds"),
            unit="s",
            aim=ttl + AIM_SECONDS,
            is_worst=True,
            beside=f"TTL {ttl:g} s",
        )
        for ttl in (inputs.ttl_seconds, inputs.long_ttl_seconds)
        if ttl is not None
        for which in ("first", "last")
    ]


def run(inputs: Inputs, progress: Progress) -> Outcome:
    """Run the scenario on an embedded server.

    Raises:
        InvariantBrokenError: something was left behind.
    """
    with EmbeddedServer() as server:

        def measure(number: int) -> dict[str, float]:
            found = _measure(server.url, inputs, inputs.ttl_seconds)
            if number == inputs.rounds - 1 and inputs.long_ttl_seconds is not None:
                found |= _measure(server.url, inputs, inputs.long_ttl_seconds)
            return found

        iterations = repeat("recovery", inputs.rounds, measure, progress)
        snapshots = final_snapshots(server.url, PROVIDER_MODEL)
    return Outcome(
        inputs=asdict(inputs),
        iterations=iterations,
        figures=figures(inputs, iterations),
        final_request_snapshots=snapshots,
    )
