"""The load: processes full of coroutines that call a provider with the openai SDK, bare or not.

Everything is the same both ways but the SDK's ``http_client``, so what differs is Forebay.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import httpx2
from openai import APIStatusError, AsyncOpenAI

import forebay
from bench.harness import STARTUP_SECONDS, Fleet, Orders
from forebay.transports import HttpResolver

PROCESSES: Final = 4
HTTP_OK: Final = 200
HTTP_TOO_MANY: Final = 429
REFUSED: Final = frozenset({HTTP_TOO_MANY, 503, 529})
CALL_TIMEOUT_SECONDS: Final = 600.0
"""Above any wait in the queue: no call may end by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant of the load: one group of the fair queue.

    Attributes:
        name: of the group.
        weight: of the group.
        coroutines: in each process.
    """

    name: str = "all"
    weight: float = 1.0
    coroutines: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Parameters that all worker processes of a fleet share.

    Attributes:
        base_url: the provider's, as the SDK wants it.
        api_key: what the provider wants; none of ours is a secret.
        model: which one is called.
        prompt: what is asked.
        max_tokens: the bound of each answer.
        seconds: how long new calls begin; those under way then end as they end.
        tenants: who calls.
        max_retries: what the SDK does by itself on a 429, honouring ``retry-after``.
    """

    base_url: str
    api_key: str = "any"
    model: str = "mock-chat"
    prompt: str = "How much water is enough for the turbine in a dry season?"
    max_tokens: int = 16
    seconds: float = 30.0
    tenants: tuple[Tenant, ...] = (Tenant(),)
    max_retries: int = 8

    @property
    def provider_model(self) -> forebay.ProviderModelKey:
        """The provider and model whose request shard admits the calls."""
        return forebay.ProviderModelKey(provider_name="provider", model_id=self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The way in which processes reach the provider.

    Attributes:
        name: for the table.
        max_parallel_requests: what is registered; None is the SDK without Forebay.
        config: registered too.
        connections: of a process without Forebay, which then calls that many at once; None for any.
        is_apart: each process has a server of its own, so that none knows of the others.
    """

    name: str
    max_parallel_requests: int | None = None
    config: forebay.RequestAdmissionConfig = field(default_factory=forebay.RequestAdmissionConfig)
    connections: int | None = None
    is_apart: bool = False


class Answer(NamedTuple):
    """An HTTP attempt that was answered.

    Attributes:
        at: seconds since the processes began together.
        status: of HTTP.
        tenant: whose attempt it was.
    """

    at: float
    status: int
    tenant: str


@dataclass(slots=True, kw_only=True)
class Tally:
    """Measurements of the worker processes; times in seconds since their common start.

    Attributes:
        answers: to each HTTP attempt.
        calls: calls of the SDK that began.
        ok: that returned a completion.
        given_up: that ended refused, after the SDK's retries.
        others: that ended with anything else, by the exception's type.
        finished_at: when the last call ended.
    """

    answers: list[Answer] = field(default_factory=list)
    calls: int = 0
    ok: int = 0
    given_up: int = 0
    others: Counter[str] = field(default_factory=Counter)
    finished_at: float = 0.0

    def add(self, other: Tally) -> None:
        """Add the tally of another process."""
        self.answers += other.answers
        self.calls += other.calls
        self.ok += other.ok
        self.given_up += other.given_up
        self.others += other.others
        self.finished_at = max(self.finished_at, other.finished_at)

    @property
    def statuses(self) -> Counter[int]:
        """The number of answers of each status."""
        return Counter(answer.status for answer in self.answers)

    def count(self, status: int, since: float = 0.0, until: float = float("inf")) -> int:
        """Count the answers with a status in a span of the run."""
        return sum(a.status == status and since <= a.at < until for a in self.answers)

    def refused_share(self, since: float = 0.0, until: float = float("inf")) -> float:
        """Return the refusals among all answers in a span of the run; 0 where there are none."""
        total = sum(since <= answer.at < until for answer in self.answers)
        return self.refused(since, until) / total if total else 0.0

    def refused(self, since: float = 0.0, until: float = float("inf")) -> int:
        """Count the refusals in a span of the run: 429, 503 and 529."""
        return sum(self.count(status, since, until) for status in REFUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A fleet with its load.

    Attributes:
        load: its calls.
        way: how they go.
        redis_urls: the server of each process, or of all where there is one.
    """

    load: Load
    way: Way
    redis_urls: tuple[str, ...]


def run_load(load: Load, way: Way, redis_url: str) -> Tally:
    """Put the load on the provider from `PROCESSES` processes; return their joint tally.

    Raises:
        InvariantBrokenError: a process ended too early.
    """
    with Fleet(PROCESSES, serve) as processes:
        return run_parts(processes, [Part(load=load, way=way, redis_urls=(redis_url,))])[0]


def run_parts(
    processes: Fleet,
    parts: Sequence[Part],
    on_begin: Callable[[float], None] = lambda _begin_at: None,
) -> list[Tally]:
    """Run fleets of `PROCESSES` processes each at the same time; return what each fleet saw.

    Args:
        processes: which `serve`, enough for all fleets.
        parts: the fleets.
        on_begin: told when all begin, by ``time.monotonic``, shortly before.

    Raises:
        InvariantBrokenError: a process ended too early.
    """
    tallies = [Tally() for _ in parts]
    orders = {
        number * PROCESSES + process: Order(part, process)
        for number, part in enumerate(parts)
        for process in range(PROCESSES)
    }
    processes.ask(orders)  # what takes long on a busy machine is done before all begin
    begin_at = time.monotonic() + STARTUP_SECONDS
    on_begin(begin_at)
    for index, tally in enumerate(processes.ask(dict.fromkeys(orders, begin_at))):
        tallies[index // PROCESSES].add(tally)
    return tallies


class Order(NamedTuple):
    """Parameters of one worker process.

    Attributes:
        part: of which it is one.
        process: its number in that.
    """

    part: Part
    process: int


class _Callers:
    """A tenant's coroutines in one process, made and then begun."""

    def __init__(self, order: Order, tenant: Tenant, tally: Tally) -> None:
        self._load = order.part.load
        self._tenant = tenant
        self._tally = tally
        self._begin_at = 0.0
        self._client = AsyncOpenAI(
            base_url=self._load.base_url,
            api_key=self._load.api_key,
            http_client=http_client(order, tenant, self._note),
            max_retries=self._load.max_retries,
            timeout=CALL_TIMEOUT_SECONDS,
        )
        self._create = self._client.chat.completions.create  # the SDK imports it only now

    async def run(self, begin_at: float) -> None:
        """Call until the load's seconds are over, then leave the fleet."""
        self._begin_at = begin_at
        async with self._client:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._tenant.coroutines):
                    group.create_task(self._call_on(begin_at + self._load.seconds))
            finished_at = time.monotonic() - begin_at
            self._tally.finished_at = max(self._tally.finished_at, finished_at)

    async def _note(self, response: httpx2.Response) -> None:
        at = time.monotonic() - self._begin_at
        self._tally.answers.append(Answer(at, response.status_code, self._tenant.name))

    async def _call_on(self, ends_at: float) -> None:
        load, tally = self._load, self._tally
        while time.monotonic() < ends_at:
            tally.calls += 1
            try:
                await self._create(
                    model=load.model,
                    messages=[{"role": "user", "content": load.prompt}],
                    max_tokens=load.max_tokens,
                )
            except Exception as error:  # noqa: BLE001 - counted, and the run fails by it
                if isinstance(error, APIStatusError) and error.status_code in REFUSED:
                    tally.given_up += 1
                else:
                    tally.others[f"{type(error).__name__}: {error}"[:200]] += 1
            else:
                tally.ok += 1


async def serve(orders: Orders) -> None:
    """Make the callers of each `Order`, begin at the instant ordered next, answer a `Tally`."""
    callers: list[_Callers] = []
    tally = Tally()
    async for order in orders:
        if isinstance(order, Order):
            tally = Tally()
            tenants = order.part.load.tenants
            callers = [_Callers(order, tenant, tally) for tenant in tenants]
            orders.answer("prepared")
            continue
        await asyncio.sleep(max(0.0, order - time.monotonic()))
        async with asyncio.TaskGroup() as group:
            for some in callers:
                group.create_task(some.run(order))
        # Only now: the clients have left the fleet, so every lease has been given back.
        orders.answer(tally)


def http_client(
    order: Order, tenant: Tenant, note: Callable[[httpx2.Response], Awaitable[None]]
) -> httpx2.AsyncClient:
    """Return the one thing that differs: the SDK's ``http_client``, bare or Forebay's.

    Args:
        order: how it reaches the provider.
        tenant: whose calls these are.
        note: told of each answer.
    """
    load, way, redis_urls = order.part.load, order.part.way, order.part.redis_urls
    hooks = {"response": [note]}
    if way.max_parallel_requests is None:
        return httpx2.AsyncClient(
            limits=httpx2.Limits(
                max_connections=way.connections, max_keepalive_connections=way.connections
            ),
            follow_redirects=True,
            event_hooks=hooks,
        )
    host = load.base_url.removeprefix("http://").partition("/")[0]
    return forebay.http_client(
        redis_urls[order.process % len(redis_urls)],
        max_parallel_requests=way.max_parallel_requests,
        config=way.config,
        client_options={"event_hooks": hooks},
        group=forebay.RequestGroupSpec(key=tenant.name, weight=tenant.weight),
        resolve=HttpResolver({host: load.provider_model.provider_name}),
    )
