"""A membership that only its own process has ended frees its leases at once, not after a TTL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from forebay.contracts.errors import CoordinatorError
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.requests.operations import Acquire
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard.backlog import Pending
from forebay.coordinator.shard.operation import Operation
from forebay.coordinator.shard.session import Session
from forebay.coordinator.tasks.operations import Admit
from tests.support_scene import CAP, MODEL, item, open_scene, soon
from tests.support_tasks import DONE, joined, task

HOUR_SECONDS = 3600.0


def lose_the_next_reply(
    session: Session, to: Callable[[Operation[Any] | None], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the next reply to a chosen operation be unreadable.

    The session then ends its membership, which the shard still has.
    """
    batches: Any = session._batches
    take = batches.take_reply

    def unreadable(reply: Any, operations: Sequence[Pending], **how: Any) -> None:
        if not any(to(one.operation) for one in operations):
            take(reply, operations, **how)  # a recheck, or an older answer that is still on its way
            return
        monkeypatch.setattr(batches, "take_reply", take)
        raise ValueError("for the test")

    monkeypatch.setattr(batches, "take_reply", unreadable)


def is_try(operation: Operation[Any] | None) -> bool:
    """Whether an operation asks for a request lease at once or not at all."""
    return isinstance(operation, Acquire) and operation.wait == "try"


def is_admit(operation: Operation[Any] | None) -> bool:
    """Whether an operation asks for leases of tasks."""
    return isinstance(operation, Admit)


async def test_leases_of_the_ended_membership_pass_on_and_its_waiters_wait_again(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_scene(redis_url) as scene:
        for _ in range(CAP):
            await scene.take(scene.member)
        waiting = [asyncio.create_task(who.acquire(item())) for who in (scene.member, scene.rival)]
        await scene.until(waiters=2)
        lose_the_next_reply(scene.member._shards[MODEL].session, is_try, monkeypatch)
        with pytest.raises(CoordinatorError, match="cannot be read"):
            await scene.member.try_acquire(item())
        leases = await soon(asyncio.gather(*waiting))
        scene.held = list(zip((scene.member, scene.rival), leases, strict=True))
        await scene.until(in_flight=2, waiters=0)
        await scene.release_all()


async def test_tasks_of_the_ended_membership_go_back_to_the_queue(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = MemberSettings(ttl_seconds=HOUR_SECONDS)
    async with (
        await ServerConnection.open(redis_url, settings) as one,
        await ServerConnection.open(redis_url, settings) as other,
        joined(one) as tasks,
        joined(other) as others,
    ):
        await tasks.queue.enqueue([task("t")])
        [lost] = (await tasks.admit(1)).leases
        assert (await others.admit(1)).leases == ()
        lose_the_next_reply(tasks.session, is_admit, monkeypatch)
        with pytest.raises(CoordinatorError, match="cannot be read"):
            await tasks.admit(1)
        await tasks.queue.enqueue([task("next")])  # under the new membership
        leases = (await others.admit(2)).leases
        assert {lease.item.task_id for lease in leases} == {lost.item.task_id, "next"}
        for lease in leases:
            await others.finish(lease, DONE)
