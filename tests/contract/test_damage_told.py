"""What an operator meets at a damaged request shard: the key, the remedy, a rebuild by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis

import forebay
from forebay.contracts.errors import ConfigurationError, ShardDamaged
from forebay.coordinator.keys import REQUEST_KEYS, SCHEMA_VERSION, request_shard
from forebay.coordinator.requests.administration import rebuild, set_override_cap
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.membership import member_keys
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.chat_domain import MODEL, item
from tests.support_runs import forebay as command
from tests.support_scene import Controller
from tests.support_scripts import AIMD, Acquire, Refused, ScriptedShard, Sweep
from tests.support_state import audited

LOOKS = (("requests/snapshot", (0,)), ("requests/look", ("show", 100)))
SETTLE = ("requests/administer", (SCHEMA_VERSION, "settle", ""))


def differences(shard: ScriptedShard) -> list[str]:
    report = json.loads(shard.run("requests/audit", shard.keys.all, ("json",)))
    return list(report["differences"])


def error_of(shard: ScriptedShard, name: str, arguments: tuple[Any, ...]) -> str:
    """Return the error that a call answers with; empty for none."""
    try:
        shard.run(name, shard.keys.all, arguments)
    except Refused as refused:
        return str(refused)
    return ""


@pytest.mark.parametrize("kind", REQUEST_KEYS)
def test_every_call_on_a_key_of_another_type_names_key_and_remedy(
    shard: ScriptedShard, kind: str
) -> None:
    shard.open(2, "m")
    for attempt_id in ("a", "b", "c"):
        shard.ask("m", Acquire(attempt_id, wait=60.0))
    shard.client.delete(shard.keys[kind])
    shard.client.set(shard.keys[kind], "garbage")

    (told,) = differences(shard)
    assert told.startswith(f"{shard.keys[kind]} key: expected one that can be read")
    for name, arguments in (*LOOKS, SETTLE):
        error = error_of(shard, name, arguments)  # empty where the call needs no such key
        assert error.startswith(f"DAMAGED {shard.keys[kind]} is damaged" if error else ""), name
        assert "forebay reset --rebuild" in (error or "forebay reset --rebuild"), name
    assert kind not in {"meta", "leases", "members"} or error_of(shard, *LOOKS[0])


@pytest.mark.parametrize(("name", "arguments"), [*LOOKS, SETTLE])
def test_shard_whose_meta_is_gone_is_not_shown_as_an_unused_one(
    shard: ScriptedShard, name: str, arguments: tuple[Any, ...]
) -> None:
    shard.open(2, "m")
    shard.client.delete(shard.keys["meta"])
    with pytest.raises(Refused, match=shard.keys["meta"]):
        shard.run(name, shard.keys.all, arguments)


def begin(shard: ScriptedShard, generation: str = "anew") -> list[int]:
    keys = member_keys(shard.keys)
    return list(json.loads(shard.run("member/rebuild", keys, (SCHEMA_VERSION, generation))))


def test_rebuild_by_hand_sets_the_books_right_where_nobody_runs(shard: ScriptedShard) -> None:
    shard.open(2, "m")
    for attempt_id in ("a", "b", "c"):
        shard.ask("m", Acquire(attempt_id, wait=60.0))
    shard.client.zrem(shard.keys["held"], "m\0lease\0a")
    assert differences(shard)
    begin(shard)
    shard.run(SETTLE[0], shard.keys.all, SETTLE[1])
    state = audited(shard.client, shard.keys)
    assert set(state["leases"]) == {"a", "b"}
    assert set(state["waiters"]) == {"c"}


def test_rebuild_by_hand_grants_nothing_before_members_have_stated(shard: ScriptedShard) -> None:
    shard.open(2, "m", "n")
    assert shard.ask("m", Acquire("a"))[0] == "granted"
    _now_us, _until_us, awaited = begin(shard)
    assert awaited == len("mn")
    assert not shard.try_batch("n", Acquire("b"))
    assert shard.join("n", remembered="born")[3] == "forgotten"
    assert shard.ask("n", Acquire("b", wait="try"))[0] == "denied"


def test_first_sweep_after_a_rebuild_s_interval_finds_no_damage(shard: ScriptedShard) -> None:
    shard.open(2, "m")
    shard.ask("m", Acquire("a"))
    begin(shard)
    shard.advance(5.0)
    shard.join("newcomer")
    shard.batch("newcomer", Sweep())
    assert b"shard_damaged" not in {
        fields[b"kind"] for _, fields in shard.client.xrange(shard.keys["events"])
    }
    assert set(audited(shard.client, shard.keys)["leases"]) == {"a"}


def test_rebuild_of_what_nobody_used_makes_no_key(shard: ScriptedShard) -> None:
    with pytest.raises(Refused, match="NOSHARD"):
        begin(shard)
    assert shard.stored_keys() == set()


@pytest.fixture
async def connection(redis_url: str) -> AsyncIterator[ServerConnection]:
    async with await ServerConnection.open(redis_url) as connection:
        yield connection


@pytest.fixture
async def controller(connection: ServerConnection) -> AsyncIterator[Controller]:
    controller = Controller(connection)
    await controller.register(MODEL, "main", 2, AIMD)
    yield controller
    await controller.close()


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return open_sync(parse_url(redis_url))


async def test_python_calls_of_an_operator_raise_a_typed_error(
    controller: Controller, connection: ServerConnection, client: redis.Redis
) -> None:
    key = request_shard(MODEL)["aliases"]
    client.delete(key)
    client.set(key, "garbage")
    looking = RequestPressureSnapshotProvider(connection)
    with pytest.raises(ShardDamaged, match="forebay reset --rebuild") as damaged:
        await looking.global_snapshot(MODEL)
    assert damaged.value.key == key
    with pytest.raises(ShardDamaged):
        await set_override_cap(connection, MODEL, 1)
    lease = await controller.acquire(item())  # its call finds the damage, and members rebuild
    assert await set_override_cap(connection, MODEL, 1) == 1
    assert (await looking.audit(MODEL)).ok
    await controller.release(lease, forebay.SUCCESS)


async def test_rebuild_of_a_running_fleet_costs_nobody_a_lease(
    controller: Controller, connection: ServerConnection
) -> None:
    lease = await controller.acquire(item())
    begun = await rebuild(connection, MODEL)
    assert begun.awaited == 1
    assert begun.most_seconds > 0
    assert (await controller.release(lease, forebay.SUCCESS)).released
    assert (await RequestPressureSnapshotProvider(connection).audit(MODEL)).ok
    unknown = forebay.ProviderModelKey(provider_name="acme", model_id="typo")
    with pytest.raises(ConfigurationError, match="never used"):
        await rebuild(connection, unknown)


async def test_audit_command_says_what_differs_and_repairs_on_request(
    controller: Controller, client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    lease = await controller.acquire(item())
    held = request_shard(MODEL)["held"]
    for entry in client.zrange(held, 0, -1):
        if b"lease" in entry:
            client.zrem(held, entry)
    words = (MODEL.provider_name, MODEL.model_id, "--url", redis_url)

    said = command("audit", *words, cwd=tmp_path)
    assert (said.returncode, said.stderr) == (1, "")
    assert f"{held} " in said.stdout
    assert "expected present, found absent" in said.stdout
    repaired = command("audit", *words, "--repair", cwd=tmp_path)
    assert repaired.returncode == 0, repaired.stdout
    assert "expected present, found absent" in repaired.stdout
    assert "rebuild begun: 1 member states leases and waiters" in repaired.stdout
    assert repaired.stdout.splitlines()[-1] == f"{MODEL}  ok"
    assert (await controller.release(lease, forebay.SUCCESS)).released
    assert command("audit", "--url", redis_url, cwd=tmp_path).stdout == f"{MODEL}  ok\n"
    rebuilt = command("reset", *words, "--rebuild", cwd=tmp_path)
    assert "rebuild begun" in rebuilt.stdout
