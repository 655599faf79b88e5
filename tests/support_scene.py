"""A member behind a faulty proxy, a rival with a good line to the server, and the shard's books."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import redis

import forebay
from forebay.coordinator.keys import request_shard
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from tests.support import wait_until
from tests.support_proxy import Fault, FaultyProxy, Trap
from tests.support_records import read_record

MODEL: Final = forebay.ProviderModelKey(provider_name="acme", model_id="m")
KEYS: Final = request_shard(MODEL)
CAP: Final = 4
PATIENCE_SECONDS: Final = 10.0
"""Far above what anything here takes, far below a test's end: only a hang is that long."""
AIMD: Final = forebay.RequestAdmissionConfig(
    tuning=forebay.RequestAdmissionTuningConfig(rule="aimd")
)
"""A window that each success and each refusal moves, so that what happens twice is seen."""
CLOCK_FIELDS: Final = {b"record", "now_us", "last_us", "back_us", "next_check_us"}

Controller = forebay.AdaptiveRequestAdmissionController
Books = dict[str, Any]


def settings(
    *, call_timeout_seconds: float = PATIENCE_SECONDS, recheck_seconds: float = 0.2
) -> forebay.MemberSettings:
    """Return settings under which no heartbeat falls into a test."""
    return forebay.MemberSettings(
        ttl_seconds=3600.0,
        call_timeout_seconds=call_timeout_seconds,
        recheck_seconds=recheck_seconds,
    )


def item(
    *,
    attempt_id: str | None = None,
    wait_seconds: float | None = None,
    model: forebay.ProviderModelKey = MODEL,
) -> forebay.RequestAdmissionItem:
    """Return a new attempt; under an id of the test's choice, if it gives one."""
    resource = forebay.RequestResourceKey(provider_model=model)
    named = {} if attempt_id is None else {"attempt_id": attempt_id}
    return forebay.RequestAdmissionItem(
        resource=resource, queue_wait_timeout_seconds=wait_seconds, **named
    )


def outcome(kind: forebay.RequestOutcomeKind) -> forebay.RequestReleaseOutcome:
    return forebay.RequestReleaseOutcome(kind=kind)


@dataclass(kw_only=True)
class Scene:
    """Who takes part.

    Attributes:
        proxy: between the member and the server.
        member: the controller whose line is at fault.
        rival: another process's, on a good line.
        pressure: the shard's books, on a good line.
        held: leases that a test leaves to ``release_all``, with their holder.
    """

    proxy: FaultyProxy
    member: Controller
    rival: Controller
    pressure: RequestPressureSnapshotProvider
    client: redis.Redis
    held: list[tuple[Controller, forebay.RequestAdmissionLease]] = field(default_factory=list)

    async def take(self, controller: Controller) -> forebay.RequestAdmissionLease:
        """Acquire, and check that the lease is the one that was asked for."""
        asked = item()
        lease = await controller.acquire(asked)
        assert lease.lease_id == asked.attempt_id
        self.held.append((controller, lease))
        return lease

    async def fill(self) -> None:
        """Let the rival hold all there is."""
        for _ in range(CAP):
            await self.take(self.rival)

    async def free_one(self) -> None:
        """Let whoever took first give back, with success."""
        holder, lease = self.held.pop(0)
        assert (await holder.release(lease, forebay.SUCCESS)).released

    async def release_all(self) -> None:
        """Give back what the test still holds; then nobody may be left holding or waiting."""
        while self.held:
            holder, lease = self.held.pop()
            released = await holder.release(
                lease, outcome(forebay.RequestOutcomeKind.LOCAL_TIMEOUT)
            )
            assert released.released
        books = await self.books()
        assert (books["in_flight"], books["waiters"]) == (0, 0)

    def trap(self, word: str, fault: Fault) -> Trap:
        return self.proxy.trap(word, fault)

    async def books(self) -> Books:
        """Return what the shard counted, after an audit that agrees."""
        report = await self.pressure.audit(MODEL)
        assert report.ok, report.differences
        shard = await self.pressure.global_snapshot(MODEL)
        chat = shard.domains[forebay.RequestDomain.CHAT]
        assert shard.leak_diagnostics == {}
        return {
            "static_cap": shard.static_cap,
            "members": shard.member_count,
            "registrations": shard.registration_count,
            "in_flight": shard.aggregate_in_flight,
            "waiters": shard.waiters,
            "granted": chat.granted,
            "limit": chat.current_limit,
            "cuts": chat.cuts,
            "rate_limits": chat.consecutive_rate_limits,
            "streak": chat.success_streak,
            "outcomes": {kind.value: count for kind, count in chat.outcomes.items() if count},
        }

    async def until(self, **expected: Any) -> None:
        """Wait until the books say so."""

        async def agrees() -> bool:
            books = await self.books()
            return {name: books[name] for name in expected} == expected

        await wait_until(agrees, timeout=PATIENCE_SECONDS)

    def stored(self) -> dict[bytes, Any]:
        """Return every key of the shard as bytes, without what a clock moves."""
        found: dict[bytes, Any] = {}
        for key in KEYS.all:
            found[key.encode()] = self.client.dump(key)
        meta: dict[bytes | str, Any] = dict(self.client.hgetall(KEYS["meta"]))
        meta |= read_record(self.client, KEYS)
        found[KEYS["meta"].encode()] = {
            name: value for name, value in meta.items() if name not in CLOCK_FIELDS
        }
        found[KEYS["members"].encode()] = set(self.client.zrange(KEYS["members"], 0, -1))
        return found


async def soon(awaitable: Any) -> Any:
    """Return what an awaitable gives; TimeoutError where it hangs."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await awaitable


@contextlib.asynccontextmanager
async def open_scene(
    redis_url: str, member_settings: forebay.MemberSettings | None = None
) -> AsyncIterator[Scene]:
    """Open a scene on an empty server; member and rival are registered with the same cap."""
    async with contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultyProxy(redis_url))
        observer = await stack.enter_async_context(await ServerConnection.open(redis_url))
        rival = await stack.enter_async_context(forebay.connect(redis_url, settings()))
        member = await stack.enter_async_context(
            forebay.connect(proxy.url, member_settings or settings())
        )
        await rival.register(MODEL, "rival", CAP, AIMD)
        await member.register(MODEL, "member", CAP, AIMD)
        yield Scene(
            proxy=proxy,
            member=member,
            rival=rival,
            pressure=RequestPressureSnapshotProvider(observer),
            client=stack.enter_context(open_sync(parse_url(redis_url))),
        )
