"""Design 02, *Requests*: releasing never raises, and says what it found; on a real server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
import redis

import forebay
from forebay.coordinator.keys import request_shard
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from tests.support import wait_until
from tests.support_records import make_overdue

MODEL: Final = forebay.ProviderModelKey(provider_name="acme", model_id="m")
OTHER: Final = forebay.ProviderModelKey(provider_name="acme", model_id="other")
KEYS: Final = request_shard(MODEL)
SETTINGS: Final = forebay.MemberSettings(ttl_seconds=3600.0, recheck_seconds=0.2)
"""No heartbeat falls into a test, so what ends a membership here is what the test does."""
SHORT: Final = SETTINGS.model_copy(update={"ttl_seconds": 3.0})
"""Of members that are to wait for an interval of a server that knows none of them."""
FORGOTTEN: Final = {"stale_lease", "wrong_generation"}

Controller = forebay.AdaptiveRequestAdmissionController
Lease = forebay.RequestAdmissionLease


@dataclass(kw_only=True)
class Fleet:
    """Two members with a cap of 1 between them.

    Attributes:
        holder: whose releases are looked at.
        rival: another process's controller.
        lost: leases that the holder was told are lost.
    """

    holder: Controller
    rival: Controller
    pressure: RequestPressureSnapshotProvider
    client: redis.Redis
    lost: list[str]

    async def held(self, model: forebay.ProviderModelKey = MODEL) -> int:
        """Return the leases that are out, after an audit that agrees."""
        report = await self.pressure.audit(model)
        assert report.differences == ()
        return (await self.pressure.global_snapshot(model)).aggregate_in_flight

    async def until_waiting(self, count: int) -> None:
        async def agrees() -> bool:
            return (await self.pressure.global_snapshot(MODEL)).waiters == count

        await wait_until(agrees)

    def expire(self, lease: Lease) -> None:
        """Make the heartbeat of a lease's member overdue; the next operation finds out."""
        make_overdue(self.client, KEYS, lease.member_id)


@contextlib.asynccontextmanager
async def open_fleet(url: str, settings: forebay.MemberSettings = SETTINGS) -> AsyncIterator[Fleet]:
    lost: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        own, rivals = [
            await stack.enter_async_context(await ServerConnection.open(url, settings))
            for _ in range(2)
        ]
        holder = Controller(own, on_lease_lost=lambda lease, _why: lost.append(lease.lease_id))
        rival = Controller(rivals)
        for controller in (holder, rival):
            stack.push_async_callback(controller.close)
            await controller.register(MODEL, "main", 1)
        yield Fleet(
            holder=holder,
            rival=rival,
            pressure=RequestPressureSnapshotProvider(rivals),
            client=stack.enter_context(open_sync(parse_url(url))),
            lost=lost,
        )


@pytest.fixture
async def fleet(redis_url: str) -> AsyncIterator[Fleet]:
    async with open_fleet(redis_url) as fleet:
        yield fleet


def item(
    attempt_id: str | None = None, model: forebay.ProviderModelKey = MODEL
) -> forebay.RequestAdmissionItem:
    named = {} if attempt_id is None else {"attempt_id": attempt_id}
    return forebay.RequestAdmissionItem(
        resource=forebay.RequestResourceKey(provider_model=model), **named
    )


async def release(controller: Controller, lease: Lease) -> str:
    """Release with success; return the reason, after checking that it agrees with the rest."""
    async with asyncio.timeout(10.0):
        result = await controller.release(lease, forebay.SUCCESS)
    assert result.released is (result.reason is forebay.ReleaseReason.RELEASED)
    return result.reason.value


async def test_a_lease_is_released_once_however_often_it_is_tried(fleet: Fleet) -> None:
    lease = await fleet.holder.acquire(item())
    waits = [asyncio.ensure_future(fleet.rival.acquire(item())) for _ in range(2)]
    await fleet.until_waiting(2)

    both = [release(fleet.holder, lease), release(fleet.holder, lease)]
    assert sorted(await asyncio.gather(*both)) == ["duplicate", "released"]
    assert await release(fleet.holder, lease) == "duplicate"
    assert await release(fleet.rival, lease) == "duplicate"
    assert (await fleet.held(), sum(wait.done() for wait in waits)) == (1, 1)
    for wait in waits:
        assert await release(fleet.rival, await wait) == "released"
    assert await fleet.held() == 0


async def test_another_members_lease_is_left_alone(fleet: Fleet) -> None:
    lease = await fleet.holder.acquire(item())
    assert await release(fleet.rival, lease) == "stale_lease"
    assert (await fleet.held(), fleet.lost) == (1, [])
    assert await release(fleet.holder, lease) == "released"
    assert await fleet.held() == 0


async def test_a_lease_that_ended_with_its_member_is_stale(fleet: Fleet) -> None:
    lease = await fleet.holder.acquire(item())
    waits = asyncio.ensure_future(fleet.rival.acquire(item()))
    await fleet.until_waiting(1)
    fleet.expire(lease)
    taken = await waits

    assert await release(fleet.holder, lease) == "stale_lease"
    assert await release(fleet.holder, lease) == "stale_lease"
    assert await release(fleet.rival, lease) == "stale_lease"
    assert await fleet.held() == 1
    assert await release(fleet.rival, taken) == "released"
    assert await fleet.held() == 0


async def test_a_member_that_was_expired_works_on_under_a_new_name(fleet: Fleet) -> None:
    lease = await fleet.holder.acquire(item())
    fleet.expire(lease)
    assert await release(fleet.holder, lease) == "stale_lease"
    again = await fleet.holder.acquire(item())
    assert again.member_id != lease.member_id
    assert await release(fleet.holder, lease) == "stale_lease"
    assert await fleet.held() == 1
    assert await release(fleet.holder, again) == "released"


async def test_a_lease_that_was_held_too_long_is_stale(fleet: Fleet) -> None:
    hold = forebay.RequestAdmissionConfig(max_hold_seconds=0.01)
    await fleet.holder.register(MODEL, "main", 1, hold)
    lease = await fleet.holder.acquire(item())
    # Nobody releases: only the end of the hold lets another have it.
    taken = await fleet.rival.acquire(item())
    await wait_until(lambda: fleet.lost == [lease.lease_id])

    assert await release(fleet.holder, lease) == "stale_lease"
    assert await release(fleet.rival, taken) in {"released", "stale_lease"}  # it is held to it too
    assert await fleet.held() == 0


async def test_a_made_up_lease_is_unknown(fleet: Fleet) -> None:
    lease = await fleet.holder.acquire(item())
    for name in ("made up", f"{lease.lease_id}!", "-", "\0", "%"):
        made_up = replace(lease, lease_id=name)
        assert await release(fleet.holder, made_up) == "unknown_lease"
        assert (
            await release(fleet.holder, replace(made_up, generation="older")) == "wrong_generation"
        )
    assert await fleet.held() == 1
    assert await release(fleet.holder, lease) == "released"


async def test_release_is_matched_by_id_whatever_else_a_lease_says(fleet: Fleet) -> None:
    lease = await fleet.holder.acquire(item())
    image = forebay.RequestResourceKey(provider_model=MODEL, domain=forebay.RequestDomain.IMAGE)
    bent = replace(
        lease,
        item=replace(lease.item, resource=image),
        generation="older",
        member_id="m",
        cuts_at_admission=10**9,
    )
    assert await release(fleet.holder, bent) == "released"
    assert await release(fleet.holder, lease) == "duplicate"
    shard = await fleet.pressure.global_snapshot(MODEL)
    granted = {domain.value: window.granted for domain, window in shard.domains.items()}
    assert granted == {"chat": 1, "embedding": 0, "image": 0, "healthcheck": 0}
    assert await fleet.held() == 0


async def test_a_lease_of_a_model_that_this_process_never_used(fleet: Fleet) -> None:
    await fleet.rival.register(OTHER, "main", 1)
    lease = await fleet.rival.acquire(item(model=OTHER))
    assert await release(fleet.holder, lease) == "stale_lease"
    made_up = replace(lease, lease_id="made up")
    assert await release(fleet.holder, made_up) == "unknown_lease"
    assert await fleet.held(OTHER) == 1
    assert await release(fleet.rival, lease) == "released"
    assert await fleet.held(OTHER) == 0


async def test_a_closed_controller_gave_its_leases_back(fleet: Fleet) -> None:
    lease = await fleet.holder.acquire(item())
    waits = asyncio.ensure_future(fleet.rival.acquire(item()))
    await fleet.until_waiting(1)
    await fleet.holder.close()
    taken = await waits
    members = fleet.client.zrange(KEYS["members"], 0, -1)

    assert await release(fleet.holder, lease) == "stale_lease"
    assert fleet.client.zrange(KEYS["members"], 0, -1) == members
    assert await fleet.held() == 1
    assert await release(fleet.rival, taken) == "released"
    assert await fleet.held() == 0


async def work_on_after_the_server_forgot(fleet: Fleet, forget: Callable[[], Any]) -> None:
    """Two leases, then a server that knows nothing: one that is held is adopted, none stays."""
    await fleet.holder.register(MODEL, "main", 2)
    await fleet.rival.register(MODEL, "main", 2)
    first, second = await fleet.holder.acquire(item()), await fleet.holder.acquire(item())
    forget()

    assert await release(fleet.holder, first) == "released"  # it was stated before
    taken = await fleet.holder.acquire(item())
    assert taken.generation != first.generation
    assert fleet.lost == []
    assert await fleet.held() == 2
    assert await release(fleet.rival, second) == "stale_lease"
    for lease in (second, taken):
        assert await release(fleet.holder, lease) == "released"
    assert await fleet.held() == 0


async def test_leases_that_a_flush_forgot_free_nothing(fleet: Fleet) -> None:
    await work_on_after_the_server_forgot(fleet, fleet.client.flushall)


async def test_leases_that_an_empty_restart_forgot_free_nothing(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as own:
        async with open_fleet(own.url, SHORT) as fleet:
            await work_on_after_the_server_forgot(fleet, lambda: restart_empty(own, tmp_path))


async def test_a_release_that_a_lost_server_had_not_answered_finds_its_lease(
    tmp_path: Path,
) -> None:
    with EmbeddedServer(tmp_path) as own:
        async with open_fleet(own.url, SHORT) as fleet:
            lease = await fleet.holder.acquire(item())
            os.kill(own.pid, signal.SIGSTOP)
            releasing = asyncio.ensure_future(release(fleet.holder, lease))
            batches = fleet.holder._shards[MODEL].session._batches
            await wait_until(lambda: batches.under_way)
            restart_empty(own, tmp_path)

            assert await releasing == "released"
            assert await fleet.held() == 0


def restart_empty(own: EmbeddedServer, data: Path) -> None:
    own.kill()
    for folder in data.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    own.restart()
