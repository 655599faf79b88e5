"""Transport: calls per second of the OpenAI SDK, bare and through a lease each.

The provider answers at once, from a process of its own, so what is measured is the client's own
work: with leases its rate is at most that of the SDK, and what is missing is what they cost.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import httpx2
from openai import AsyncOpenAI

import forebay
from bench.figures import Figure, middle, of_rounds, ratios
from bench.harness import (
    STARTUP_SECONDS,
    Fleet,
    Orders,
    Outcome,
    Progress,
    final_snapshots,
    repeat,
    rotated,
    told,
)
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.transports import HttpResolver

PROVIDER_MODEL: Final = forebay.ProviderModelKey(provider_name="bench", model_id="transport")
IN_FLIGHT: Final = 64
CAP: Final = 1000
"""Cap above all calls in flight, so that no call waits for a slot."""
WAYS: Final = ("forebay", "bare")

_ANSWER: Final = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": PROVIDER_MODEL.model_id,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Enough for a dry season."},
            }
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18},
    }
).encode()
_RESPONSE: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
    % (len(_ANSWER), _ANSWER)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The parameters of a run of the scenario.

    Attributes:
        rounds: how often each way has its turn.
        seconds: the counted time of each turn.
        warm_up_seconds: of each turn, before it.
    """

    rounds: int = 5
    seconds: float = 2.0
    warm_up_seconds: float = 0.5


FULL: Final = Inputs()
SMOKE: Final = Inputs(rounds=1, seconds=0.2, warm_up_seconds=0.1)


class _Provider(asyncio.Protocol):
    """Answers every request at once, looking at nothing but where it ends."""

    def __init__(self) -> None:
        self._kept = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._kept += data
        while True:
            head, found, rest = self._kept.partition(b"\r\n\r\n")
            if not found:
                return
            _, has_body, length_on = head.lower().partition(b"content-length: ")
            length = int(length_on.split(b"\r\n", 1)[0]) if has_body else 0
            if len(rest) < length:
                return
            self._kept = rest[length:]
            self._transport.write(_RESPONSE)


async def provide(orders: Orders) -> None:
    """Serve a provider that answers at once; answer each order with its port."""
    server = await asyncio.get_running_loop().create_server(_Provider, "127.0.0.1", 0, backlog=1024)
    async for _order in orders:
        orders.answer(server.sockets[0].getsockname()[1])
    server.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One turn of one way, by CLOCK_MONOTONIC."""

    way: str
    start: float
    counted_from: float
    end: float


async def _call(orders: Orders, url: str, port: int) -> None:
    base_url = f"http://127.0.0.1:{port}/v1"
    resolve = HttpResolver({f"127.0.0.1:{port}": PROVIDER_MODEL.provider_name})
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    clients = {
        "bare": httpx2.AsyncClient(limits=limits),
        "forebay": forebay.http_client(
            url, max_parallel_requests=CAP, config=told(CAP), resolve=resolve
        ),
    }
    sdks = {
        way: AsyncOpenAI(api_key="any", base_url=base_url, http_client=client, max_retries=0)
        for way, client in clients.items()
    }
    async for order in orders:
        orders.answer(await _turn(sdks[order.way], order))
    for sdk in sdks.values():
        await sdk.close()


async def _turn(sdk: AsyncOpenAI, order: Order) -> int:
    """Return how many calls ended in the counted time."""
    calls = 0

    async def call_on() -> None:
        nonlocal calls
        while time.monotonic() < order.end:
            await sdk.chat.completions.create(
                model=PROVIDER_MODEL.model_id,
                messages=[{"role": "user", "content": "How much water is enough?"}],
            )
            calls += order.counted_from <= time.monotonic() < order.end

    await asyncio.sleep(order.start - time.monotonic())
    await asyncio.gather(*(call_on() for _ in range(IN_FLIGHT)))
    return calls


def _round(fleet: Fleet, inputs: Inputs, number: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for way in rotated(WAYS, number):
        start = time.monotonic() + STARTUP_SECONDS
        counted_from = start + inputs.warm_up_seconds
        end = counted_from + inputs.seconds
        (calls,) = fleet.ask({0: Order(way=way, start=start, counted_from=counted_from, end=end)})
        found[f"{way}.calls_per_second"] = calls / inputs.seconds
    return found


def run(inputs: Inputs, progress: Progress) -> Outcome:
    """Run the scenario on an embedded server.

    Raises:
        InvariantBrokenError: something was left behind.
    """
    with EmbeddedServer() as server, Fleet(1, provide) as provider:
        (port,) = provider.ask({0: "port"})
        with Fleet(1, _call, server.url, port) as fleet:
            iterations = repeat(
                "transport", inputs.rounds, lambda number: _round(fleet, inputs, number), progress
            )
        snapshots = final_snapshots(server.url, PROVIDER_MODEL)
    rates = [middle(iterations, f"{way}.calls_per_second", "calls/s") for way in WAYS]
    return Outcome(
        inputs=asdict(inputs) | {"in_flight": IN_FLIGHT, "cap": CAP},
        iterations=iterations,
        figures=[
            Figure(
                name=f"openai SDK, {IN_FLIGHT} in flight, to the bare SDK",
                rounds=ratios(iterations, "forebay.calls_per_second", "bare.calls_per_second"),
                aim=0.92,
                is_floor=True,
                beside=" / bare ".join(rates),
            ),
            Figure(
                name=f"openai SDK, {IN_FLIGHT} in flight, through leases",
                rounds=of_rounds(iterations, "forebay.calls_per_second"),
                unit="calls/s",
                beside=f"bare {rates[1]}",
            ),
        ],
        final_request_snapshots=snapshots,
    )
