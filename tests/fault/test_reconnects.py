"""Losing the server, or only its wake-ups, for a while (design 06, *When Redis is away*)."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from structlog.testing import capture_logs

import forebay
from forebay import CoordinatorUnavailable, ReleaseReason
from tests.support import wait_until
from tests.support_proxy import Fault
from tests.support_scene import (
    CAP,
    MODEL,
    Scene,
    item,
    open_scene,
    settings,
    soon,
)

NEVER_SECONDS = 60.0
CALL_TIMEOUT_SECONDS = 0.5
MOST_TRIES = 60
"""For traffic and wake-ups together, in three call timeouts; without backoff it is hundreds."""


class Outage:
    """One way in which a server is away."""

    def __init__(self, scene: Scene, kind: str) -> None:
        self._scene = scene
        self._kind = kind

    def begin(self) -> None:
        proxy = self._scene.proxy
        match self._kind:
            case "refuses":
                proxy.refuse()
            case "stalls":
                proxy.stall()
            case "hangs up":
                proxy.hang_up()
            case "loads":
                proxy.answer_with("LOADING Redis is loading the dataset in memory")

    async def end(self) -> None:
        self._scene.proxy.flow()
        await self._scene.proxy.accept()


@pytest.fixture
async def scene(redis_url):
    async with open_scene(redis_url, settings(call_timeout_seconds=CALL_TIMEOUT_SECONDS)) as scene:
        yield scene


@pytest.fixture(params=["refuses", "stalls", "hangs up", "loads"])
def outage(scene, request):
    return Outage(scene, request.param)


async def starts_waiting(scene: Scene) -> asyncio.Task[forebay.RequestAdmissionLease]:
    """Let the member wait behind a rival that holds all there is."""
    await scene.fill()
    waiting = asyncio.create_task(scene.take(scene.member))
    await scene.until(waiters=1)
    return waiting


# -- wake-ups


async def test_a_waiter_whose_wake_up_was_lost_is_granted_at_the_next_recheck(redis_url):
    async with open_scene(redis_url, settings(recheck_seconds=0.1)) as scene:
        waiting = await starts_waiting(scene)
        scene.proxy.refuse_subscribers()
        await scene.free_one()
        await soon(waiting)
        scene.proxy.accept_subscribers()
        await scene.release_all()


async def test_wake_ups_arrive_again_after_their_connection_was_cut(redis_url):
    async with open_scene(redis_url, settings(recheck_seconds=NEVER_SECONDS)) as scene:
        waiting = await starts_waiting(scene)
        subscribed = scene.proxy.subscriptions
        scene.proxy.cut_subscribers()
        await wait_until(lambda: scene.proxy.subscriptions > subscribed)
        await until_heard_on(scene, 2)
        await scene.free_one()
        await soon(waiting)
        await scene.release_all()


async def test_a_wake_up_lost_during_a_gap_is_made_up_for_on_reconnecting(redis_url):
    async with open_scene(redis_url, settings(recheck_seconds=NEVER_SECONDS)) as scene:
        waiting = await starts_waiting(scene)
        scene.proxy.refuse_subscribers()
        await scene.free_one()
        assert not waiting.done()
        scene.proxy.accept_subscribers()
        await soon(waiting)
        await scene.release_all()


async def test_a_cut_of_every_connection_loses_no_waiter(redis_url):
    """Nobody listens to the member, so nothing is granted to it before it is back."""
    async with open_scene(redis_url, settings(recheck_seconds=NEVER_SECONDS)) as scene:
        await scene.fill()
        waiting = [asyncio.create_task(scene.take(scene.member)) for _ in range(3)]
        await scene.until(waiters=3)
        scene.proxy.refuse()
        await until_heard_on(scene, 1)
        for _ in range(3):
            await scene.free_one()
        await scene.until(waiters=3, in_flight=CAP - 3)
        await scene.proxy.accept()
        await soon(asyncio.gather(*waiting))
        await scene.release_all()


async def until_heard_on(scene: Scene, channels: int) -> None:
    """Wait until the server has so many channels: the rival's, and the member's if it listens."""
    await wait_until(lambda: len(scene.client.pubsub_channels()) == channels)


# -- the server away


async def test_calls_end_with_the_typed_error_while_the_server_is_away(scene, outage):
    outage.begin()
    for call in (
        scene.member.acquire(item()),
        scene.member.try_acquire(item()),
        scene.member.register(MODEL, "another", CAP),
    ):
        with pytest.raises(CoordinatorUnavailable, match=r"proxy\.sock"):
            await soon(call)
    await outage.end()


async def test_a_first_call_during_an_outage_ends_with_the_typed_error(scene, outage):
    fresh = forebay.ProviderModelKey(provider_name="acme", model_id="fresh")
    outage.begin()
    with pytest.raises(CoordinatorUnavailable, match=r"proxy\.sock"):
        await soon(scene.member.register(fresh, "fresh", 1))
    await outage.end()
    await soon(served(scene, fresh))


async def served(scene: Scene, model: forebay.ProviderModelKey) -> None:
    """Return once the member's calls are answered again."""
    while True:
        try:
            await scene.member.register(model, "served", CAP)
        except CoordinatorUnavailable:
            continue
        return


async def test_a_release_during_an_outage_is_deferred_and_carried_out_afterwards(scene, outage):
    lease = await scene.take(scene.member)
    scene.held.clear()
    outage.begin()
    released = await soon(scene.member.release(lease, forebay.SUCCESS))
    assert (released.released, released.reason) == (False, ReleaseReason.DEFERRED)
    assert (await scene.books())["in_flight"] == 1
    await outage.end()
    await scene.until(in_flight=0, outcomes={"success": 1}, streak=1)


async def test_releases_behind_a_call_under_way_are_carried_out_after_an_outage(scene, outage):
    leases = [await scene.take(scene.member) for _ in range(CAP)]
    scene.held.clear()
    outage.begin()
    under_way = asyncio.create_task(scene.member.try_acquire(item()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    releasing = [scene.member.release(lease, forebay.SUCCESS) for lease in leases]
    with pytest.raises(CoordinatorUnavailable):
        await soon(under_way)
    results = await soon(asyncio.gather(*releasing))
    assert {result.reason for result in results} == {ReleaseReason.DEFERRED}
    await outage.end()
    await scene.until(in_flight=0, outcomes={"success": CAP})


@pytest.mark.parametrize("free", [True, False], ids=["granted", "waiting"])
async def test_an_acquire_that_timed_out_leaves_nothing_behind(scene, outage, free):
    if not free:
        await scene.fill()
    outage.begin()
    with pytest.raises(CoordinatorUnavailable):
        await soon(scene.member.acquire(item()))
    await outage.end()
    await soon(served(scene, MODEL))
    await scene.until(in_flight=0 if free else CAP, waiters=0)
    await scene.release_all()


@pytest.mark.parametrize("free", [True, False], ids=["granted", "waiting"])
async def test_an_acquire_that_the_server_carried_out_too_late_for_its_caller_is_taken_back(
    scene, free
):
    if not free:
        await scene.fill()
    answered = scene.trap("acquire", Fault.HOLD)
    asking = asyncio.create_task(scene.member.acquire(item()))
    await answered.sprung.wait()
    with pytest.raises(CoordinatorUnavailable):
        await soon(asking)
    await scene.until(in_flight=0 if free else CAP, waiters=0)
    answered.let_go.set()
    await scene.release_all()


async def test_a_call_cancelled_during_an_outage_leaves_nothing_behind(scene, outage):
    outage.begin()
    asking = [asyncio.create_task(scene.member.acquire(item())) for _ in range(2 * CAP)]
    await asyncio.sleep(0)
    for task in asking:
        task.cancel()
    ended = await soon(asyncio.gather(*asking, return_exceptions=True))
    assert {type(error) for error in ended} == {asyncio.CancelledError}
    await outage.end()
    await soon(served(scene, MODEL))
    await scene.until(in_flight=0, waiters=0)


async def test_a_lease_held_through_an_outage_is_still_held(scene, outage):
    lease = await scene.take(scene.member)
    outage.begin()
    with pytest.raises(CoordinatorUnavailable):
        await soon(scene.member.try_acquire(item()))
    await outage.end()
    await soon(served(scene, MODEL))
    scene.member.assert_held(lease)
    await soon(scene.release_all())


async def test_an_outage_and_its_end_are_logged_once_each_and_equally_loud(scene, outage):
    with capture_logs() as logs:
        outage.begin()
        for _ in range(3):
            calls = [scene.member.try_acquire(item()) for _ in range(5)]
            ended = await soon(asyncio.gather(*calls, return_exceptions=True))
            assert {type(error) for error in ended} == {CoordinatorUnavailable}
        await outage.end()
        await soon(served(scene, MODEL))
        await scene.until(in_flight=0, waiters=0)
    said = Counter((entry["event"], entry["log_level"]) for entry in logs)
    assert said == {
        ("coordinator_unavailable", "warning"): 1,
        ("coordinator_available", "warning"): 1,
    }


async def test_closing_during_an_outage_ends_in_bounded_time(scene, outage):
    await scene.take(scene.member)
    scene.held.clear()
    outage.begin()
    await soon(scene.member.close())
    await outage.end()


async def test_calls_of_another_shard_end_too_and_come_back_too(scene, outage):
    other = forebay.ProviderModelKey(provider_name="acme", model_id="other")
    await scene.member.register(other, "other", 1)
    outage.begin()
    calls = [scene.member.try_acquire(item()), scene.member.try_acquire(item(model=other))]
    ended = await soon(asyncio.gather(*calls, return_exceptions=True))
    assert {type(error) for error in ended} == {CoordinatorUnavailable}
    await outage.end()
    await soon(served(scene, other))
    await soon(served(scene, MODEL))
    report = await scene.pressure.audit(other)
    assert report.ok
    assert (await scene.pressure.global_snapshot(other)).aggregate_in_flight == 0


async def test_a_server_that_is_away_is_not_stormed(scene, outage):
    await scene.fill()
    before = scene.proxy.connection_count
    outage.begin()
    for _ in range(3):
        with pytest.raises(CoordinatorUnavailable):
            await soon(scene.member.try_acquire(item()))
    tried = scene.proxy.connection_count - before
    await outage.end()
    assert tried <= MOST_TRIES
    await scene.release_all()
