"""The documented ACL rules are enough for what members, workers and operators do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import forebay
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.requests.operating import reset_window, set_override_cap
from forebay.coordinator.server.address import UnixAddress
from forebay.coordinator.server.connections import open_async, open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.examination import examine
from forebay.coordinator.server.refusals import MEMBER_RULES, POOL_RULES
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.tasks.operating import set_pool_state
from forebay.coordinator.tasks.snapshots import audit_pool, pool_lines
from tests.contract.chat_domain import CHAT, MODEL, item
from tests.support_arq import result_of, working

OPERATOR_RULES = ("+evalsha", "+eval", "+script|load")
OF_THE_LIBRARY = {"client|setinfo"}
"""redis-py tries this on each connection, and goes on without it."""


@pytest.fixture
def admin() -> Iterator[Any]:
    with EmbeddedServer() as server, open_sync(parse_url(server.url)) as client:
        yield client


def as_user(admin: Any, *rules: str) -> str:
    """Return the URL of a user with these rights."""
    admin.execute_command("ACL", "SETUSER", "member", "reset", "on", ">pw", *rules)
    path = admin.connection_pool.connection_kwargs["path"]
    return f"unix://member:pw@{path}"


def refused(admin: Any) -> set[str]:
    """Return the commands and keys that were refused."""
    log: list[Any] = admin.execute_command("ACL", "LOG")
    entries = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in log]
    return {entry[b"object"].decode() for entry in entries} - OF_THE_LIBRARY


def test_a_connection_that_idled_sends_no_ping_which_a_member_may_not() -> None:
    address = UnixAddress(path="/nowhere")
    for client in (open_async(address), open_sync(address)):
        made: Any = client.connection_pool.make_connection()
        assert made.health_check_interval == 0


async def test_a_member_needs_no_more_for_requests(admin: Any) -> None:
    url = as_user(admin, *MEMBER_RULES)
    async with forebay.connect(url) as requests, await Coordinator.open(url) as looking:
        await requests.register(MODEL, "main", 4)
        lease = await requests.acquire(item())
        assert (await requests.release(lease, forebay.SUCCESS)).released
        assert (await requests.pressure.audit(MODEL)).ok
        await requests.pressure.snapshots()
        await examine(looking.client, looking.address)
    assert refused(admin) == set()


async def test_a_worker_needs_no_more_for_jobs(admin: Any) -> None:
    async def echo(_ctx: Any, said: int) -> int:
        return said

    url = as_user(admin, *MEMBER_RULES, *POOL_RULES)
    async with (
        await forebay.create_pool(url) as jobs,
        working(url, echo, allow_abort_jobs=True, health_check_interval=0.01),
        await Coordinator.open(url) as looking,
    ):
        job = await jobs.enqueue_job("echo", 1)
        assert job is not None
        assert await result_of(job) == 1
        await job.status()
        await job.info()
        await jobs.queued_jobs()
        await jobs.all_job_results()
        await set_pool_state(looking, "default", "open")
        await audit_pool(looking, "default")
        await pool_lines(looking, "default")
    assert refused(admin) == set()


async def test_an_operator_needs_no_more_to_reset_and_to_cap(admin: Any) -> None:
    url = as_user(admin, *MEMBER_RULES, *OPERATOR_RULES)
    async with forebay.connect(url) as requests, await Coordinator.open(url) as operating:
        await requests.register(MODEL, "main", 4)
        await reset_window(operating, CHAT)
        assert await set_override_cap(operating, MODEL, 2) == 2
    assert refused(admin) == set()


async def test_a_pool_that_others_listen_for_takes_its_first_job(admin: Any) -> None:
    path = admin.connection_pool.connection_kwargs["path"]
    with admin.pubsub() as listening:
        listening.subscribe("fb:{pool:default}:wake:another-1")
        listening.get_message(timeout=5)
        async with await forebay.create_pool(f"unix://{path}") as jobs:
            assert await jobs.enqueue_job("echo", 1) is not None
