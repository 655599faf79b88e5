"""Hand-off: a cap, hundreds of waiters over two processes, short holds (spec 08, scenario 2).

Each round measures Forebay, an in-process ``asyncio.Semaphore`` (what no coordination can beat by
much) and a bare FIFO-and-PUBLISH script, one after the other in a rotating order, so that a slow
moment of the machine meets all three.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from statistics import median, quantiles
from typing import Any, Final, Protocol

from bench import InvariantBrokenError, loop_name, new_event_loop
from bench.raw import FifoLimiter
from contracts.identity import ProviderModelKey, RequestResourceKey
from contracts.requests import SUCCESS, RequestAdmissionItem, RequestAdmissionLease
from coordinator.connections import open_async
from coordinator.coordinator import Coordinator
from coordinator.embedded import EmbeddedServer
from coordinator.requests.controller import AdaptiveRequestAdmissionController
from coordinator.requests.snapshots import RequestPressureSnapshotProvider

PROVIDER_MODEL: Final = ProviderModelKey(provider_name="bench", model_id="handoff")
LIMITERS: Final = ("forebay", "semaphore", "fifo")
SETTLE_SECONDS: Final = 0.25
"""Not counted, after the last arrival."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoffInputs:
    """What a run of the scenario is given.

    Attributes:
        cap: the most holders.
        waiters: tasks that acquire, hold and release without a pause, over all processes.
        processes: how many share the waiters.
        hold_seconds: what each hold sleeps.
        rounds: how often every limiter has its turn.
        seconds: the counted time of each turn.
        arrival_seconds: between two waiters' first calls, which come in turn from each process,
            so that slots are handed on between processes. With 0 each process's waiters queue en
            bloc, and fewer slots are (``crossing_share`` says how many).
    """

    cap: int = 8
    waiters: int = 200
    processes: int = 2
    hold_seconds: float = 0.005
    rounds: int = 5
    seconds: float = 2.0
    arrival_seconds: float = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One grant, by CLOCK_MONOTONIC, which the processes of a machine share.

    Attributes:
        process: in which process.
        waiter: whose.
        start: when ``acquire`` had returned.
        end: just before ``release`` was called.
    """

    process: int
    waiter: int
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One process's part of one limiter's turn."""

    limiter: str
    process: int
    waiters: range
    hold_seconds: float
    arrival_seconds: float
    start: float
    end: float


class Limiter(Protocol):
    """What is compared."""

    async def acquire(self) -> Any:
        """Wait for a slot; returns what ``release`` needs."""
        ...

    async def release(self, token: Any) -> None:
        """Give the slot back; returns once that is acknowledged."""
        ...


class ForebayLimiter:
    """The controller as a limiter."""

    def __init__(self, controller: AdaptiveRequestAdmissionController) -> None:
        self._controller = controller
        self._resource = RequestResourceKey(provider_model=PROVIDER_MODEL)

    async def acquire(self) -> RequestAdmissionLease:
        return await self._controller.acquire(RequestAdmissionItem(resource=self._resource))

    async def release(self, token: RequestAdmissionLease) -> None:
        await self._controller.release(token, SUCCESS)


class SemaphoreLimiter:
    """``asyncio.Semaphore``: one process, no server."""

    def __init__(self, cap: int) -> None:
        self._semaphore = asyncio.Semaphore(cap)

    async def acquire(self) -> None:
        await self._semaphore.acquire()

    async def release(self, _token: Any) -> None:
        self._semaphore.release()


# -- pure: what the holds say


def jain_index(amounts: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 is equal shares, 1/n is all for one; of nothing, 1."""
    squares = sum(amount * amount for amount in amounts)
    return sum(amounts) ** 2 / (len(amounts) * squares) if squares else 1.0


def max_holders(holds: Sequence[Hold]) -> int:
    """Return the most holds that were open at one instant; an end goes before a start."""
    changes = sorted([(hold.start, 1) for hold in holds] + [(hold.end, -1) for hold in holds])
    most = held = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most


def handoffs(holds: Sequence[Hold], cap: int) -> list[tuple[Hold, Hold]]:
    """Return each hold that ended with the one that its release made room for.

    Slots are alike, so the n-th release makes room for the (cap + n)-th start.
    """
    by_start = sorted(holds, key=lambda hold: hold.start)
    by_end = sorted(holds, key=lambda hold: hold.end)
    return list(zip(by_end, by_start[cap:], strict=False))


def summarize(
    holds: Sequence[Hold], inputs: HandoffInputs, start: float, end: float
) -> dict[str, float]:
    """Return the measures of one limiter's turn; counted is what started in ``start..end``."""
    counted = [hold for hold in holds if start <= hold.start < end]
    grants = Counter(hold.waiter for hold in counted)
    pairs = handoffs(counted, inputs.cap)
    gaps = [after.start - before.end for before, after in pairs]
    crossing = sum(before.process != after.process for before, after in pairs)
    return {
        "grants_per_second": len(counted) / (end - start),
        "crossing_share": crossing / len(pairs),
        "gap_median_ms": median(gaps) * 1e3,
        "gap_p95_ms": quantiles(gaps, n=20)[-1] * 1e3,
        "hold_median_ms": median(hold.end - hold.start for hold in counted) * 1e3,
        "jain_index": jain_index([grants[waiter] for waiter in range(inputs.waiters)]),
        "max_holders": max_holders(holds),
    }


def derive(iterations: Sequence[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Return the medians over the rounds, and Forebay's rate relative to the others' by round."""
    derived: dict[str, Any] = {
        limiter: {
            name: median(turns[limiter][name] for turns in iterations)
            for name in iterations[0][limiter]
        }
        | {"max_holders": max(turns[limiter]["max_holders"] for turns in iterations)}
        for limiter in LIMITERS
    }
    for other in ("semaphore", "fifo"):
        derived[f"forebay_to_{other}"] = median(
            turns["forebay"]["grants_per_second"] / turns[other]["grants_per_second"]
            for turns in iterations
        )
    return derived


# -- a process with its share of the waiters


async def _turn(limiter: Limiter, order: Order) -> list[Hold]:
    holds: list[Hold] = []

    async def wait_and_hold(waiter: int) -> None:
        await asyncio.sleep(order.start + waiter * order.arrival_seconds - time.monotonic())
        while time.monotonic() < order.end:
            token = await limiter.acquire()
            start = time.monotonic()
            await asyncio.sleep(order.hold_seconds)
            end = time.monotonic()
            holds.append(Hold(process=order.process, waiter=waiter, start=start, end=end))
            await limiter.release(token)

    await asyncio.gather(*(wait_and_hold(waiter) for waiter in order.waiters))
    return holds


async def _final_snapshot(coordinator: Coordinator) -> dict[str, Any]:
    provider = RequestPressureSnapshotProvider(coordinator)
    snapshot = await provider.global_snapshot(PROVIDER_MODEL)
    return {
        "leases": snapshot.aggregate_active_lease_count,
        "in_flight": snapshot.aggregate_in_flight,
        "waiters": snapshot.waiters,
        "members": snapshot.member_count,
        "static_cap": snapshot.static_cap,
        "audit": (await provider.audit(PROVIDER_MODEL)).model_dump(mode="json"),
    }


async def _serve(pipe: Connection, url: str, cap: int) -> None:
    async with await Coordinator.open(url) as coordinator:
        patient = open_async(
            coordinator.address, socket_timeout_seconds=None, health_check_seconds=0
        )
        controller = AdaptiveRequestAdmissionController(coordinator)
        await controller.register(PROVIDER_MODEL, "bench", cap)
        fifo = FifoLimiter(coordinator.client, patient, cap)
        await fifo.open()
        limiters: dict[str, Limiter] = {
            "forebay": ForebayLimiter(controller),
            "semaphore": SemaphoreLimiter(cap),
            "fifo": fifo,
        }
        pipe.send("ready")
        while order := await asyncio.to_thread(pipe.recv):
            if isinstance(order, Order):
                pipe.send(await _turn(limiters[order.limiter], order))
            else:
                pipe.send(await _final_snapshot(coordinator))
        await fifo.close()
        await patient.aclose()
        await controller.close()


def _work(pipe: Connection, url: str, cap: int) -> None:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(pipe, url, cap))


# -- the run


def _measure(
    pipes: Sequence[Connection], limiter: str, inputs: HandoffInputs, seconds: float
) -> dict[str, float]:
    # a semaphore has one process: it gets all the waiters, the others rest
    used = pipes[:1] if limiter == "semaphore" else pipes
    start = time.monotonic() + 0.1
    counted_from = start + inputs.waiters * inputs.arrival_seconds + SETTLE_SECONDS
    end = counted_from + seconds
    for index, pipe in enumerate(used):
        pipe.send(
            Order(
                limiter=limiter,
                process=index,
                waiters=range(index, inputs.waiters, len(used)),
                hold_seconds=inputs.hold_seconds,
                arrival_seconds=inputs.arrival_seconds,
                start=start,
                end=end,
            )
        )
    holds: list[Hold] = [hold for pipe in used for hold in pipe.recv()]
    measures = summarize(holds, inputs, counted_from, end)
    if measures["max_holders"] > inputs.cap:
        raise InvariantBrokenError(
            f"{limiter} had {measures['max_holders']:g} holders at once, expected at most"
            f" {inputs.cap}; this is a defect, please report it."
        )
    return measures


def _rounds(
    pipes: Sequence[Connection], inputs: HandoffInputs, progress: Callable[[str], None]
) -> list[dict[str, dict[str, float]]]:
    for limiter in LIMITERS:
        _measure(pipes, limiter, inputs, min(0.5, inputs.seconds))  # warm-up
    iterations = []
    for number in range(inputs.rounds):
        turn = number % len(LIMITERS)
        order = LIMITERS[turn:] + LIMITERS[:turn]
        measured = {name: _measure(pipes, name, inputs, inputs.seconds) for name in order}
        iterations.append(measured)
        rates = ", ".join(f"{n} {measured[n]['grants_per_second']:.0f}/s" for n in LIMITERS)
        progress(f"handoff round {number + 1}/{inputs.rounds}: {rates}")
    return iterations


def run(inputs: HandoffInputs, progress: Callable[[str], None]) -> dict[str, Any]:
    """Run the scenario on an embedded server and return its artifact.

    Raises:
        InvariantBrokenError: more holders than the cap, or something was left behind.
    """
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes = []
    with EmbeddedServer() as server:
        try:
            for _ in range(inputs.processes):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_work, args=(theirs, server.url, inputs.cap), daemon=True
                )
                process.start()
                theirs.close()  # so that the end of the process ends our recv
                pipes.append(ours)
                processes.append(process)
            for pipe in pipes:
                pipe.recv()
            iterations = _rounds(pipes, inputs, progress)
            pipes[0].send("snapshot")
            final = pipes[0].recv()
            for pipe in pipes:
                pipe.send(None)
            for process in processes:
                process.join(10)
        finally:
            for process in processes:
                process.kill()
    if not final["audit"]["ok"] or final["leases"] or final["waiters"]:
        raise InvariantBrokenError(
            f"{PROVIDER_MODEL} was left as {final}, expected no lease, no waiter and books that"
            " agree; this is a defect, please report it."
        )
    return {
        "scenario_id": "handoff",
        "scenario_version": 1,
        "inputs": asdict(inputs) | {"loop": loop_name()},
        "iterations": iterations,
        "derived_metrics": derive(iterations),
        "final_request_snapshot": final,
    }
