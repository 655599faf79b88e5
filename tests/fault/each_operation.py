"""Every operation of a batch, played once, and what the books say of it afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

import forebay
from forebay import RequestDenialReason, RequestOutcomeKind
from tests.support_proxy import Fault
from tests.support_scene import CAP, MODEL, Scene, item, outcome

Arm = Callable[[], None]
"""Injects a fault into the next batch with the operation."""

NOTHING_HAPPENED = {
    "static_cap": CAP,
    "members": 2,
    "registrations": 2,
    "in_flight": 0,
    "waiters": 0,
    "granted": 0,
    "limit": CAP,
    "cuts": 0,
    "rate_limits": 0,
    "streak": 0,
    "outcomes": {},
}


async def acquire_granted(scene: Scene, arm: Arm) -> None:
    arm()
    await scene.take(scene.member)


async def acquire_that_waits(scene: Scene, arm: Arm) -> None:
    await scene.fill()
    arm()
    waiting = asyncio.create_task(scene.take(scene.member))
    await scene.until(waiters=1)
    await scene.free_one()
    await waiting


async def try_acquire_granted(scene: Scene, arm: Arm) -> None:
    asked = item()
    arm()
    lease = await scene.member.try_acquire(asked)
    assert isinstance(lease, forebay.RequestAdmissionLease)
    assert lease.lease_id == asked.attempt_id
    scene.held.append((scene.member, lease))


async def try_acquire_denied(scene: Scene, arm: Arm) -> None:
    await scene.fill()
    arm()
    denied = await scene.member.try_acquire(item())
    assert isinstance(denied, forebay.RequestAdmissionDenied)
    assert denied.reason is RequestDenialReason.NO_CAPACITY


async def acquire_that_times_out(scene: Scene, arm: Arm) -> None:
    await scene.fill()
    arm()
    with pytest.raises(forebay.RequestAdmissionError) as refused:
        await scene.member.acquire(item(wait_seconds=0.05))
    assert refused.value.denied.reason is RequestDenialReason.QUEUE_TIMEOUT


async def release_success(scene: Scene, arm: Arm) -> None:
    await scene.take(scene.member)
    arm()
    await scene.free_one()


async def release_rate_limited(scene: Scene, arm: Arm) -> None:
    lease = await scene.take(scene.member)
    scene.held.clear()
    arm()
    released = await scene.member.release(lease, outcome(RequestOutcomeKind.RATE_LIMITED))
    assert (released.released, released.reason) == (True, forebay.ReleaseReason.RELEASED)


async def cancel_of_a_waiter(scene: Scene, arm: Arm) -> None:
    await scene.fill()
    waiting = asyncio.create_task(scene.member.acquire(item()))
    await scene.until(waiters=1)
    arm()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def cancel_that_crosses_a_grant(scene: Scene, arm: Arm) -> None:
    granted = scene.trap("acquire", Fault.HOLD)
    asking = asyncio.create_task(scene.member.acquire(item()))
    await granted.sprung.wait()
    arm()
    asking.cancel()
    granted.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def cancel_that_crosses_a_wake_up(scene: Scene, arm: Arm) -> None:
    await scene.fill()
    scene.proxy.mute_pushes()
    waiting = asyncio.create_task(scene.member.acquire(item()))
    await scene.until(waiters=1)
    await scene.free_one()
    arm()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def state_of_a_waiter(scene: Scene, arm: Arm) -> None:
    await scene.fill()
    scene.proxy.mute_pushes()
    waiting = asyncio.create_task(scene.take(scene.member))
    await scene.until(waiters=1)
    arm()
    await scene.free_one()
    await waiting


async def register(scene: Scene, arm: Arm) -> None:
    arm()
    assert await scene.member.register(MODEL, "second", CAP - 1) == CAP - 1


async def leave(scene: Scene, arm: Arm) -> None:
    await scene.take(scene.member)
    scene.held.clear()
    arm()
    await scene.member.close()


@dataclass(frozen=True, kw_only=True)
class Case:
    word: str
    act: Callable[[Scene, Arm], Awaitable[None]]
    books: Mapping[str, Any] = field(default_factory=dict)


FULL = {"granted": CAP, "in_flight": CAP}
ONE_FREED = {"granted": CAP + 1, "streak": 1}
CASES = [
    Case(word="acquire", act=acquire_granted, books={"granted": 1, "in_flight": 1}),
    Case(
        word="acquire",
        act=acquire_that_waits,
        books=ONE_FREED | {"in_flight": CAP, "outcomes": {"success": 1}},
    ),
    Case(word="acquire", act=try_acquire_granted, books={"granted": 1, "in_flight": 1}),
    Case(word="acquire", act=try_acquire_denied, books=FULL),
    Case(word="acquire", act=acquire_that_times_out, books=FULL),
    Case(
        word="release",
        act=release_success,
        books={"granted": 1, "streak": 1, "outcomes": {"success": 1}},
    ),
    Case(
        word="release",
        act=release_rate_limited,
        books={
            "granted": 1,
            "limit": 3,
            "cuts": 1,
            "rate_limits": 1,
            "outcomes": {"rate_limited": 1},
        },
    ),
    Case(word="cancel", act=cancel_of_a_waiter, books=FULL),
    Case(
        word="cancel",
        act=cancel_that_crosses_a_grant,
        books={"granted": 1, "outcomes": {"local_cancelled": 1}},
    ),
    Case(
        word="cancel",
        act=cancel_that_crosses_a_wake_up,
        books=ONE_FREED | {"in_flight": CAP - 1, "outcomes": {"success": 1, "local_cancelled": 1}},
    ),
    Case(
        word="state",
        act=state_of_a_waiter,
        books=ONE_FREED | {"in_flight": CAP, "outcomes": {"success": 1}},
    ),
    Case(
        word="register",
        act=register,
        books={"static_cap": CAP - 1, "limit": CAP - 1, "registrations": 3},
    ),
    Case(
        word="leave",
        act=leave,
        books={
            "members": 1,
            "registrations": 1,
            "granted": 1,
            "outcomes": {"member_lost": 1},
        },
    ),
]
