"""The scene of a chaos run: the targets of its faults, and their permitted losses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from forebay.contracts.errors import ForebayError
from forebay.contracts.identity import ProviderModelKey
from forebay.coordinator.requests.administration import set_override_cap
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from tests.chaos.caller import MODEL, PROVIDER
from tests.chaos.fleet import TTL_SECONDS, Fleet
from tests.chaos.losses import StateLoss
from tests.chaos.observers import CapMove, LossPeriod
from tests.chaos.pipes import Pipe
from tests.chaos.servers import Servers

SHARD: Final = ProviderModelKey(provider_name=PROVIDER, model_id=MODEL)
POOL: Final = "default"
RUNS_POOL: Final = "runs"
TENANTS: Final = ("red", "green", "blue")
INTERVAL_SECONDS: Final = TTL_SECONDS / 3
SLACK_SECONDS: Final = 2.0
"""After a fault, until a process that lost its membership has heard of it."""
USUAL_TRUTH: Final = {
    "concurrency": 12,
    "latency_median_seconds": 0.3,
    "latency_sigma": 0.3,
    "error_rate": 0.0,
    "refusal_rate": 0.0,
    "retry_after_seconds": 0.3,
}
PATIENCE_SECONDS: Final = 30.0
"""Within which an operator's call is tried again while the server is away."""


@dataclass(eq=False, kw_only=True)
class Scene:
    """The servers and processes that faults are injected into, and a record of the faults.

    Attributes:
        own: the pipe of this process.
        enqueue: submits a job until the server has taken it.
        read_results: reads all results of jobs, and keeps them.
        lost: periods in which a process may lose its membership.
        away: periods in which a process cannot state what it holds.
        losses: of the server's state.
        without_payload: jobs whose payload was deleted.
        caps: how the cap was moved.
        under_way: begin and end of each fault.
    """

    fleet: Fleet
    servers: Servers
    provider_url: str
    own: Pipe
    connection: ServerConnection
    tasks: TaskAdmissionController
    lost: list[LossPeriod] = field(default_factory=list)
    away: list[LossPeriod] = field(default_factory=list)
    losses: list[StateLoss] = field(default_factory=list)
    without_payload: set[str] = field(default_factory=set)
    caps: list[CapMove] = field(default_factory=list)
    under_way: list[tuple[float, float]] = field(default_factory=list)
    enqueue: Callable[..., Awaitable[None]]
    read_results: Callable[[], Awaitable[Any]]
    server_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def note(self, name: str, *values: Any) -> None:
        """Write a line to the log of the run, for the analysis of differences."""
        with (self.fleet.folder / "faults").open("a") as file:
            file.write(json.dumps([name, *values], default=str) + "\n")

    @contextlib.asynccontextmanager
    async def may_lose(self, process: str, harmless_seconds: float) -> AsyncIterator[None]:
        """Note a period in which a process cannot state what it holds.

        Args:
            process: its name, or `ALL`.
            harmless_seconds: the longest period that its membership bears.
        """
        began = time.monotonic()
        try:
            yield
        finally:
            ended = time.monotonic()
            self.away.append(LossPeriod(began, ended, process))
            if ended - began > harmless_seconds:
                self.lost.append(LossPeriod(began, ended + SLACK_SECONDS, process))

    async def truth(self, **changes: Any) -> None:
        """Change limits and faults of the provider."""
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{self.provider_url}/truth", json=changes)
            answer.raise_for_status()

    async def operate(self, call: Callable[[], Awaitable[Any]]) -> None:
        """Repeat an operator's call until the server carries it out."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                await call()
            except ForebayError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
            else:
                return

    async def move_cap(self, cap: int) -> None:
        """Move the cap by an operator's override."""
        began = time.monotonic()
        await self.operate(lambda: set_override_cap(self.connection, SHARD, cap))
        self.caps.append(CapMove(began, time.monotonic(), cap))
