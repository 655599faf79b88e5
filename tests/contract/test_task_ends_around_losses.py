"""A job that ends as its pool loses state leaves its result; what comes too late starts no job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import redis

from forebay.contracts.outcomes import TaskDeferred
from forebay.contracts.tasks import TaskAdmissionLease
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.operations import Admit
from tests.support_tasks import DONE, POOL, Work, joined, task

KEYS = pool_shard(POOL)
PATIENCE_SECONDS = 20.0
TERMS = ["l", "t", "g", "submission=1", "1", "1", "1", "0", "0", "", "", ""]
"""Of a lease, as a notice bears them."""


@pytest.fixture
def database(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


async def admitted(tasks: TaskAdmissionController) -> TaskAdmissionLease:
    await tasks.queue.enqueue([task("t")])
    (lease,) = (await tasks.admit(1)).leases
    return lease


LOSSES: list[Callable[[redis.Redis], object]] = [
    lambda client: client.flushall(),
    lambda client: client.delete(KEYS["leases"]),
    lambda client: client.delete(KEYS["meta"]),
]


@pytest.mark.parametrize("lose", LOSSES, ids=["flushed", "leases deleted", "meta deleted"])
async def test_job_that_ends_as_its_pool_loses_state_leaves_its_result(
    connection: ServerConnection, database: redis.Redis, lose: Callable[[redis.Redis], object]
) -> None:
    async with joined(connection) as tasks:
        lease = await admitted(tasks)
        lose(database)
        told = await asyncio.wait_for(tasks.finish(lease, DONE), PATIENCE_SECONDS)
        assert told.released
        assert database.exists("arq:result:t")
        assert (await tasks.admit(1)).leases == (), "it is not to run again"


@pytest.mark.parametrize("lose", LOSSES, ids=["flushed", "leases deleted", "meta deleted"])
async def test_job_that_goes_back_as_its_pool_loses_state_comes_again_with_its_payload(
    connection: ServerConnection, database: redis.Redis, lose: Callable[[redis.Redis], object]
) -> None:
    async with joined(connection) as tasks:
        lease = await admitted(tasks)
        lose(database)
        back = TaskDeferred(counts="nothing")
        assert (await asyncio.wait_for(tasks.finish(lease, back), PATIENCE_SECONDS)).released
        (again,) = (await tasks.admit(1)).leases
        assert (again.item.task_id, again.item.payload) == ("t", b"payload")
        await tasks.finish(again, DONE)


def expire(tasks: TaskAdmissionController) -> Membership:
    membership = tasks.session.membership
    assert membership is not None
    tasks.session._memberships.expire(membership)
    assert tasks.session.membership is membership, "its last call may still be answered"
    return membership


def outlive(tasks: TaskAdmissionController) -> Membership:
    membership = tasks.session.membership
    assert membership is not None
    membership.acknowledged_at -= membership.ttl_seconds
    return membership


@pytest.mark.parametrize("end", [expire, outlive])
async def test_task_that_comes_after_the_membership_has_ended_is_not_started(
    connection: ServerConnection, end: Callable[[TaskAdmissionController], Membership]
) -> None:
    async with joined(connection) as tasks:
        work = Work(connection, tasks, 1)
        await work.be_idle()
        membership = end(tasks)  # and no turn of the loop until the notice is taken
        tasks.on_notices(membership.generation, [["task", 1, TERMS, "payload"]])
        assert work.names == []


@pytest.mark.parametrize("end", [expire, outlive])
async def test_reply_that_comes_after_the_membership_has_ended_grants_nothing(
    connection: ServerConnection, end: Callable[[TaskAdmissionController], Membership]
) -> None:
    async with joined(connection) as tasks:
        await tasks.queue.enqueue([task("t")])
        asked = tasks.session.ask(Admit(1, 60.0))
        reply = await asked
        assert len(reply.leases) == 1
        end(tasks)
        assert tasks.take_admission(reply).leases == ()
