"""Measures calls while the server is away, failovers, and members that come back."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import forebay
from bench.reliability.document import table
from bench.reliability.workers_back import workers_come_back
from forebay.coordinator.logs import Logger
from forebay.coordinator.server.address import UnixAddress
from forebay.coordinator.server.availability import Availability
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.embedded_files import make_runtime_dir
from forebay.coordinator.server.link import Link
from forebay.coordinator.server.place import OneServer
from forebay.coordinator.supervision import MOST_DOUBLINGS, Guard
from tests.contract.chat_domain import MODEL, item
from tests.support import wait_until
from tests.support_outages import CALLS, FAULTS, Caller, Ended, caller_behind, measured
from tests.support_proxy import FaultyProxy
from tests.support_sentinel import SERVICE, Watched, watched_primary

DEADLINE_SECONDS: Final = 0.8
HANG_SECONDS: Final = 30.0
BUCKET_SECONDS: Final = 0.1
AT_FAILOVERS: Final = (
    "Two members under load behind a Sentinel, from the instant at which it names the new primary:"
)
ENDS: Final[dict[str, Callable[[Watched], None]]] = {
    "killed": Watched.kill_primary,
    "stopped": Watched.stop_primary,
    "killed, and its last writes were not replicated": Watched.kill_primary_ahead,
}
"""The faults of a primary that a failover is measured after."""
AT_RETURN: Final = (
    "{members} members that lost the server at one instant, {away:g} s ago, when it takes"
    " connections again and closes each: tries to connect in a tenth of a second, most {most}, mean"
    " {mean:.0f}."
)
AT_WORKERS_RETURN: Final = (
    "{workers} workers of a pool, whose server was away for {away:g} s, in the same way: with"
    " links of shards, wake-ups, heartbeats and single commands, most {most}, mean {mean:.0f}."
)
SETTINGS: Final = forebay.MemberSettings(
    ttl_seconds=3600.0, call_timeout_seconds=DEADLINE_SECONDS, recheck_seconds=0.2
)


async def longest_calls(faults: list[str]) -> dict[str, dict[str, Ended]]:
    """Return how each call ended under each fault, by fault and call; each is made alone."""
    found: dict[str, dict[str, Ended]] = {}
    for fault in faults:
        found[fault] = {}
        for name, call in [*CALLS.items(), ("leave", Caller.leave)]:
            with EmbeddedServer() as server:
                async with FaultyProxy(server.url) as proxy, caller_behind(proxy, SETTINGS) as one:
                    FAULTS[fault](proxy)
                    found[fault][name] = await measured(call(one), HANG_SECONDS)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """The result of a failover for its members.

    Attributes:
        seconds: from the instant at which the Sentinel named the new primary to the first grant.
        is_in_order: whether the audit of the shard agreed afterwards.
    """

    seconds: float
    is_in_order: bool


async def follow(watched: Watched, fault: str) -> Followed:
    """Let two members under load follow a failover."""
    settings = forebay.MemberSettings(ttl_seconds=3.0)
    grants: list[float] = []
    async with (
        forebay.connect(watched.url, settings) as one,
        forebay.connect(watched.url, settings) as other,
    ):
        for requests in (one, other):
            await requests.register(MODEL, "main", 4)

        async def call(requests: Any) -> None:
            while True:
                with contextlib.suppress(forebay.CoordinatorError):
                    lease = await requests.acquire(item())
                    grants.append(time.monotonic())
                    await requests.release(lease, forebay.SUCCESS)
                await asyncio.sleep(0.001)

        callers = [asyncio.create_task(call(requests)) for requests in (one, other) * 4]
        await wait_until(lambda: len(grants) >= 100)
        await asyncio.to_thread(ENDS[fault], watched)
        await wait_until(lambda: _is_named(watched), HANG_SECONDS)
        named_at = time.monotonic()
        await wait_until(lambda: grants[-1] > named_at, HANG_SECONDS)
        first = next(at for at in grants if at > named_at)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        is_in_order = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HANG_SECONDS):
                while not is_in_order:
                    is_in_order = (await one.pressure.audit(MODEL)).ok
    return Followed(seconds=first - named_at, is_in_order=is_in_order)


def _is_named(watched: Watched) -> bool:
    """Whether the Sentinel names the replica as the primary."""
    sentinel: Any = watched.sentinel
    named = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
    return int(named[1]) == watched.replica_port


def failovers() -> dict[str, Followed]:
    """Return how members followed each fault of the primary."""
    found = {}
    for fault in ENDS:
        with tempfile.TemporaryDirectory() as folder, watched_primary(Path(folder)) as watched:
            found[fault] = asyncio.run(follow(watched, fault))
    return found


async def come_back(members: int, away_seconds: float, seen_seconds: float = 3.0) -> list[int]:
    """Return how many members tried to connect in each tenth of a second after an outage.

    All lose the server at the same instant. It takes their connections and closes them, so that
    each tries again: the worst that a server which is starting can do.
    """
    folder = make_runtime_dir()
    address = UnixAddress(path=str(folder / "server.sock"))
    guard, availability = Guard(Logger("forebay.bench")), Availability(address)
    servers = [
        OneServer(address, forebay.MemberSettings(), availability, MOST_DOUBLINGS)
        for _ in range(members)
    ]

    async def opened() -> None:
        """Never called: no connection lasts."""

    links = [
        Link(
            server, (), name=f"member-{number}", guard=guard,
            state=availability.state_of("calls"), timeout_seconds=5.0,
            on_reply=lambda _reply: None, on_open=opened, on_refused=lambda _error: None,
            on_repaired=lambda: None, on_lost=lambda _error: None,
        )
        for number, server in enumerate(servers)
    ]  # fmt: skip
    for link in links:
        link.repair()
    await asyncio.sleep(away_seconds)
    counts: Counter[int] = Counter()
    began_at = time.monotonic()

    def accepted(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counts[int((time.monotonic() - began_at) / BUCKET_SECONDS)] += 1
        writer.close()

    async with await asyncio.start_unix_server(accepted, address.path):
        await asyncio.sleep(seen_seconds)
    await asyncio.gather(*(link.stop() for link in links))
    for server in servers:
        await server.close()
    shutil.rmtree(folder)
    return [counts[bucket] for bucket in range(round(seen_seconds / BUCKET_SECONDS))]


def calls_table(found: dict[str, dict[str, Ended]]) -> str:
    """Return the longest call under each fault."""
    rows = []
    for fault, ends in found.items():
        longest = max(ends, key=lambda name: ends[name].seconds)
        seconds = ends[longest].seconds
        is_within = seconds <= DEADLINE_SECONDS + 0.5
        rows.append(
            (fault, str(len(ends)), f"{seconds:.2f} s", longest, "yes" if is_within else "**no**")
        )
    return table(("the server", "calls", "longest", "which", "within deadline + 0.5 s"), rows)


def outages(is_smoke: bool) -> str:
    """Calls while the server is away, failovers, and reconnects after an outage."""
    found = asyncio.run(longest_calls([*FAULTS][:2] if is_smoke else [*FAULTS]))
    followed = {} if is_smoke else failovers()
    members, away_seconds = (20, 1.0) if is_smoke else (500, 30.0)
    counts = asyncio.run(come_back(members, away_seconds))
    workers, workers_away_seconds = (3, 1.0) if is_smoke else (60, 15.0)
    of_workers = asyncio.run(workers_come_back(workers, workers_away_seconds))
    lines = [
        (f"the primary is {fault}", f"{one.seconds:.2f} s", "yes" if one.is_in_order else "**no**")
        for fault, one in followed.items()
    ]
    parts = [
        f"Each call alone, with a deadline of {DEADLINE_SECONDS:g} s:",
        calls_table(found),
        AT_FAILOVERS,
        table(("fault", "first grant after", "audit agrees"), lines),
        AT_RETURN.format(
            members=members,
            away=away_seconds,
            most=max(counts),
            mean=sum(counts) / len(counts),
        ),
        AT_WORKERS_RETURN.format(
            workers=workers,
            away=workers_away_seconds,
            most=max(of_workers),
            mean=sum(of_workers) / len(of_workers),
        ),
    ]
    return "\n\n".join(parts)
