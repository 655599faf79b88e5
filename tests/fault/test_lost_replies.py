"""Each operation is carried out once, whatever happens to its batch on the way.

Rules: design 06, *Exactly once*.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import hiredis
import pytest

import forebay
from forebay import RequestOutcomeKind
from tests.fault.each_operation import CASES, NOTHING_HAPPENED, Case
from tests.support import wait_until
from tests.support_batches import Batch
from tests.support_proxy import Fault, Trap
from tests.support_scene import CAP, MODEL, Scene, item, open_scene, outcome, soon


@pytest.fixture
async def scene(redis_url):
    async with open_scene(redis_url) as scene:
        yield scene


each_operation = pytest.mark.parametrize("case", CASES, ids=lambda case: case.act.__name__)


async def play(scene: Scene, case: Case, fault: Fault) -> Batch:
    """Inject a fault into an operation's batch; return its batch once it was counted once."""
    traps: list[Trap] = []
    await soon(case.act(scene, lambda: traps.append(scene.trap(case.word, fault))))
    assert [trap.sprung.is_set() for trap in traps] == [True]
    assert await scene.books() == NOTHING_HAPPENED | case.books
    batch = traps[0].batch
    assert batch is not None
    return batch


@each_operation
async def test_a_batch_that_never_arrived_is_sent_again_and_happens_once(scene, case):
    batch = await play(scene, case, Fault.CUT_BEFORE)
    assert len(scene.proxy.replies_to(batch)) == 1
    await soon(scene.release_all())


@each_operation
async def test_a_batch_whose_reply_was_lost_is_answered_again_and_happens_once(scene, case):
    batch = await play(scene, case, Fault.CUT_AFTER)
    await wait_until(lambda: len(scene.proxy.replies_to(batch)) > 1)  # a wake-up may be faster
    first, *again = scene.proxy.replies_to(batch)
    if case.word == "leave":  # who has left is not remembered, so that nothing of it stays behind
        assert [str(reply).split()[0] for reply in again] == ["NOMEMBER"]
    else:
        assert again == [first]
    await soon(scene.release_all())


@each_operation
async def test_a_late_duplicate_changes_nothing(scene, case):
    batch = await play(scene, case, Fault.CUT_BEFORE)
    (kept,) = scene.proxy.replies_to(batch)
    before = scene.stored()
    duplicate = await scene.proxy.deliver(batch)
    assert duplicate == kept or is_refused(duplicate)
    assert scene.stored() == before


@each_operation
async def test_an_old_batch_that_arrives_after_newer_ones_is_refused(scene, case):
    batch = await play(scene, case, Fault.CUT_BEFORE)
    await soon(scene.release_all())
    if case.word != "leave":
        await soon(scene.member.register(MODEL, "newer", CAP))
    before = scene.stored()
    assert is_refused(await scene.proxy.deliver(batch))
    assert scene.stored() == before
    await scene.release_all()


async def test_an_acquire_whose_time_is_up_leaves_no_waiter(scene):
    await scene.fill()
    with pytest.raises(forebay.RequestAdmissionError):
        await soon(scene.member.acquire(item(wait_seconds=0.05)))
    await scene.free_one()
    assert (await scene.books())["waiters"] == 0
    await scene.release_all()


async def test_a_batch_that_arrives_after_its_member_left_takes_nothing(scene):
    trap = scene.trap("acquire", Fault.CUT_BEFORE)
    await soon(scene.take(scene.member))
    scene.held.clear()
    await soon(scene.member.close())
    before = scene.stored()
    reply = await scene.proxy.deliver(trap.batch)
    assert str(reply).startswith("NOMEMBER ")
    assert scene.stored() == before
    await scene.release_all()


async def test_a_batch_that_is_lost_again_and_again_happens_once(scene):
    lease = await scene.take(scene.member)
    traps = [
        scene.trap("release", fault)
        for fault in (Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.CUT_BEFORE, Fault.CUT_AFTER)
    ]
    released = await soon(scene.member.release(lease, outcome(RequestOutcomeKind.RATE_LIMITED)))
    assert released.released
    assert all(trap.sprung.is_set() for trap in traps)
    books = await scene.books()
    assert (books["cuts"], books["outcomes"]) == (1, {"rate_limited": 1})


@pytest.mark.parametrize("seed", range(3))
async def test_books_agree_with_what_callers_saw_after_a_storm_of_cuts(scene, seed):
    rng = random.Random(seed)
    seen = {"granted": 0, "released": 0, "holders": 0, "peak": 0}

    async def call(controller: forebay.AdaptiveRequestAdmissionController) -> None:
        lease = await controller.acquire(item())
        seen["granted"] += 1
        seen["holders"] += 1
        seen["peak"] = max(seen["peak"], seen["holders"])
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        seen["holders"] -= 1
        released = await controller.release(lease, forebay.SUCCESS)
        seen["released"] += released.released

    async def make_weather(calls: asyncio.Future[Any]) -> None:
        while not calls.done():
            fault = rng.choice([Fault.CUT_BEFORE, Fault.CUT_AFTER])
            trap = scene.trap(rng.choice(["acquire", "release"]), fault)
            springing = asyncio.ensure_future(trap.sprung.wait())
            await asyncio.wait([springing, calls], return_when=asyncio.FIRST_COMPLETED)
            springing.cancel()

    calls = asyncio.gather(
        *(call(scene.member) for _ in range(40)), *(call(scene.rival) for _ in range(20))
    )
    await soon(asyncio.gather(make_weather(calls), calls))
    assert (seen["granted"], seen["released"]) == (60, 60)
    assert seen["peak"] <= CAP
    books = await scene.books()
    assert (books["granted"], books["outcomes"]) == (60, {"success": 60})
    await scene.release_all()


def is_refused(reply: Any) -> bool:
    """Whether a batch was refused as one of the past; a member that left has no past."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).split()[0] in {
        "OLDBATCH",
        "NOMEMBER",
    }
