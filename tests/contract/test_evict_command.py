"""`forebay audit --evict` on a server: one lease ends, whichever shard it is of."""

from __future__ import annotations

import pytest

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.outcomes import RequestReleaseOutcome
from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.contracts.tasks import TaskAdmissionLease
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.test_explain_command import ITEM, MODEL, forebay
from tests.support import wait_until
from tests.support_tasks import DONE, joined, task


async def test_an_evicted_request_lease_is_told_and_its_release_is_stale(
    connection: ServerConnection, redis_url: str
) -> None:
    lost: list[tuple[str, str]] = []
    requests = AdaptiveRequestAdmissionController(
        connection, on_lease_lost=lambda lease, why: lost.append((lease.lease_id, why))
    )
    await requests.register(MODEL, "main", 1)
    lease = await requests.acquire(ITEM)
    assert isinstance(lease, RequestAdmissionLease)
    shown = await forebay("audit", "--evict", lease.lease_id, "--yes", "--url", redis_url)
    assert f"ended lease {lease.lease_id} in p/m, held by member " in shown.output
    await wait_until(lambda: lost == [(lease.lease_id, "evicted")])
    other = RequestAdmissionItem(resource=ITEM.resource, group=ITEM.group)
    again = await requests.acquire(other)
    assert isinstance(again, RequestAdmissionLease)
    released = await requests.release(lease, RequestReleaseOutcome(kind="success"))
    assert (released.released, released.reason) == (False, "stale_lease")
    assert (await requests.release(again, RequestReleaseOutcome(kind="success"))).released
    await requests.close()


async def test_an_evicted_task_lease_is_told_and_its_task_waits_again(
    connection: ServerConnection, redis_url: str
) -> None:
    lost: list[TaskAdmissionLease] = []
    async with joined(connection, "mail", on_lease_lost=lost.append) as tasks:
        await tasks.queue.submit(task("t 1"))
        (lease,) = (await tasks.admit(1)).leases
        shown = await forebay("audit", "--evict", "t 1~1", "--yes", "--url", redis_url)
        assert "ended lease t 1~1 in pool mail, held by member " in shown.output
        await wait_until(lambda: lost == [lease])
        (again,) = (await tasks.admit(1)).leases
        assert (again.item.task_id, again.item.job_try) == ("t 1", 2)
        released = await tasks.finish(lease, DONE)
        assert (released.released, released.reason) == (False, "stale_lease")
        events = await connection.client.xrange(pool_shard("mail")["events"])
        told = [event for _id, event in events if event.get(b"kind") == b"task_lease_expired"]
        assert [event[b"reason"] for event in told] == [b"evicted"]
        assert (await tasks.finish(again, DONE)).released


@pytest.mark.parametrize("words", [["t~1"], ["t~1", "--pool", "mail"]])
async def test_no_such_lease_and_a_shard_besides_are_told(redis_url: str, words: list[str]) -> None:
    shown = await forebay("audit", "--evict", *words, "--yes", "--url", redis_url)
    assert isinstance(shown.exception, ConfigurationError)


async def test_evict_asks_before_it_ends_a_lease(
    connection: ServerConnection, redis_url: str
) -> None:
    async with joined(connection, "mail") as tasks:
        await tasks.queue.submit(task("t"))
        (lease,) = (await tasks.admit(1)).leases
        shown = await forebay("audit", "--evict", "t~1", "--url", redis_url)
        assert shown.exit_code == 1
        assert (await tasks.finish(lease, DONE)).released
