"""Operations share a call; each caller gets its own result; cancelling costs nothing more.

Rules: design 06, *Batching*.
"""

from __future__ import annotations

import asyncio
import random

import pytest

import forebay
from forebay import ReleaseReason, RequestDenialReason
from forebay.contracts.errors import ConfigurationError
from tests.support_proxy import Fault
from tests.support_scene import CAP, MODEL, Scene, item, open_scene, settings, soon

OPERATIONS_PER_CALL = 64
OTHER = forebay.ProviderModelKey(provider_name="acme", model_id="other")


@pytest.fixture
async def scene(redis_url):
    async with open_scene(redis_url, settings(recheck_seconds=60.0)) as scene:
        yield scene


class Calls:
    """The calls that reach the server from now on, by the words of their operations."""

    def __init__(self, scene: Scene) -> None:
        self._exchanges = scene.proxy.exchanges
        self._from = len(self._exchanges)

    def words(self) -> list[list[str]]:
        return [exchange.batch.words for exchange in self._exchanges[self._from :]]


def try_many(scene: Scene, count: int) -> list[asyncio.Task[forebay.RequestAdmissionDecision]]:
    """Start calls that the next turn of the loop brings up; on a full shard all are denied."""
    return [asyncio.create_task(scene.member.try_acquire(item())) for _ in range(count)]


async def give_back(scene: Scene, lease: forebay.RequestAdmissionLease) -> forebay.ReleaseResult:
    """Release in the turn in which the loop comes to it, as a task of its own would."""
    return await scene.member.release(lease, forebay.SUCCESS)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# -- what travels together


async def test_an_idle_process_sends_a_call_at_once_and_alone(scene):
    calls = Calls(scene)
    await soon(scene.take(scene.member))
    assert calls.words() == [["acquire"]]
    await soon(scene.release_all())
    assert calls.words() == [["acquire"], ["release"]]


async def test_calls_of_one_turn_travel_in_one_script_call(scene):
    lease = await scene.take(scene.member)
    scene.held.clear()
    calls = Calls(scene)
    await soon(
        asyncio.gather(
            *try_many(scene, CAP - 1),
            give_back(scene, lease),
            scene.member.register(MODEL, "member", CAP),
        )
    )
    (words,) = calls.words()
    assert sorted(words) == ["acquire"] * (CAP - 1) + ["register", "release"]


async def test_calls_of_one_turn_travel_at_most_64_together(scene):
    await scene.fill()
    calls = Calls(scene)
    await soon(asyncio.gather(*try_many(scene, 3 * OPERATIONS_PER_CALL + 8)))
    assert [len(words) for words in calls.words()] == [64, 64, 64, 8]
    await scene.release_all()


async def test_calls_gather_while_one_is_under_way(scene):
    await scene.fill()
    calls = Calls(scene)
    under_way = scene.trap("acquire", Fault.HOLD)
    asked = try_many(scene, 1)
    await under_way.sprung.wait()
    for _ in range(10):
        asked += try_many(scene, 10)
        await turns(3)
    assert calls.words() == [["acquire"]]
    under_way.let_go.set()
    await soon(asyncio.gather(*asked))
    assert [len(words) for words in calls.words()] == [1, 64, 36]
    await scene.release_all()


async def test_a_shard_never_waits_for_another_ones_call(scene):
    await scene.member.register(OTHER, "other", 1)
    under_way = scene.trap("acquire", Fault.HOLD)
    held_up = asyncio.create_task(scene.take(scene.member))
    await under_way.sprung.wait()
    lease = await soon(scene.member.acquire(item(model=OTHER)))
    assert (await soon(scene.member.release(lease, forebay.SUCCESS))).released
    assert not held_up.done()
    under_way.let_go.set()
    await soon(held_up)
    await scene.release_all()


async def test_operations_of_a_call_are_carried_out_in_the_order_of_the_callers(scene):
    asked = [item() for _ in range(CAP + 2)]
    decisions = await soon(asyncio.gather(*(scene.member.try_acquire(one) for one in asked)))
    leases = [one for one in decisions if isinstance(one, forebay.RequestAdmissionLease)]
    assert [lease.lease_id for lease in leases] == [one.attempt_id for one in asked[:CAP]]
    scene.held += [(scene.member, lease) for lease in leases]
    await scene.release_all()


# -- each with its own result and error


async def test_each_operation_of_a_call_has_its_own_result_and_its_own_error(scene):
    used, stranger = item(), await scene.take(scene.rival)
    assert (await scene.member.release(await scene.member.acquire(used), forebay.SUCCESS)).released
    lease = await scene.take(scene.member)
    good = item()
    calls = Calls(scene)
    reused, granted, released, twice, foreign = await soon(
        asyncio.gather(
            scene.member.acquire(used),
            scene.member.acquire(good),
            give_back(scene, lease),
            give_back(scene, lease),
            give_back(scene, stranger),
            return_exceptions=True,
        )
    )
    assert len(calls.words()) == 1
    assert isinstance(reused, ConfigurationError)
    assert used.attempt_id in str(reused)
    assert granted.lease_id == good.attempt_id
    assert released.reason is ReleaseReason.RELEASED
    assert twice.reason is ReleaseReason.DUPLICATE
    assert foreign.reason is ReleaseReason.STALE_LEASE
    scene.held = [(scene.member, granted), (scene.rival, stranger)]
    await scene.release_all()


async def test_denials_of_a_call_reach_their_own_callers(scene):
    asked = [item(wait_seconds=0.0) for _ in range(2 * CAP)]
    ended = await soon(
        asyncio.gather(*(scene.member.acquire(one) for one in asked), return_exceptions=True)
    )
    scene.held += [(scene.member, lease) for lease in ended[:CAP]]
    assert [lease.lease_id for lease in ended[:CAP]] == [one.attempt_id for one in asked[:CAP]]
    assert [error.denied.item for error in ended[CAP:]] == asked[CAP:]
    assert {error.denied.reason for error in ended[CAP:]} == {RequestDenialReason.QUEUE_TIMEOUT}
    await scene.release_all()


# -- cancelling a caller


@pytest.mark.parametrize("after_turns", range(12))
@pytest.mark.parametrize("free", [True, False], ids=["granted", "waiting"])
async def test_a_cancelled_acquire_leaves_nothing_behind(scene, after_turns, free):
    if not free:
        await scene.fill()
    asking = asyncio.create_task(scene.member.acquire(item()))
    neighbour = asyncio.create_task(scene.member.try_acquire(probe := item()))
    await turns(after_turns)
    asking.cancel()
    try:
        lease = await soon(asking)
    except asyncio.CancelledError:
        pass
    else:  # it was decided before the cancellation could reach it
        scene.held.append((scene.member, lease))
    answer = await soon(neighbour)
    if isinstance(answer, forebay.RequestAdmissionLease):
        assert answer.lease_id == probe.attempt_id
        scene.held.append((scene.member, answer))
    assert (await scene.books())["in_flight"] == len(scene.held)
    await scene.release_all()


async def test_a_caller_cancelled_while_its_call_is_under_way_cancels_no_command(scene):
    under_way = scene.trap("acquire", Fault.HOLD)
    asked = [item() for _ in range(CAP)]
    asking = [asyncio.create_task(scene.member.acquire(one)) for one in asked]
    await under_way.sprung.wait()
    connections = scene.proxy.connection_count
    asking[1].cancel()
    await turns(3)
    under_way.let_go.set()
    ended = await soon(asyncio.gather(*asking, return_exceptions=True))
    assert isinstance(ended.pop(1), asyncio.CancelledError)
    assert [lease.lease_id for lease in ended] == [
        one.attempt_id for one in asked if one != asked[1]
    ]
    scene.held += [(scene.member, lease) for lease in ended]
    assert scene.proxy.connection_count == connections
    assert (await scene.books())["outcomes"] == {"local_cancelled": 1}
    await scene.release_all()


async def test_a_release_whose_caller_is_cancelled_is_carried_out(scene):
    lease = await scene.take(scene.member)
    scene.held.clear()
    under_way = scene.trap("release", Fault.HOLD)
    releasing = asyncio.create_task(give_back(scene, lease))
    await under_way.sprung.wait()
    releasing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await releasing
    under_way.let_go.set()
    await scene.until(in_flight=0, outcomes={"success": 1})
    await soon(scene.take(scene.member))
    await scene.release_all()


@pytest.mark.parametrize("seed", range(4))
async def test_cancelling_at_any_moment_mixes_up_no_replies_and_exceeds_no_cap(scene, seed):
    rng = random.Random(seed)
    holders, peak, finished = 0, 0, 0

    async def call() -> None:
        nonlocal holders, peak, finished
        asked = item()
        lease = await scene.member.acquire(asked)
        assert lease.lease_id == asked.attempt_id
        holders += 1
        peak = max(peak, holders)
        try:
            await turns(rng.randrange(6))
        finally:
            holders -= 1
            scene.member.release(lease, forebay.SUCCESS)
        finished += 1

    async def cancel_some(tasks: list[asyncio.Task[None]]) -> None:
        for task in rng.sample(tasks, len(tasks) // 2):
            await turns(rng.randrange(8))
            task.cancel()

    tasks = [asyncio.create_task(call()) for _ in range(60)]
    await soon(cancel_some(tasks))
    ended = await soon(asyncio.gather(*tasks, return_exceptions=True))
    assert {type(end) for end in ended} <= {type(None), asyncio.CancelledError}
    assert 1 <= peak <= CAP
    assert finished == sum(end is None for end in ended)
    await scene.until(in_flight=0, waiters=0)
    books = await scene.books()
    assert sum(books["outcomes"].values()) == books["granted"]
