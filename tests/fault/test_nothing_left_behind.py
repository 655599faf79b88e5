"""No lease, waiter or registration is left to nobody, whatever crosses what (design 06)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis

import forebay
from forebay.coordinator.requests.shard import RequestShard
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.chat_domain import CHAT, MODEL, is_idle, item, when
from tests.support import wait_until
from tests.support_proxy import Fault
from tests.support_records import make_overdue
from tests.support_scene import Controller, open_scene, settings, soon
from tests.support_scene import item as scene_item
from tests.support_scripts import AIMD

NEVER_SECONDS = 60.0


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def admin(own_server: EmbeddedServer) -> Iterator[redis.Redis]:
    with open_sync(parse_url(own_server.url)) as client:
        yield client


def shard_of(controller: Controller) -> RequestShard:
    return next(iter(controller._shards.values()))


async def is_soon_idle(url: str) -> None:
    """Wait until nobody holds or waits."""
    async with await ServerConnection.open(url) as connection:
        await when(connection, is_idle)


# -- a membership that is lost midway


async def test_a_cancel_that_meets_a_lost_membership_leaves_no_lease(redis_url: str) -> None:
    async with open_scene(redis_url) as scene:
        held_up = scene.trap("acquire", Fault.HOLD)
        before = asyncio.create_task(scene.member.acquire(scene_item()))
        await held_up.sprung.wait()
        doomed = asyncio.create_task(scene.member.acquire(scene_item()))
        await asyncio.sleep(0)
        doomed.cancel()
        await asyncio.sleep(0)
        scene.client.flushall()
        held_up.let_go.set()  # the next batch asks and cancels, and meets a shard that is gone
        kept = await soon(before)
        with pytest.raises(asyncio.CancelledError):
            await soon(doomed)
        lease = await soon(scene.member.acquire(scene_item()))
        for one in (kept, lease):
            assert (await soon(scene.member.release(one, forebay.SUCCESS))).released
        await scene.until(in_flight=0, waiters=0)


@pytest.mark.parametrize("joined_anew", [False, True], ids=["between two", "in the next"])
async def test_no_caller_hangs_when_the_membership_ends_between_two_results(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, joined_anew: bool
) -> None:
    lost: list[str] = []
    async with await ServerConnection.open(redis_url) as connection:
        requests = Controller(
            connection, on_lease_lost=lambda lease, _why: lost.append(lease.lease_id)
        )
        await requests.register(MODEL, "main", 1000, AIMD)
        session = shard_of(requests).session
        first, tell, send = session.membership, session._batches._deliver, session._send
        assert first is not None
        member_id = first.member_id
        sent: list[int] = []
        told: list[int] = []

        def send_but_end_before_the_second() -> None:
            sent.append(1)
            if len(sent) == 2:
                with open_sync(parse_url(redis_url)) as client:
                    make_overdue(client, session.keys, member_id)
            send()

        def tell_the_rest_later(*results: Any) -> None:
            now = session.membership
            ready = now is not first and (now is not None) is joined_anew
            if not told or ready or len(told) > 1:
                told.append(1)
                tell(*results)
            else:
                asyncio.get_running_loop().call_soon(tell_the_rest_later, *results)

        monkeypatch.setattr(session, "_send", send_but_end_before_the_second)
        monkeypatch.setattr(session._batches, "_deliver", tell_the_rest_later)
        asked = [requests.acquire(item()) for _ in range(128)]
        leases = await soon(asyncio.gather(*asked))
        for lease in leases:
            if lease.lease_id not in lost:
                requests.assert_held(lease)
                assert (await soon(requests.release(lease, forebay.SUCCESS))).released
        await is_soon_idle(redis_url)
        await requests.close()


async def test_a_wait_goes_on_from_where_it_was_after_a_lost_membership(redis_url: str) -> None:
    async with open_scene(redis_url) as scene:
        await scene.fill()
        asked = scene_item(wait_seconds=NEVER_SECONDS)
        waiting = asyncio.create_task(scene.member.acquire(asked))
        await scene.until(waiters=1)
        membership = shard_of(scene.member).session.membership
        assert membership is not None
        make_overdue(scene.client, membership.keys, membership.member_id)
        await scene.free_one()
        lease = await soon(waiting)
        waits = [
            int(operation[-1])
            for seen in scene.proxy.exchanges
            for operation in seen.batch.operations
            if operation[:2] == ("acquire", asked.attempt_id)
        ]
        assert waits[-1] < waits[0] == NEVER_SECONDS * 1e6
        assert (await soon(scene.member.release(lease, forebay.SUCCESS))).released
        await scene.release_all()


# -- a denial and a look that cross


@pytest.mark.parametrize("is_behind", [False, True], ids=["is lost", "is late"])
async def test_a_denial_that_comes_after_a_look_leaves_no_waiter(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, is_behind: bool
) -> None:
    async with open_scene(redis_url, settings(recheck_seconds=NEVER_SECONDS)) as scene:
        await scene.fill()
        shard = shard_of(scene.member)
        heard: list[Any] = []
        on_notices = shard.on_notices
        monkeypatch.setattr(shard, "on_notices", lambda *told: heard.append(told))
        monkeypatch.setattr(shard, "on_next_wake", lambda _seconds: None)
        waiting = asyncio.create_task(scene.member.acquire(scene_item(wait_seconds=1.0)))
        await scene.until(waiters=1)
        attempt = next(iter(shard._attempts.values()))
        await wait_until(lambda: attempt.is_waiting)  # the reply has passed the proxy, untrapped
        if is_behind:  # the clock here, so that the attempt is asked anew
            assert attempt.deadline is not None
            attempt.deadline += NEVER_SECONDS
        asked_anew = scene.trap("acquire", Fault.HOLD)

        async def is_denied() -> bool:
            await scene.rival.try_acquire(scene_item())  # any call settles what is due
            return bool(heard)

        await wait_until(is_denied)
        shard._rechecks.recheck_first()  # the shard knows the attempt no longer
        if is_behind:
            await asked_anew.sprung.wait()
            await scene.until(waiters=1)
            on_notices(*heard[0])
        with pytest.raises(forebay.RequestAdmissionError):
            await soon(waiting)
        asked_anew.let_go.set()
        await scene.until(waiters=0)
        await scene.release_all()


# -- an end that is crossed


@pytest.mark.parametrize("way", ["acquire", "try_acquire"])
async def test_an_acquire_that_crosses_close_is_denied(redis_url: str, way: str) -> None:
    async with forebay.connect(redis_url) as rival, forebay.connect(redis_url) as requests:
        await rival.register(MODEL, "main", 1)
        asking = asyncio.create_task(getattr(requests, way)(item()))
        await asyncio.sleep(0)
        await requests.close()
        if way == "acquire":
            with pytest.raises(forebay.RequestAdmissionError) as denied:
                await soon(asking)
            decision = denied.value.denied
        else:
            decision = await soon(asking)
        assert decision.reason is forebay.RequestDenialReason.SHUTDOWN
        shard = await rival.pressure.global_snapshot(MODEL)
        assert (shard.member_count, shard.aggregate_in_flight) == (1, 0)


# -- a server in need


async def test_a_release_met_by_a_passing_error_is_carried_out_later(
    own_server: EmbeddedServer, admin: redis.Redis
) -> None:
    async with forebay.connect(own_server.url, settings(call_timeout_seconds=0.3)) as requests:
        await requests.register(MODEL, "main", 1)
        lease = await requests.acquire(item())
        admin.config_set("min-replicas-to-write", 1)
        released = await soon(requests.release(lease, forebay.SUCCESS))
        assert released.reason is forebay.ReleaseReason.DEFERRED
        admin.config_set("min-replicas-to-write", 0)
        await is_soon_idle(own_server.url)


async def test_a_registration_that_memory_refused_is_made_later(
    own_server: EmbeddedServer, admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with forebay.connect(own_server.url, settings(recheck_seconds=0.1)) as requests:
        await requests.register(MODEL, "main", 2)
        shard = shard_of(requests)
        on_joined = shard.on_joined

        def on_joined_without_memory(membership: Any) -> Any:
            admin.config_set("maxmemory", 1)
            return on_joined(membership)

        monkeypatch.setattr(shard, "on_joined", on_joined_without_memory)
        membership = shard.session.membership
        assert membership is not None
        make_overdue(admin, membership.keys, membership.member_id)
        with pytest.raises(forebay.CoordinatorFull):
            await soon(requests.acquire(item()))
        admin.config_set("maxmemory", 0)

        async def is_granted() -> bool:
            decision = await requests.try_acquire(item())
            return isinstance(decision, forebay.RequestAdmissionLease)

        await wait_until(is_granted)


async def test_without_memory_waits_end_and_the_leases_of_the_dead_pass_on(
    own_server: EmbeddedServer, admin: redis.Redis
) -> None:
    live = forebay.MemberSettings(ttl_seconds=1.0)
    async with (
        forebay.connect(own_server.url, live) as dead,
        forebay.connect(own_server.url, live) as requests,
    ):
        await dead.register(MODEL, "main", 1)
        await requests.register(MODEL, "main", 1)
        await dead.acquire(item())
        patient = asyncio.create_task(requests.acquire(item()))
        hasty = asyncio.create_task(requests.acquire(item(queue_wait_timeout_seconds=1.0)))

        async def both_wait() -> bool:
            return (await requests.pressure.snapshot(CHAT)).waiters == 2

        await wait_until(both_wait)
        admin.config_set("maxmemory", 1)
        dead._server.node.heartbeat._memberships.clear()
        shard_of(dead)._upkeep._sweeps.close()
        with pytest.raises(forebay.RequestAdmissionError):
            await soon(hasty)
        lease = await soon(patient)
        assert (await soon(requests.release(lease, forebay.SUCCESS))).released
        admin.config_set("maxmemory", 0)
