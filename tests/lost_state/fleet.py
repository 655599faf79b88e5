"""Server, provider and callers of `tests.lost_state`, and the books from outside."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from forebay.contracts.errors import ForebayError
from forebay.contracts.identity import RequestDomain
from forebay.contracts.settings import MemberSettings
from forebay.contracts.snapshots import GlobalSnapshot
from forebay.coordinator.requests.administration import set_override_cap
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection
from tests.chaos.observers import LossPeriod, ProviderCall, read_calls
from tests.chaos.start import begin_provider, json_lines
from tests.lost_state.member import PROVIDER_MODEL
from tests.support import wait_until

CAP: Final = 8
PATIENCE_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 0.02
"""Between two looks, so that looking costs the machine little."""
TOLD_LATE_SECONDS: Final = 1.0
"""A member may hear so much later that it was expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The state that must be back after a loss."""

    static_cap: int
    override_cap: int | None
    limits: tuple[int, ...]
    quotas: tuple[tuple[str, int], ...]
    algorithm: str
    generation: str | None

    def is_back(self, before: Books, *, is_lost: bool) -> bool:
        """Whether all is as before, in another generation where something was lost."""
        same = (self.static_cap, self.override_cap, self.limits, self.quotas, self.algorithm) == (
            before.static_cap,
            before.override_cap,
            before.limits,
            before.quotas,
            before.algorithm,
        )
        return same and (self.generation != before.generation or not is_lost)


@dataclass(kw_only=True)
class Fleet:
    """Processes of callers at one provider/model.

    Attributes:
        folder: where calls and losses are noted.
        zero: the instant at which the clock of the provider's log was 0.
        client: of the provider.
        processes: of the callers.
    """

    url: str
    folder: Path
    base_url: str
    zero: float
    ttl_seconds: float
    connection: ServerConnection
    client: httpx.AsyncClient
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start one more process of callers."""
        words = (self.url, self.base_url, str(self.folder), str(self.ttl_seconds))
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.lost_state.member", *words], stdout=log, stderr=log
            )
        self.processes.append(process)

    def end(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()

    async def counters(self) -> dict[str, int]:
        """Return what the provider counts: ``in_flight`` now, ``ok`` ever."""
        told = await self.client.get(f"{self.base_url.removesuffix('/v1')}/truth")
        counters: dict[str, int] = told.json()["counters"]
        return counters

    async def until_full(self) -> None:
        """Wait until the provider serves as many calls as the cap allows."""

        async def is_full() -> bool:
            return (await self.counters())["in_flight"] >= CAP

        await _until(is_full)

    async def until_served(self, count: int) -> None:
        """Wait until the provider has served so many more calls."""
        wanted = (await self.counters())["ok"] + count

        async def has_served() -> bool:
            return (await self.counters())["ok"] >= wanted

        await _until(has_served)

    # -- the shard

    async def set_override(self, cap: int) -> None:
        """Set the operator's override, as often as it takes."""

        async def is_set() -> bool:
            with contextlib.suppress(ForebayError):
                await set_override_cap(self.connection, PROVIDER_MODEL, cap)
                return True
            return False

        await _until(is_set)

    async def books(self) -> Books | None:
        """Return the shard's books, None where its audit differs or it cannot be read."""
        pressure = RequestPressureSnapshotProvider(self.connection)
        try:
            audit = await pressure.audit(PROVIDER_MODEL)
            shard = await pressure.global_snapshot(PROVIDER_MODEL)
        except ForebayError:
            return None
        return _books(shard) if audit.ok and not shard.leak_diagnostics else None

    async def until_books(self) -> Books:
        """Wait until the audit agrees, and return the shard's books."""
        found: list[Books] = []

        async def has_books() -> bool:
            books = await self.books()
            found.extend([] if books is None else [books])
            return bool(found)

        await _until(has_books)
        return found[-1]

    async def until_back(self, before: Books, *, is_lost: bool) -> float:
        """Wait until the shard is as before a loss; return the instant.

        Raises:
            AssertionError: it was not within two minutes; says what it is instead.
        """
        now: Books | None = None

        async def is_back() -> bool:
            nonlocal now
            now = await self.books()
            return now is not None and now.is_back(before, is_lost=is_lost)

        try:
            await _until(is_back)
        except AssertionError as error:
            raise AssertionError(f"before {before}, now {now}") from error
        return time.monotonic()

    # -- what was seen outside

    def calls(self) -> list[ProviderCall]:
        """Return the calls that the provider has served."""
        return read_calls(json_lines(self.folder / "provider"), self.zero)

    def losses(self) -> list[LossPeriod]:
        """Return when which process may have been without its membership while it called."""
        found = []
        for file in self.folder.glob("lost-*"):
            for line in file.read_text().splitlines():
                at = float(line.split()[0])
                begin = at - self.ttl_seconds - TOLD_LATE_SECONDS
                found.append(LossPeriod(begin, at, file.name.removeprefix("lost-")))
        return found

    def told(self) -> list[tuple[float, float, str]]:
        """Return how each call ended for its caller."""
        lines = (line for file in self.folder.glob("calls-*") for line in json_lines(file))
        return [(began, ended, what) for began, ended, what in lines]


async def _until(predicate: Callable[[], Awaitable[bool]]) -> None:
    async def paced() -> bool:
        await asyncio.sleep(LOOK_SECONDS)
        return await predicate()

    await wait_until(paced, timeout=PATIENCE_SECONDS)


def _books(shard: GlobalSnapshot) -> Books:
    chat = shard.domains[RequestDomain.CHAT]
    return Books(
        static_cap=shard.static_cap,
        override_cap=shard.override_cap,
        limits=tuple(domain.current_limit for domain in shard.domains.values()),
        quotas=tuple((budget.budget, budget.limit) for budget in shard.budgets),
        algorithm=chat.algorithm,
        generation=shard.generation,
    )


@contextlib.asynccontextmanager
async def open_fleet(
    url: str, folder: Path, *, call_seconds: float, ttl_seconds: float, processes: int = 3
) -> AsyncIterator[Fleet]:
    """Start a provider and processes of callers, and wait until the cap is used up."""
    async with contextlib.AsyncExitStack() as stack:
        base_url, zero = begin_provider(stack.enter_context(contextlib.ExitStack()), folder)
        truth: dict[str, Any] = {
            "concurrency": None,
            "latency_median_seconds": call_seconds,
            "latency_sigma": 0.0,
        }
        client = await stack.enter_async_context(httpx.AsyncClient())
        answer = await client.post(f"{base_url.removesuffix('/v1')}/truth", json=truth)
        answer.raise_for_status()
        patient = MemberSettings(call_timeout_seconds=2.0)
        connection = await stack.enter_async_context(await ServerConnection.open(url, patient))
        fleet = Fleet(
            url=url,
            folder=folder,
            base_url=base_url,
            zero=zero,
            ttl_seconds=ttl_seconds,
            connection=connection,
            client=client,
        )
        stack.callback(fleet.end)
        for _ in range(processes):
            fleet.start()
        yield fleet
