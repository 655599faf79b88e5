"""Crash: the cost of a SIGKILLed process for the waiting others (design 06, *Suspects*).

Processes of several callers share a cap that is always taken. One is killed; what it held stays
taken until it is expired, and nothing else may be missing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import redis

from bench.figures import Figure, Iterations, middle, of_rounds
from bench.harness import (
    POLL_SECONDS,
    Fleet,
    InvariantBrokenError,
    Orders,
    Outcome,
    Progress,
    final_snapshots,
    repeat,
    told,
)
from bench.holds import Hold, max_holders
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.outcomes import SUCCESS
from forebay.contracts.requests import RequestAdmissionItem
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.keys import request_shard
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection

PROVIDER_MODEL: Final = ProviderModelKey(provider_name="bench", model_id="crash")
RESOURCE: Final = RequestResourceKey(provider_model=PROVIDER_MODEL)
KEYS: Final = request_shard(PROVIDER_MODEL)
DEADLINE_SECONDS: Final = 60.0
ARRIVAL_SECONDS: Final = 0.001
"""Between two callers' first calls."""
FROM_SECONDS: Final = 1.0
"""After the kill: the others' rate counts from here on, until what the dead held is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Parameters of one benchmark of a killed member.

    Attributes:
        cap: the most holders.
        processes: how many; the first is killed.
        callers: of each process; each acquires, holds and releases without a pause. They begin in
            turn from each process, so that each has its part of the line.
        hold_seconds: what a hold sleeps in the mean; half as long to half as long again.
        ttl_seconds: of each member.
        rounds: how often a process is killed.
        settle_seconds: not counted, after the start.
        before_seconds: counted before the kill.
        after_seconds: counted once what the dead held is free.
    """

    cap: int = 8
    processes: int = 4
    callers: int = 16
    hold_seconds: float = 0.1
    ttl_seconds: float = MemberSettings().ttl_seconds
    rounds: int = 5
    settle_seconds: float = 2.0
    before_seconds: float = 4.0
    after_seconds: float = 3.0


FULL: Final = Inputs()
SMOKE: Final = Inputs(
    callers=4,
    hold_seconds=0.02,
    ttl_seconds=1.5,
    rounds=1,
    settle_seconds=0.1,
    before_seconds=0.3,
    after_seconds=0.3,
)


async def _call(orders: Orders, url: str, inputs: Inputs) -> None:
    """Call from "start" to "stop"; "report" and "stop" are answered with the holds since then."""
    holds: list[Hold] = []
    draw = random.Random(orders.process)
    is_over = asyncio.Event()
    settings = MemberSettings(ttl_seconds=inputs.ttl_seconds)
    async with await ServerConnection.open(url, settings) as connection:
        controller = AdaptiveRequestAdmissionController(connection)
        await controller.register(PROVIDER_MODEL, "bench", inputs.cap, told(inputs.cap))

        async def call(waiter: int) -> None:
            await asyncio.sleep(ARRIVAL_SECONDS * (waiter * inputs.processes + orders.process))
            while not is_over.is_set():
                lease = await controller.acquire(RequestAdmissionItem(resource=RESOURCE))
                start = time.monotonic()
                await asyncio.sleep(inputs.hold_seconds * draw.uniform(0.5, 1.5))
                end = time.monotonic()
                holds.append(Hold(process=orders.process, waiter=waiter, start=start, end=end))
                await controller.release(lease, SUCCESS)

        calling: list[asyncio.Task[None]] = []
        async for order in orders:
            if order == "start":
                calling += [asyncio.create_task(call(waiter)) for waiter in range(inputs.callers)]
            elif order == "stop":
                is_over.set()
                await asyncio.gather(*calling)
            orders.answer(list(holds))
            holds.clear()
        await controller.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """The end of a killed member.

    Attributes:
        held: leases that ended with it.
        seconds: from the kill until they had.
    """

    held: int
    seconds: float


def _end_of(client: Any, since_us: int) -> _End | None:
    """Return how the member ended that was expired since an instant; None if none was yet."""
    entries = [
        {name.decode(): text.decode() for name, text in fields.items()}
        for _id, fields in client.xrange(KEYS["events"])
    ]
    recent = [event for event in entries if int(event["at_us"]) >= since_us]
    for event in recent:
        if event["kind"] == "member_expired":
            lost = [one for one in recent if one["kind"] == "request_lease_expired"]
            seconds = (int(event["at_us"]) - since_us) / 1e6
            return _End(held=len(lost), seconds=seconds)
    return None


def _wait_for_end(client: Any, since_us: int) -> _End:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (end := _end_of(client, since_us)) is None:
        if time.monotonic() > deadline:
            raise InvariantBrokenError(
                f"the killed member was not expired within {DEADLINE_SECONDS:g} s; this is a"
                " defect, please report it."
            )
        time.sleep(POLL_SECONDS)
    return end


def rate(holds: Sequence[Hold], start: float, end: float) -> float:
    """Return how many holds ended a second between two instants."""
    return sum(start <= hold.end < end for hold in holds) / (end - start)


def _measure(url: str, client: Any, inputs: Inputs) -> dict[str, float]:
    everybody = range(inputs.processes)
    others = everybody[1:]
    with Fleet(inputs.processes, _call, url, inputs) as fleet:
        fleet.ask(dict.fromkeys(everybody, "start"))
        time.sleep(inputs.settle_seconds + inputs.before_seconds)
        before_until = time.monotonic()
        before = [hold for holds in fleet.ask(dict.fromkeys(everybody, "report")) for hold in holds]
        seconds, microseconds = client.time()
        killed_at = fleet.kill(0)
        end = _wait_for_end(client, seconds * 1_000_000 + microseconds)
        time.sleep(inputs.after_seconds)
        after_until = time.monotonic()
        after = [hold for holds in fleet.ask(dict.fromkeys(others, "stop")) for hold in holds]
    expired_at = killed_at + end.seconds
    while_taken = [h for h in after if h.end > killed_at and h.start < expired_at - POLL_SECONDS]
    most = max_holders([h for h in while_taken if h.start >= killed_at])
    if most > inputs.cap - end.held:
        raise InvariantBrokenError(
            f"the others had {most} holders while the killed process held {end.held} of"
            f" {inputs.cap}; this is a defect, please report it."
        )
    if (served := {hold.process for hold in after}) != set(others):
        raise InvariantBrokenError(
            f"only processes {sorted(served)} of {list(others)} made calls after the kill; this is"
            " a defect, please report it."
        )
    rate_before = rate(before, before_until - inputs.before_seconds, before_until)
    found = {
        "held_by_the_dead": float(end.held),
        "max_holders_while_taken": float(most),
        "free_after_seconds": end.seconds,
        "before.calls_per_second": rate_before,
        "freed.calls_per_second": rate(after, after_until - inputs.after_seconds, after_until),
    }
    # No second half in, half out: the last one may be the one in which it becomes free.
    for second in range(int(after_until - killed_at)):
        at = killed_at + second
        found[f"second_{second:02}.calls_per_second"] = rate(after, at, at + 1)
    if end.seconds > FROM_SECONDS:
        found["taken.calls_per_second"] = rate(after, killed_at + FROM_SECONDS, expired_at)
    possible = rate_before * (inputs.cap - end.held) / inputs.cap
    if possible and "taken.calls_per_second" in found:
        found["taken.share"] = found["taken.calls_per_second"] / possible
    if rate_before:
        found["freed.share"] = found["freed.calls_per_second"] / rate_before
    return found


def by_second(found: Iterations) -> str:
    """Return the others' calls in each second after the kill, medians over the rounds."""
    names = sorted(name for round_ in found for name in round_ if name.startswith("second_"))
    return " ".join(middle(found, name, "") for name in dict.fromkeys(names))


def figures(inputs: Inputs, found: Iterations) -> list[Figure]:
    """Return the figures of a crash with the aims of issue 12."""
    before = middle(found, "before.calls_per_second", "/s")
    return [
        Figure(
            name="crash: from 1 s after, calls of the others, to what the slots left to them allow",
            rounds=of_rounds(found, "taken.share"),
            aim=0.95,
            is_floor=True,
            beside=f"{middle(found, 'taken.calls_per_second', '/s')}; before {before};"
            f" by second {by_second(found)}",
        ),
        Figure(
            name=f"crash: slots of the dead are free, TTL {inputs.ttl_seconds:g} s, worst round",
            rounds=of_rounds(found, "free_after_seconds"),
            unit="s",
            aim=2 * inputs.ttl_seconds / 3,
            is_worst=True,
            beside=f"held {middle(found, 'held_by_the_dead', '')} of {inputs.cap}",
        ),
        Figure(
            name="crash: once they are free, calls to those before the crash",
            rounds=of_rounds(found, "freed.share"),
            aim=0.95,
            is_floor=True,
            beside=f"{middle(found, 'freed.calls_per_second', '/s')} / {before}",
        ),
    ]


def run(inputs: Inputs, progress: Progress) -> Outcome:
    """Run the scenario on an embedded server.

    Raises:
        InvariantBrokenError: more holders than slots, a process without calls, something left.
    """
    with EmbeddedServer() as server, redis.Redis.from_url(server.url) as client:
        iterations = repeat(
            "crash", inputs.rounds, lambda _number: _measure(server.url, client, inputs), progress
        )
        snapshots = final_snapshots(server.url, PROVIDER_MODEL)
    return Outcome(
        inputs=asdict(inputs),
        iterations=iterations,
        figures=figures(inputs, iterations),
        final_request_snapshots=snapshots,
    )
