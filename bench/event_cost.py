"""Events: what the events of each attempt cost their process, by sink, beside no sink at all.

Sinks take turns within a round, in one process, on one server. Compared is CPU time, as it feels
the machine's other work least: of an acquire and a release with the start of a call between them,
six events in all, and of a call of the OpenAI SDK to a provider that answers at once.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import redis.asyncio
from openai import AsyncOpenAI

import forebay
from bench import transport
from bench.compare.turn_micro import PATIENT
from bench.figures import Figure, Iterations, middle, ratios
from bench.harness import Fleet, Orders, Outcome, Progress, final_snapshots, repeat, rotated, told
from forebay.contracts.events import EventSink
from forebay.contracts.outcomes import SUCCESS
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.sinks import JsonLinesSink, MemorySink, RedisStreamSink
from forebay.transports import HttpResolver

PROVIDER_MODEL: Final = transport.PROVIDER_MODEL
RESOURCE: Final = forebay.RequestResourceKey(provider_model=PROVIDER_MODEL)
SINKS: Final = ("none", "memory", "json_lines", "redis_stream")
LOADS: Final = {"pair alone": 1, "pairs, 64 in flight": 64, "SDK calls, 64 in flight": 64}
AIM: Final = 1.15
"""Of issue 19: all events of all attempts take at most 15 % of the throughput."""
WARM_UP_PART: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The parameters of a run of the scenario.

    Attributes:
        rounds: how often each sink has its turn under each load.
        counts: the attempts of a turn, by load.
    """

    rounds: int = 11
    counts: tuple[int, ...] = (300, 3_200, 256)


FULL: Final = Inputs()
SMOKE: Final = Inputs(rounds=1, counts=(5, 64, 10))


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One turn: so many attempts under a load with a sink."""

    load: str
    sink: str
    count: int


@asynccontextmanager
async def _sinks(url: str, folder: Path) -> AsyncIterator[dict[str, Sequence[EventSink]]]:
    async with redis.asyncio.Redis.from_url(url) as client:
        stream = RedisStreamSink(client, "bench:events", most_kept=10_000)
        with JsonLinesSink(folder / "events.jsonl") as lines:
            yield {
                "none": (),
                "memory": (MemorySink(),),
                "json_lines": (lines,),
                "redis_stream": (stream,),
            }
            await stream.aclose()


def _pair(requests: AdaptiveRequestAdmissionController) -> Callable[[], Awaitable[Any]]:
    async def pair() -> None:
        lease = await requests.acquire(forebay.RequestAdmissionItem(resource=RESOURCE))
        requests.assert_held(lease)
        await requests.release(lease, SUCCESS)

    return pair


def _call(sdk: AsyncOpenAI) -> Callable[[], Awaitable[Any]]:
    async def call() -> None:
        await sdk.chat.completions.create(
            model=PROVIDER_MODEL.model_id, messages=[{"role": "user", "content": "How much?"}]
        )

    return call


async def _turn(attempt: Callable[[], Awaitable[Any]], order: Order) -> dict[str, float]:
    """Return the CPU and wall microseconds of an attempt."""

    async def repeat_attempt(left: Iterator[int]) -> None:
        for _ in left:
            await attempt()

    found: dict[str, float] = {}
    for count in (max(1, order.count // WARM_UP_PART), order.count):
        left = iter(range(count))
        cpu, wall = time.process_time(), time.monotonic()
        await asyncio.gather(*(repeat_attempt(left) for _ in range(LOADS[order.load])))
        name = f"{order.sink}.{order.load}"
        found = {
            f"{name}.cpu_us": (time.process_time() - cpu) / count * 1e6,
            f"{name}.wall_us": (time.monotonic() - wall) / count * 1e6,
        }
    return found


async def _serve(orders: Orders, url: str, port: int, folder: str) -> None:
    resolve = HttpResolver({f"127.0.0.1:{port}": PROVIDER_MODEL.provider_name})
    async with AsyncExitStack() as stack:
        attempts: dict[tuple[str, bool], Callable[[], Awaitable[Any]]] = {}
        for name, sinks in (await stack.enter_async_context(_sinks(url, Path(folder)))).items():
            connection = forebay.connect(url, PATIENT, event_sinks=sinks)
            requests = await stack.enter_async_context(connection)
            await requests.register(PROVIDER_MODEL, "bench", transport.CAP, told(transport.CAP))
            sdk = AsyncOpenAI(
                api_key="any",
                base_url=f"http://127.0.0.1:{port}/v1",
                http_client=forebay.http_client(requests, resolve=resolve),
                max_retries=0,
            )
            await stack.enter_async_context(sdk)
            attempts[name, False], attempts[name, True] = _pair(requests), _call(sdk)
        async for order in orders:
            is_call = order.load.startswith("SDK")
            orders.answer(await _turn(attempts[order.sink, is_call], order))


def _round(fleet: Fleet, inputs: Inputs, number: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for load, count in zip(LOADS, inputs.counts, strict=True):
        for sink in rotated(SINKS, number):
            [answer] = fleet.ask({0: Order(load=load, sink=sink, count=count)})
            found |= answer
    return found


def figures(found: Iterations) -> list[Figure]:
    """Return CPU and wall time with each sink to those without one."""
    return [
        Figure(
            name=f"{load}: {said} with {sink} to no sink",
            rounds=ratios(found, f"{sink}.{load}.{measure}", f"none.{load}.{measure}"),
            aim=AIM if load.startswith("SDK") and measure == "cpu_us" else None,
            beside=f"{middle(found, f'{sink}.{load}.{measure}', 'us')}"
            f" / {middle(found, f'none.{load}.{measure}', 'us')}",
        )
        for load in LOADS
        for measure, said in (("cpu_us", "CPU"), ("wall_us", "time"))
        for sink in SINKS[1:]
    ]


def run(inputs: Inputs, progress: Progress) -> Outcome:
    """Run the scenario on an embedded server.

    Raises:
        InvariantBrokenError: something was left behind.
    """
    with (
        tempfile.TemporaryDirectory(prefix="forebay-events-") as folder,
        EmbeddedServer() as server,
        Fleet(1, transport.provide) as providers,
    ):
        [port] = providers.ask({0: "port"})
        with Fleet(1, _serve, server.url, port, folder) as fleet:
            iterations = repeat(
                "events", inputs.rounds, lambda number: _round(fleet, inputs, number), progress
            )
        snapshots = final_snapshots(server.url, PROVIDER_MODEL)
    return Outcome(
        inputs=asdict(inputs) | {"sinks": SINKS, "loads": LOADS},
        iterations=iterations,
        figures=figures(iterations),
        final_request_snapshots=snapshots,
    )
