"""A turn of the hand-off: a cap and many waiters over two processes, who come one a millisecond."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import redis

from bench import handoff
from bench.compare.callgrind import counted_server
from bench.compare.counters import counted
from bench.compare.turn_micro import PATIENT
from bench.handoff import PROVIDER_MODEL
from bench.handoff_processes import serve
from bench.harness import Fleet, final_snapshots, new_runner, told
from bench.peers.forebay_leases import ForebayLimiter
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection

CASE: Final = handoff.TWO_PROCESSES
FULL: Final = handoff.Inputs(rounds=1, seconds=1.0)
SMOKE: Final = handoff.SMOKE
MEASURED: Final = ("grants_per_second", "gap_median_ms", "gap_p95_ms")
COUNTED_WAITERS: Final = 3
"""Of each slot, while instructions are counted."""
COUNTED_GRANTS: Final = 10
"""Of each waiter, then."""


def timed(inputs: handoff.Inputs) -> dict[str, Any]:
    """Measure grants and the gaps between them."""
    with EmbeddedServer() as server, redis.Redis.from_url(server.url) as client:
        setting = handoff.setting_of(server.url, inputs)
        with Fleet(CASE.processes, serve, setting, ("forebay",)) as fleet:
            before = counted(client)
            found, holds = handoff.measure_holds(fleet, "forebay", CASE, inputs)
            costs = counted(client).since(before)
        snapshots = final_snapshots(server.url, PROVIDER_MODEL)
    measures = {f"handoff.{name}": found[name] for name in MEASURED if name in found}
    return {
        "measures": measures | costs.per(holds, "handoff"),
        "final_request_snapshot": snapshots,
    }


async def _hand_on(url: str, cap: int) -> int:
    """Let a crowd of one process take turns without a pause; return how many grants there were."""
    async with await ServerConnection.open(url, PATIENT) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        await controller.register(PROVIDER_MODEL, "bench", cap, told(cap))
        limiter = ForebayLimiter(controller, PROVIDER_MODEL)

        async def take_turns() -> None:
            for _ in range(COUNTED_GRANTS):
                await limiter.release(await limiter.acquire())

        waiters = COUNTED_WAITERS * cap
        await asyncio.gather(*(take_turns() for _ in range(waiters)))
        await controller.close()
    return waiters * COUNTED_GRANTS


def instructions(inputs: handoff.Inputs) -> dict[str, Any]:
    """Count the instructions of a grant that was waited for, and of its release."""
    with counted_server() as server, new_runner() as runner:
        grants = runner.run(_hand_on(server.url, inputs.cap))
    return {"measures": {"handoff.instructions": server.instructions / grants}}
