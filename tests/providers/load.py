"""The load: processes full of coroutines that call a provider with the openai SDK, bare or not.

Everything is the same both ways but the SDK's ``http_client``, so what differs is Forebay.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import httpx2
from openai import AsyncOpenAI, RateLimitError

import forebay
from bench.harness import STARTUP_SECONDS, Fleet, Orders
from forebay.transports import HttpResolver

PROCESSES: Final = 4
HTTP_OK: Final = 200
HTTP_TOO_MANY: Final = 429
CALL_TIMEOUT_SECONDS: Final = 600.0
"""Above any wait in the queue: no call may end by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What every process does.

    Attributes:
        base_url: the provider's, as the SDK wants it.
        api_key: what the provider wants; none of ours is a secret.
        model: which one is called.
        prompt: what is asked.
        max_tokens: the bound of each answer.
        seconds: how long new calls begin; those under way then end as they end.
        coroutines: in each process.
        max_retries: what the SDK does by itself on a 429, honouring ``retry-after``.
    """

    base_url: str
    api_key: str = "any"
    model: str = "mock-chat"
    prompt: str = "How much water is enough for the turbine in a dry season?"
    max_tokens: int = 16
    seconds: float = 30.0
    coroutines: int = 16
    max_retries: int = 8

    @property
    def provider_model(self) -> forebay.ProviderModelKey:
        """Whose shard the calls are in."""
        return forebay.ProviderModelKey(provider_name="provider", model_id=self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the processes reach the provider.

    Attributes:
        name: for the table.
        max_parallel_requests: what is registered; None is the bare SDK.
        config: registered too.
    """

    name: str
    max_parallel_requests: int | None = None
    config: forebay.RequestAdmissionConfig = field(default_factory=forebay.RequestAdmissionConfig)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What processes saw; times in seconds since they began together.

    Attributes:
        answers: when each HTTP attempt was answered, with its status.
        calls: calls of the SDK that began.
        ok: that returned a completion.
        given_up: that ended with the SDK's ``RateLimitError``, after its retries.
        others: that ended with anything else, by the exception's type.
        finished_at: when the last call ended.
    """

    answers: list[tuple[float, int]] = field(default_factory=list)
    calls: int = 0
    ok: int = 0
    given_up: int = 0
    others: Counter[str] = field(default_factory=Counter)
    finished_at: float = 0.0

    def add(self, other: Tally) -> None:
        """Add what another process saw."""
        self.answers += other.answers
        self.calls += other.calls
        self.ok += other.ok
        self.given_up += other.given_up
        self.others += other.others
        self.finished_at = max(self.finished_at, other.finished_at)

    @property
    def statuses(self) -> Counter[int]:
        """How many attempts were answered with each status."""
        return Counter(status for _, status in self.answers)

    def count(self, status: int, since: float = 0.0, until: float = float("inf")) -> int:
        """Count the answers with a status in a span of the run."""
        return sum(status == found for at, found in self.answers if since <= at < until)

    def refused_share(self, since: float = 0.0, until: float = float("inf")) -> float:
        """Return the 429s among all answers in a span of the run; 0 where there are none."""
        total = sum(since <= at < until for at, _ in self.answers)
        return self.count(HTTP_TOO_MANY, since, until) / total if total else 0.0


def run_load(load: Load, way: Way, redis_url: str) -> Tally:
    """Put the load on the provider from `PROCESSES` processes; return what all of them saw.

    Raises:
        InvariantBrokenError: a process ended too early.
    """
    total = Tally()
    with Fleet(PROCESSES, serve, load, way, redis_url) as fleet:
        begin_at = time.monotonic() + STARTUP_SECONDS
        for tally in fleet.ask(dict.fromkeys(range(PROCESSES), begin_at)):
            total.add(tally)
    return total


async def serve(orders: Orders, load: Load, way: Way, redis_url: str) -> None:
    """Run the load at each instant that is ordered, and answer with a `Tally`."""
    async for begin_at in orders:
        await asyncio.sleep(max(0.0, begin_at - time.monotonic()))
        tally = Tally()
        async with AsyncOpenAI(
            base_url=load.base_url,
            api_key=load.api_key,
            http_client=http_client(load, way, redis_url, tally, begin_at),
            max_retries=load.max_retries,
            timeout=CALL_TIMEOUT_SECONDS,
        ) as client:
            async with asyncio.TaskGroup() as group:
                for _ in range(load.coroutines):
                    group.create_task(_call_on(client, load, tally, begin_at + load.seconds))
            tally.finished_at = time.monotonic() - begin_at
        # Only now: the client has left the fleet, so every lease has been given back.
        orders.answer(tally)


def http_client(
    load: Load, way: Way, redis_url: str, tally: Tally, begin_at: float
) -> httpx2.AsyncClient:
    """Return the one thing that differs: the SDK's ``http_client``, bare or Forebay's."""

    async def note(response: httpx2.Response) -> None:
        tally.answers.append((time.monotonic() - begin_at, response.status_code))

    hooks = {"response": [note]}
    if way.max_parallel_requests is None:
        return httpx2.AsyncClient(
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
            follow_redirects=True,
            event_hooks=hooks,
        )
    host = load.base_url.removeprefix("http://").partition("/")[0]
    return forebay.http_client(
        redis_url,
        max_parallel_requests=way.max_parallel_requests,
        config=way.config,
        client_options={"event_hooks": hooks},
        resolve=HttpResolver({host: load.provider_model.provider_name}),
    )


async def _call_on(client: AsyncOpenAI, load: Load, tally: Tally, ends_at: float) -> None:
    while time.monotonic() < ends_at:
        tally.calls += 1
        try:
            await client.chat.completions.create(
                model=load.model,
                messages=[{"role": "user", "content": load.prompt}],
                max_tokens=load.max_tokens,
            )
        except RateLimitError:
            tally.given_up += 1
        except Exception as error:  # noqa: BLE001 - counted, and the run fails by it
            tally.others[f"{type(error).__name__}: {error}"[:200]] += 1
        else:
            tally.ok += 1
