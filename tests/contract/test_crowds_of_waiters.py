"""A crowd of waiters in one process: its calls of the server, and the waits of other tenants."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

import forebay
from tests.support import wait_until
from tests.support_scene import CAP, MODEL, Scene, item, open_scene, settings, soon

PORTION = 64
CROWD = 10 * PORTION
RECHECK_SECONDS = 0.1


def item_of(tenant: str) -> forebay.RequestAdmissionItem:
    return replace(item(), group=forebay.RequestGroupSpec(key=tenant))


def ask(scene: Scene, count: int, tenant: str) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(scene.member.acquire(item_of(tenant))) for _ in range(count)]


async def end(waiting: list[asyncio.Task[Any]]) -> None:
    for task in waiting:
        task.cancel()
    await soon(asyncio.gather(*waiting, return_exceptions=True))


def operations(scene: Scene) -> list[str]:
    return [word for exchange in scene.proxy.exchanges for word in exchange.batch.words]


@pytest.fixture
async def scene(redis_url: str) -> Any:
    async with open_scene(redis_url, settings(recheck_seconds=RECHECK_SECONDS)) as scene:
        yield scene


async def test_a_crowd_asks_for_a_portion_an_interval_and_not_for_each_waiter(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.fill()
    rechecks = scene.member._shards[MODEL]._rechecks
    look, intervals = rechecks._on_interval, []

    def count_interval() -> None:
        intervals.append(1)
        look()

    monkeypatch.setattr(rechecks, "_on_interval", count_interval)
    crowd = ask(scene, CROWD, "crowd")
    await scene.until(waiters=CROWD)
    await wait_until(lambda: operations(scene).count("state") > 2 * PORTION)
    assert operations(scene).count("state") <= len(intervals) * PORTION
    await end(crowd)
    await scene.release_all()


async def test_each_waiter_of_a_crowd_is_asked_for_in_turn(scene: Scene) -> None:
    await scene.fill()
    crowd = ask(scene, 3 * PORTION, "crowd")
    await scene.until(waiters=len(crowd))

    def asked() -> Counter[str]:
        batches = (exchange.batch.operations for exchange in scene.proxy.exchanges)
        return Counter(op[1] for batch in batches for op in batch if op[0] == "state")

    await wait_until(lambda: len(asked()) == len(crowd))
    await end(crowd)
    await scene.release_all()


async def test_lost_grants_of_several_tenants_are_found_in_any_crowd(scene: Scene) -> None:
    """Each tenant's first waiter is granted, and the wake-ups of all are lost."""
    await scene.fill()
    crowds = [ask(scene, 2 * PORTION, f"tenant-{number}") for number in range(CAP)]
    await scene.until(waiters=CAP * 2 * PORTION)
    shard = scene.member._shards[MODEL]
    lost: list[Any] = []
    heard, shard.on_notices = shard.on_notices, lambda _generation, notices: lost.extend(notices)
    for _ in range(CAP):
        await scene.free_one()
    await wait_until(lambda: len(lost) == CAP)
    shard.on_notices = heard
    for crowd in crowds:
        lease = await soon(crowd.pop(0))
        scene.held.append((scene.member, lease))
    await end([waiting for crowd in crowds for waiting in crowd])
    await scene.release_all()


async def test_all_of_a_crowd_hear_when_the_server_is_away(redis_url: str) -> None:
    brief = settings(call_timeout_seconds=0.3, recheck_seconds=RECHECK_SECONDS)
    async with open_scene(redis_url, brief) as scene:
        await scene.fill()
        crowd = ask(scene, 3 * PORTION, "crowd")
        await scene.until(waiters=len(crowd))
        scene.proxy.stall()
        ends = await soon(asyncio.gather(*crowd, return_exceptions=True))
        assert {type(end) for end in ends} == {forebay.CoordinatorUnavailable}
        scene.proxy.flow()
        await scene.until(waiters=0)
        await scene.release_all()


async def test_a_crowd_that_queues_here_holds_up_neither_another_tenant_nor_a_release(
    scene: Scene,
) -> None:
    lease = await scene.member.acquire(item_of("small"))
    crowd = ask(scene, CROWD, "crowd")
    await asyncio.sleep(0)  # the crowd asks first
    sent = len(scene.proxy.exchanges)
    decision = asyncio.create_task(scene.member.try_acquire(asked := item_of("small")))
    released = asyncio.ensure_future(scene.member.release(lease, forebay.SUCCESS))
    assert (await soon(released)).released
    await soon(decision)
    ids = [
        [operation[1] for operation in exchange.batch.operations]
        for exchange in scene.proxy.exchanges[sent:]
    ]
    place = {name: at for at, call in enumerate(ids) for name in call}
    assert max(place[lease.lease_id], place[asked.attempt_id]) <= 1  # one call was under way
    if isinstance(granted := decision.result(), forebay.RequestAdmissionLease):
        scene.held.append((scene.member, granted))
    await scene.until(waiters=CROWD - CAP + len(scene.held))
    await end(crowd[CAP - len(scene.held) :])
    scene.held += [(scene.member, done.result()) for done in crowd[: CAP - len(scene.held)]]
    await scene.release_all()
