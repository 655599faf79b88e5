"""The fleets of a row: their ways to the provider, and the watch of their windows."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import redis

import forebay
from bench.harness import InvariantBrokenError, final_snapshots
from bench.shared_capacity.load import PROCESSES, Load, Tally, Way
from bench.shared_capacity.rows import CAP, Provider, Row
from bench.simulate.command import RULES
from forebay import RequestAdmissionConfig
from forebay.coordinator.keys import request_shard
from forebay.coordinator.scripts.records import parsed
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.urls import parse_url

SAMPLE_SECONDS: Final = 0.1

TOLD: Final = "told"
STEADY: Final = "steady"
PAIR: Final = (TOLD, STEADY)
"""Fleets of worker processes that run at the same time, each against its own provider instance."""
OTHERS: Final = ("aimd", "aimd-each", "split", "sdk")


def way_of(name: str, row: Row) -> Way:
    """Return how the processes of a fleet reach a row's provider.

    ``told`` has the limit as its cap or the quotas registered; ``steady`` and ``aimd`` are told a
    cap of 64 alone; ``aimd-each`` has a server, so a window, in each process; ``split`` is the SDK
    with a quarter of the limit as each process's connections; ``sdk`` has its own retries alone.
    """
    match name:
        case "told":
            return Way(name=name, max_parallel_requests=row.told_cap, config=row.told_config)
        case "steady":
            return Way(name=name, max_parallel_requests=CAP)
        case "aimd" | "aimd-each":
            config = RequestAdmissionConfig(tuning=RULES["aimd"])
            is_apart = name == "aimd-each"
            return Way(name=name, max_parallel_requests=CAP, config=config, is_apart=is_apart)
        case "split":
            return Way(name=name, connections=max(1, (row.limit or CAP) // PROCESSES))
        case _:
            return Way(name=name)


@dataclass(slots=True, kw_only=True)
class Fleet:
    """A fleet that runs against an instance of the provider.

    Attributes:
        way: how it reaches the provider.
        provider: the instance.
        load: its calls.
        redis_urls: its server, or that of each process.
        operator: a member of this process, which registers what the fleet is told; or None.
        windows: (seconds after the begin, limit, in flight), each tenth of a second.
    """

    way: Way
    provider: Provider
    load: Load
    redis_urls: tuple[str, ...]
    operator: forebay.BlockingRequestAdmissionController | None = None
    windows: list[tuple[float, int, int]] = field(default_factory=list)

    def watch(self, begin_at: float, ends: threading.Event) -> None:
        """Note the window until the run ends; several servers' are added up."""
        if self.way.max_parallel_requests is None:
            return
        key = request_shard(self.load.provider_model)["meta"]
        with contextlib.ExitStack() as opened:
            clients = [opened.enter_context(open_sync(parse_url(url))) for url in self.redis_urls]
            while not ends.wait(SAMPLE_SECONDS):
                found = [_window(client, key) for client in clients]
                limit, in_flight = (sum(numbers) for numbers in zip(*found, strict=True))
                self.windows.append((time.monotonic() - begin_at, limit, in_flight))

    def follow(self, limit: int) -> None:
        """Register a new limit for the informed fleet: the smallest registered cap holds."""
        if self.operator is not None:
            key = self.load.provider_model
            self.operator.register(key, "limit", limit, self.way.config)

    def check(self, tally: Tally) -> dict[str, Any]:
        """Check the books of a run that is over; return what is left of each shard.

        Raises:
            InvariantBrokenError: a lease or waiter is left, the audit differs, a call ended
                otherwise than by a completion or a refusal, or provider and clients counted
                differently.
        """
        name = self.way.name
        if tally.others:
            raise InvariantBrokenError(f"{name}: calls ended with {dict(tally.others)}")
        if tally.calls != tally.ok + tally.given_up:
            raise InvariantBrokenError(f"{name}: {tally.calls} calls, {tally.ok} completions")
        counted = self.provider.counts.since(len(tally.answers))
        seen = (tally.statuses[200], tally.refused())
        if (counted[200], counted.total() - counted[200]) != seen:
            raise InvariantBrokenError(
                f"{name}: the provider counted {dict(counted)}, the clients"
                f" {dict(tally.statuses)}; expected the same, please report it."
            )
        if self.way.max_parallel_requests is None:
            return {}
        key = self.load.provider_model
        return {url: final_snapshots(url, key)[str(key)] for url in self.redis_urls}


def _window(client: redis.Redis, key: str) -> tuple[int, int]:
    text = cast("bytes | None", client.hget(key, "window_chat"))
    window = parsed(text, "requests", "window_chat")
    return int(window.get("current_limit", 0)), int(window.get("in_flight", 0))


@contextlib.contextmanager
def servers(way: Way) -> Iterator[tuple[str, ...]]:
    """Run the servers of a fleet; yield their URLs."""
    with contextlib.ExitStack() as started:
        count = PROCESSES if way.is_apart else 1
        yield tuple(started.enter_context(EmbeddedServer()).url for _ in range(count))


def load_of(row: Row, provider: Provider) -> Load:
    """Return a row's load on an instance."""
    return Load(
        base_url=provider.base_url,
        api_key=row.api_key,
        model=row.model,
        seconds=row.seconds,
        tenants=row.tenants,
    )


def watch_all(
    fleets: Sequence[Fleet], begin_at: float, ends: threading.Event
) -> list[threading.Thread]:
    """Watch the windows of fleets until the run ends; return the threads that do it."""
    threads = [threading.Thread(target=fleet.watch, args=(begin_at, ends)) for fleet in fleets]
    for thread in threads:
        thread.start()
    return threads
