"""Memory: bytes of the server per lease and per waiter, with ids of 32 characters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.figures import Figure, Iterations, middle, of_rounds
from bench.harness import (
    InvariantBrokenError,
    Outcome,
    Progress,
    final_snapshots,
    new_runner,
    repeat,
    told,
    wait_for_state,
)
from forebay.contracts.identity import ProviderModelKey, RequestGroupSpec, RequestResourceKey
from forebay.contracts.outcomes import SUCCESS
from forebay.contracts.requests import RequestAdmissionItem
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.keys import request_shard
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection

PROVIDER_MODEL: Final = ProviderModelKey(provider_name="bench", model_id="memory")
RESOURCE: Final = RequestResourceKey(provider_model=PROVIDER_MODEL)
LARGEST_CAP: Final = 1_000_000_000
"""Its digits are part of each lease."""
SETTINGS: Final = MemberSettings(recheck_seconds=60.0, call_timeout_seconds=60.0)
ID_CHARACTERS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of entry whose bytes are counted.

    Attributes:
        name: of the measures.
        said: in the figure.
        cap: of the provider/model: with 1 all but one wait.
        aim_bytes: the most that one should take.
        group_size: how many share a group; None for all in the default one.
        wait_seconds: their deadline; None for none.
        max_hold_seconds: of the provider/model; None for none, which is the default.
    """

    name: str
    said: str
    cap: int
    aim_bytes: int
    group_size: int | None = None
    wait_seconds: float | None = None
    max_hold_seconds: float | None = None


KINDS: Final = (
    Kind(name="lease", said="lease", cap=LARGEST_CAP, aim_bytes=400),
    Kind(
        name="lease_with_max_hold",
        said="lease, with a longest hold",
        cap=LARGEST_CAP,
        aim_bytes=400,
        max_hold_seconds=600.0,
    ),
    Kind(name="waiter", said="waiter", cap=1, aim_bytes=500),
    Kind(
        name="waiter_of_groups",
        said="waiter, in groups of ten, with a deadline",
        cap=1,
        aim_bytes=500,
        group_size=10,
        wait_seconds=600.0,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The parameters of a run of the scenario.

    Attributes:
        count: leases, and waiters.
        rounds: how often, each on a new server.
    """

    count: int = 10_000
    rounds: int = 5


FULL: Final = Inputs()
SMOKE: Final = Inputs(count=200, rounds=1)


async def _bytes_of(connection: ServerConnection) -> dict[str, int]:
    """Return the bytes of each key of the shard, all entries counted, and of the whole server."""
    found = {"used_memory": int((await connection.client.info("memory"))["used_memory"])}
    for key in request_shard(PROVIDER_MODEL).all:
        found[key] = int(await connection.client.memory_usage(key, samples=0) or 0)
    return found


def _items(kind: Kind, count: int) -> list[RequestAdmissionItem]:
    items = [
        RequestAdmissionItem(
            resource=RESOURCE,
            group=RequestGroupSpec(
                key=f"tenant-{n // kind.group_size}" if kind.group_size else None
            ),
            queue_wait_timeout_seconds=kind.wait_seconds,
        )
        for n in range(count)
    ]
    if any(len(item.attempt_id) != ID_CHARACTERS for item in items):
        raise InvariantBrokenError(
            f"attempt ids like {items[0].attempt_id!r} were made; expected {ID_CHARACTERS}"
            " characters; mend this scenario."
        )
    return items


async def _count_bytes(url: str, kind: Kind, count: int) -> dict[str, float]:
    async with await ServerConnection.open(url, SETTINGS) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        provider = RequestPressureSnapshotProvider(connection)
        config = told(kind.cap).model_copy(update={"max_hold_seconds": kind.max_hold_seconds})
        await controller.register(PROVIDER_MODEL, "bench", kind.cap, config)
        held = [await controller.acquire(RequestAdmissionItem(resource=RESOURCE))]
        before = await _bytes_of(connection)
        attempts = [asyncio.create_task(controller.acquire(i)) for i in _items(kind, count)]

        async def all_there() -> bool:
            seen = await provider.global_snapshot(PROVIDER_MODEL)
            return seen.aggregate_in_flight + seen.waiters == 1 + count

        await wait_for_state(all_there, f"{count} of {kind.said}")
        after = await _bytes_of(connection)
        if kind.cap > 1:
            held += await asyncio.gather(*attempts)
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
        await asyncio.gather(*(controller.release(lease, SUCCESS) for lease in held))
        await controller.close()
    grown = {key: (after[key] - before[key]) / count for key in after}
    found = {f"{kind.name}.used_memory_bytes": grown.pop("used_memory")}
    found[f"{kind.name}.keys_bytes"] = sum(grown.values())
    return found | {
        f"{kind.name}.{key.rsplit(':', 1)[1]}_bytes": size for key, size in grown.items() if size
    }


def _round(inputs: Inputs, keep: Callable[[dict[str, Any]], None]) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind in KINDS:
        # a new server each: what one kind has freed must not hide what the next one takes
        with EmbeddedServer() as server:
            with new_runner() as runner:
                found |= runner.run(_count_bytes(server.url, kind, inputs.count))
            keep({kind.name: final_snapshots(server.url, PROVIDER_MODEL)})
    return found


def figures(found: Iterations) -> list[Figure]:
    """Return the figures of memory with the aims of issue 3, counted both ways."""
    rows = []
    for kind in KINDS:
        keys, whole = f"{kind.name}.keys_bytes", f"{kind.name}.used_memory_bytes"
        for measure, other, said in (
            (keys, whole, "MEMORY USAGE of the shard's keys"),
            (whole, keys, "growth of used_memory"),
        ):
            rows.append(
                Figure(
                    name=f"{kind.said}: {said}",
                    rounds=of_rounds(found, measure),
                    unit="bytes",
                    aim=kind.aim_bytes,
                    beside=f"the other way {middle(found, other, 'bytes')}",
                )
            )
    return rows


def run(inputs: Inputs, progress: Progress) -> Outcome:
    """Run the scenario, each count on an embedded server of its own.

    Raises:
        InvariantBrokenError: something was left behind.
    """
    snapshots: dict[str, Any] = {}
    iterations = repeat(
        "memory", inputs.rounds, lambda _number: _round(inputs, snapshots.update), progress
    )
    return Outcome(
        inputs=asdict(inputs) | {"kinds": [asdict(kind) for kind in KINDS]},
        iterations=iterations,
        figures=figures(iterations),
        final_request_snapshots=snapshots,
    )
