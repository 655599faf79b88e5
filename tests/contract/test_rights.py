"""The documented ACL rules are enough for what members, workers and operators do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner

import forebay
from forebay.cli import cli
from forebay.contracts.errors import CoordinatorError
from forebay.coordinator.explaining import explain
from forebay.coordinator.keys import SHARDS_KEY, pool_shard
from forebay.coordinator.requests.administration import reset_window, set_override_cap
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.scripts.composing import script
from forebay.coordinator.scripts.operator_library import (
    QUESTIONS,
    library_version,
    operator_library,
)
from forebay.coordinator.server.address import UnixAddress
from forebay.coordinator.server.connections import open_async, open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.examination import examine
from forebay.coordinator.server.rights import MEMBER_RULES, REQUEST_RULES, USERS, acl_lines
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.administration import set_pool_state
from forebay.coordinator.tasks.snapshots import audit_pool, pool_lines
from tests.contract.chat_domain import CHAT, MODEL, item
from tests.support_arq import result_of, working
from tests.support_tasks import joined, task

OF_SHARDS = tuple(name for name in QUESTIONS if name not in {"shards", "doctor"})
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


def as_printed(admin: Any, kind: str) -> str:
    """Paste what `forebay acl` prints, and return the URL of that user."""
    printed = CliRunner().invoke(cli, ["acl", kind])
    (line,) = [line for line in printed.output.splitlines() if not line.startswith("#")]
    admin.execute_command(*line.replace(">PASSWORD", ">pw").split())
    path = admin.connection_pool.connection_kwargs["path"]
    return f"unix://{kind}:pw@{path}"


@pytest.mark.parametrize("rules", [MEMBER_RULES, REQUEST_RULES])
async def test_a_request_only_member_needs_only_the_printed_rights(
    admin: Any, rules: tuple[str, ...]
) -> None:
    url = as_user(admin, *rules)
    async with forebay.connect(url) as requests, await ServerConnection.open(url) as looking:
        await requests.register(MODEL, "main", 4)
        lease = await requests.acquire(item())
        assert (await requests.release(lease, forebay.SUCCESS)).released
        assert (await requests.pressure.audit(MODEL)).ok
        await requests.pressure.snapshots()
        assert refused(admin) == set()
        (acl,) = [c for c in await examine(looking.client, looking.address) if c.name == "acl"]
        assert acl.state == "ok"
        assert ("not read pools" in acl.said) == (rules == REQUEST_RULES)


async def test_a_worker_needs_no_more_for_jobs(admin: Any) -> None:
    async def echo(_ctx: Any, said: int) -> int:
        return said

    url = as_printed(admin, "pool")
    async with (
        await forebay.create_pool(url) as jobs,
        working(url, echo, allow_abort_jobs=True, health_check_interval=0.01),
        await ServerConnection.open(url) as looking,
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
    url = as_printed(admin, "operator")
    async with forebay.connect(url) as requests, await ServerConnection.open(url) as operating:
        await requests.register(MODEL, "main", 4)
        await reset_window(operating, CHAT)
        assert await set_override_cap(operating, MODEL, 2) == 2
    assert refused(admin) == set()


async def test_a_request_only_user_reaches_nothing_of_a_pool(admin: Any) -> None:
    path = admin.connection_pool.connection_kwargs["path"]
    async with await forebay.create_pool(f"unix://{path}") as jobs:
        job = await jobs.enqueue_job("echo", 1)
        assert job is not None
        meta, tasks = pool_shard("default")["meta"], pool_shard("default")["tasks"]
        with open_sync(parse_url(as_printed(admin, "requests"))) as user:
            for command in (
                ("HGETALL", meta),
                ("GET", f"arq:job:{job.job_id}"),
                ("FCALL", script("tasks/batch").function, 1, meta, "m", 1),
                ("FCALL", script("member/join").function, 1, meta),
                ("EVAL_RO", "return redis.call('HGETALL', KEYS[1])", 1, meta),
                ("EVAL_RO", f"return redis.call('HGETALL', '{tasks}')", 0),
                ("PUBLISH", "fb:{pool:default}:wake:m", "x"),
                ("SCAN", 0),
                ("RANDOMKEY",),
                ("MULTI",),
            ):
                with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)permission"):
                    user.execute_command(*command)
            for question in OF_SHARDS:
                told = b" ".join(user.execute_command("FCALL", f"fb_{question}", 0, "pool:default"))
                assert b"permission" in told.lower(), question
            listed = user.execute_command("FCALL", "fb_shards", 0)
            assert any(b"no right to it" in line for line in listed)


async def test_a_reader_asks_everything_and_changes_nothing(admin: Any) -> None:
    admin.function_load(operator_library(), replace=True)
    admin.sadd(SHARDS_KEY, "rq:a/b", "pool:default")
    url = as_printed(admin, "reader")
    with open_sync(parse_url(url)) as user:
        for question in QUESTIONS:
            told = b" ".join(user.execute_command("FCALL_RO", f"fb_{question}", 0))
            assert b"permission" not in told.lower()
        for command in (
            ("SET", "fb:x", "1"),
            ("FCALL", "fb_shards", 0),
            ("FUNCTION LOAD", operator_library()),
            ("EVAL_RO", "return 1", 0),
            ("KEYS", "*"),
            ("GET", "arq:job:a"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                user.execute_command(*command)
    async with await ServerConnection.open(url, only_reads=True) as looking:
        (acl,) = [c for c in await examine(looking.client, looking.address) if c.name == "acl"]
    assert acl.state == "ok"
    assert acl.said.startswith("this user may look; not write requests")


async def test_a_reader_has_everything_explained(admin: Any) -> None:
    url = as_printed(admin, "reader")
    path = admin.connection_pool.connection_kwargs["path"]
    async with (
        await ServerConnection.open(f"unix://{path}") as member,
        joined(member, "mail") as tasks,
    ):
        await tasks.queue.submit(task("t1"))
        requests = AdaptiveRequestAdmissionController(member)
        await requests.register(MODEL, "main", 1)
        async with await ServerConnection.open(url, only_reads=True) as reader:
            for name, kind in {"t1": "task", str(MODEL): "provider_model"}.items():
                found = await explain(reader, name)
                assert [one.kind for one in found.explanations] == [kind]
                assert not found.problems
            pressure = RequestPressureSnapshotProvider(reader)
            assert (await pressure.global_snapshot(MODEL)).static_cap == 1
            assert (await pressure.audit(MODEL)).ok
            assert (await audit_pool(reader, "mail")).ok
            admin.function_load(operator_library().replace(library_version(), "x"), replace=True)
            with pytest.raises(CoordinatorError, match="another version"):
                await pressure.audit(MODEL)
        await tasks.queue.discard("t1")
        await requests.close()


async def test_doctor_names_the_right_that_a_member_lacks(admin: Any) -> None:
    url = as_user(admin, *MEMBER_RULES, "-fcall", "-function|load")
    async with await ServerConnection.open(url) as looking:
        (acl,) = [c for c in await examine(looking.client, looking.address) if c.name == "acl"]
    assert acl.state == "wrong"
    assert acl.remedy == "grant it +fcall +function|load; see forebay acl"


def test_the_documented_rules_are_those_that_are_printed() -> None:
    text = Path("docs/reliability.md").read_text() + Path("docs/redis-cli.md").read_text()
    assert [name for name in USERS if acl_lines([name])[1] not in text] == []


async def test_a_pool_that_others_listen_for_takes_its_first_job(admin: Any) -> None:
    path = admin.connection_pool.connection_kwargs["path"]
    with admin.pubsub() as listening:
        listening.subscribe("fb:{pool:default}:wake:another-1")
        listening.get_message(timeout=5)
        async with await forebay.create_pool(f"unix://{path}") as jobs:
            assert await jobs.enqueue_job("echo", 1) is not None
