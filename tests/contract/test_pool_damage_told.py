"""What an operator meets at a damaged task pool: the key, the remedy, a rebuild by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import click
import pytest
import redis

from forebay.commands.audit import audit_command
from forebay.commands.reset import rebuild_line, reset_command
from forebay.contracts.errors import ConfigurationError, ShardDamaged
from forebay.coordinator.keys import POOL_KEYS, SCHEMA_VERSION, pool_shard
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.membership import member_keys
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.administration import rebuild_pool, set_pool_state
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.snapshots import PoolReader, audit_pool, pool_lines
from tests.contract.pool_that_loses_state import INTERVAL_SECONDS, Fleet
from tests.contract.pool_under_clock import Pool, open_pool
from tests.support_runs import forebay as command
from tests.support_tasks import DONE, POOL, joined, task

KEYS = pool_shard(POOL)
LOOKS: Final = (("tasks/snapshot", (100,)), ("tasks/look", ("show", 100, "")))


@pytest.fixture(params=["server"])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    yield from open_pool(request)


@pytest.fixture
def fleet(pool: Pool) -> Fleet:
    fleet = Fleet(pool)
    fleet.open()
    fleet.fill()
    return fleet


def differences(pool: Pool) -> list[str]:
    return list(json.loads(pool.run("tasks/audit", "json"))["differences"])


def error_of(pool: Pool, name: str, arguments: tuple[Any, ...]) -> str:
    """Return the error that a call answers with; empty for none."""
    try:
        pool.run(name, *arguments)
    except redis.ResponseError as refused:
        return str(refused)
    return ""


def test_every_look_at_a_key_of_another_type_names_key_and_remedy(fleet: Fleet) -> None:
    pool, named = fleet.pool, set()
    for kind in POOL_KEYS:
        kept = pool.client.dump(pool.keys[kind])
        pool.client.delete(pool.keys[kind])
        pool.client.set(pool.keys[kind], "garbage")
        (told,) = differences(pool)
        assert told.startswith(f"{pool.keys[kind]} key: expected one that can be read")
        for name, arguments in LOOKS:
            error = error_of(pool, name, arguments)  # empty where the call needs no such key
            if error:
                named.add(kind)
                assert error.startswith(f"DAMAGED {pool.keys[kind]} is damaged"), name
                assert "`forebay reset --rebuild --pool main` does" in error, name
        pool.client.delete(pool.keys[kind])
        if kept:
            pool.client.restore(pool.keys[kind], 0, kept)
    assert named >= {"meta", "limits", "ledger", "fifo", "groups", "ready"}


@pytest.mark.parametrize("kind", ["meta", "tasks"])
def test_look_at_a_pool_that_lost_a_key_names_it(fleet: Fleet, kind: str) -> None:
    pool = fleet.pool
    pool.client.delete(pool.keys[kind])
    assert error_of(pool, *LOOKS[0]).startswith(f"DAMAGED {pool.keys[kind]} is damaged")
    fleet.try_sweep("m")  # it finds the damage, and takes the generation away
    for name, arguments in LOOKS:
        assert error_of(pool, name, arguments).startswith(f"DAMAGED {pool.keys[kind]} is damaged")


def test_rebuild_by_hand_admits_nothing_before_members_have_stated(fleet: Fleet) -> None:
    pool = fleet.pool
    keys = member_keys(pool.keys)
    script_arguments = (SCHEMA_VERSION, "anew")
    _now_us, _until_us, awaited = json.loads(
        pool.administer("member/rebuild", keys, script_arguments)
    )
    assert awaited == len("mn")
    assert not fleet.try_sweep("m")
    assert fleet.come_back("m") == {"m": "forgotten"}
    assert fleet.admit("m", 9) == []
    fleet.come_back("n")
    assert fleet.admit("m", 9) != []


def test_first_sweep_after_a_rebuild_s_interval_finds_no_damage(fleet: Fleet) -> None:
    pool = fleet.pool
    pool.administer("member/rebuild", member_keys(pool.keys), (SCHEMA_VERSION, "anew"))
    pool.pass_time(INTERVAL_SECONDS)
    pool.beat("m")
    pool.join("newcomer")
    pool.ask("newcomer", "sweep")
    assert [event for event in pool.events() if event["kind"] == "shard_damaged"] == []
    assert pool.audit().ok


# -- of a real pool


@pytest.fixture
async def connection(redis_url: str) -> AsyncIterator[ServerConnection]:
    async with await ServerConnection.open(redis_url) as connection:
        yield connection


@pytest.fixture
async def tasks(connection: ServerConnection) -> AsyncIterator[TaskAdmissionController]:
    async with joined(connection, POOL) as tasks:
        await tasks.set_limit("gpu", 2)
        for name in ("a", "b"):
            await tasks.queue.submit(task(name))
        yield tasks


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return open_sync(parse_url(redis_url))


async def test_python_calls_at_a_damaged_pool_raise_a_typed_error(
    tasks: TaskAdmissionController, connection: ServerConnection, client: redis.Redis
) -> None:
    client.delete(KEYS["tasks"])
    reader = PoolReader(connection, KEYS)
    with pytest.raises(ShardDamaged, match="forebay reset --rebuild --pool tasks") as damaged:
        await reader.snapshot()
    assert damaged.value.key == KEYS["tasks"]
    client.delete(KEYS["ledger"])
    client.set(KEYS["ledger"], "garbage")
    with pytest.raises(ShardDamaged) as damaged:
        await pool_lines(connection, POOL)
    assert damaged.value.key == KEYS["ledger"]
    assert (await set_pool_state(connection, POOL, "paused")).state == "paused"
    assert (await audit_pool(connection, POOL)).ok
    assert tasks.session.membership is not None


async def test_pool_is_paused_on_an_emptied_server_before_any_member_is_back(
    tasks: TaskAdmissionController, connection: ServerConnection, client: redis.Redis
) -> None:
    client.flushall()
    assert (await set_pool_state(connection, POOL, "paused")).state == "paused"
    assert await tasks.set_limit("gpu", 2) == 2
    assert (await PoolReader(connection, KEYS).snapshot()).state == "paused"


async def test_rebuild_of_a_pool_that_runs_costs_nobody_a_task(
    tasks: TaskAdmissionController, connection: ServerConnection
) -> None:
    (lease,) = (await tasks.admit(1)).leases
    begun = await rebuild_pool(connection, POOL)
    assert begun.awaited == 1
    assert begun.most_seconds > 0
    assert (await tasks.finish(lease, DONE)).released
    assert (await audit_pool(connection, POOL)).ok
    with pytest.raises(ConfigurationError, match="no pool 'typo' exists"):
        await rebuild_pool(connection, "typo")


async def test_commands_say_what_differs_in_a_pool_and_repair_it_on_request(
    tasks: TaskAdmissionController, client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    (lease,) = (await tasks.admit(1)).leases
    client.hincrby(KEYS["ledger"], "gpu", 1)  # no count of a sweep covers it
    repaired = await asyncio.to_thread(
        command, "audit", "--repair", "--url", redis_url, cwd=tmp_path
    )
    assert repaired.returncode == 0, repaired.stdout
    assert f"{KEYS['ledger']} gpu: expected 0, found 1" in repaired.stdout
    assert "rebuild begun: 1 member states leases and waiters" in repaired.stdout
    assert repaired.stdout.splitlines()[-1] == f"pool {POOL}  ok"
    assert (await tasks.finish(lease, DONE)).released
    rebuilt = await asyncio.to_thread(
        command, "reset", "--rebuild", "--pool", POOL, "--url", redis_url, cwd=tmp_path
    )
    assert rebuilt.stdout.startswith(f"pool {POOL}  rebuild begun")


async def test_a_pool_that_nobody_runs_is_rebuilt_by_hand(
    connection: ServerConnection, client: redis.Redis
) -> None:
    async with joined(connection, POOL) as tasks:
        await tasks.queue.submit(task("a"))
    client.delete(KEYS["fifo"])
    assert not (await audit_pool(connection, POOL)).ok
    begun = await rebuild_pool(connection, POOL)
    assert rebuild_line(begun) == "rebuilt; no member was there to state what it holds"
    assert (await audit_pool(connection, POOL)).ok
    assert (await PoolReader(connection, KEYS).snapshot()).queue.queued_total == 1


@pytest.mark.parametrize(
    ("command_named", "words", "named"),
    [
        (reset_command, (), "given nothing"),
        (reset_command, ("--pool", POOL), "without --rebuild"),
        (reset_command, ("acme", "m", "--pool", POOL, "--rebuild"), "one of the two"),
        (audit_command, ("acme", "m", "--pool", POOL), "one of the two"),
        (audit_command, ("acme",), "name the model too"),
    ],
)
def test_command_that_names_no_shard_or_two_is_refused(
    command_named: click.Command, words: tuple[str, ...], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        command_named.main([*words, "--url", "redis://nowhere"], standalone_mode=False)
