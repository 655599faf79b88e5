"""Each script's *Cost*: bounded by count, and the same commands however much a shard holds.

Commands are counted by the server itself, those inside of scripts too; nothing is timed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from forebay.contracts.identity import RequestDomain
from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.settings import RequestAdmissionConfig
from forebay.coordinator.keys import SCHEMA_VERSION, SHARDS_KEY
from forebay.coordinator.scripts.composing import ENTRY_POINTS
from forebay.coordinator.scripts.operator_library import ask_text
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.membership import member_keys
from forebay.coordinator.server.urls import parse_url
from tests.support_costs import FEW, MANY, commands, counted, promised
from tests.support_scripts import DEAF_KEY, Acquire, Cancel, Release, ScriptedShard, State, granted

REQUESTS = promised("requests/batch")
TESTED = {  # here and in test_task_costs.py
    "member/join",
    "member/heartbeat",
    "member/rebuild",
    "requests/batch",
    "requests/administer",
    "requests/snapshot",
    "requests/look",
    "requests/explain",
    "requests/audit",
    "tasks/batch",
    "tasks/snapshot",
    "tasks/look",
    "tasks/explain",
    "tasks/audit",
    "operator/ask",
}


def test_every_entry_point_has_its_cost_tested() -> None:
    assert set(ENTRY_POINTS) == TESTED


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with open_sync(parse_url(redis_url)) as client:
        yield client


@pytest.fixture
def shard(client: redis.Redis) -> Iterator[ScriptedShard]:
    shard = ScriptedShard(client)
    yield shard
    shard.close()


# -- requests/batch: what one call does at most


def fill(shard: ScriptedShard, members: int, leases: int, **config: Any) -> None:
    """Make a member that looks, which holds the registration, and others with leases."""
    shard.open(10_000, "looks", config=RequestAdmissionConfig(**config))
    shard.heartbeat("looks", 3600.0)
    for i in range(members):
        shard.join(f"m{i}")
        if leases:
            shard.batch(f"m{i}", *(Acquire(f"of {i}, {n}") for n in range(leases)))


def ended_by_a_call(shard: ScriptedShard) -> int:
    def entries() -> int:
        kinds = ("held", "members")
        return sum(int(shard.client.zcard(shard.keys[kind])) for kind in kinds)

    before = entries()
    shard.batch("looks")
    return before - entries()


@pytest.mark.parametrize(("members", "leases"), [(1500, 0), (1, 400), (90, 5)])
def test_call_ends_no_more_than_it_promises(
    shard: ScriptedShard, members: int, leases: int
) -> None:
    fill(shard, members, leases)
    shard.advance(15.0)
    left = members * (leases + 1)
    while left:
        ended = ended_by_a_call(shard)
        assert 0 < ended <= REQUESTS["ended"]
        left -= ended


def test_overdue_holds_and_lost_members_share_one_bound(shard: ScriptedShard) -> None:
    fill(shard, 2, 300, max_hold_seconds=15.0)
    shard.heartbeat("m1", 3600.0)
    shard.advance(15.0)
    while left := shard.client.zcard(shard.keys["holds"]):
        before = int(left)
        shard.batch("looks")
        assert 0 < before - int(shard.client.zcard(shard.keys["holds"])) <= REQUESTS["ended"]


def test_end_of_a_member_costs_an_event_for_each_lease_and_else_a_command_for_each_key(
    shard: ScriptedShard,
) -> None:
    fill(shard, members=1, leases=150, initial_limits={RequestDomain.CHAT: 150})
    shard.advance(15.0)
    with counted(shard.client) as count:
        assert ended_by_a_call(shard) == 150 + 1
    assert count.by_name.pop("xadd") == 150 + 1  # the member's own end
    assert max(count.by_name.values()) < 15, count.by_name


def test_call_looks_at_no_more_silent_members_than_it_promises(shard: ScriptedShard) -> None:
    fill(shard, 200, 0)
    shard.client.sadd(DEAF_KEY, *(f"m{i}" for i in range(200)))
    shard.advance(5.0)
    suspects = 0
    while suspects < 200:
        shard.batch("looks")
        found = int(shard.client.zcard(shard.keys["suspects"]))
        assert 0 < found - suspects <= REQUESTS["members"]
        suspects = found


@pytest.mark.parametrize("why", ["deadline", "unregistered"])
def test_call_denies_no_more_than_it_promises(shard: ScriptedShard, why: str) -> None:
    shard.open(1, "registers", "looks")
    shard.heartbeat("looks", 3600.0)
    shard.batch("looks", Acquire("first"))
    shard.batch("looks", *(Acquire(f"w{i}", wait=5.0) for i in range(200)))
    if why == "deadline":
        shard.heartbeat("registers", 3600.0)
    shard.advance(5.000_001 if why == "deadline" else 15.0)
    denied = 0
    while denied < 200:
        notices = [n for n in shard.batch("looks").notices if n[0] == "denied"]
        assert 0 < len(notices) <= REQUESTS["denials"]
        denied += len(notices)


def test_call_grants_no_more_than_it_promises(shard: ScriptedShard) -> None:
    shard.open(500, "m")
    shard.heartbeat("m", 3600.0)
    shard.batch("m", *(Acquire(f"w{i}") for i in range(500)))
    shard.batch("m", Release("w0", Outcome.RATE_LIMITED, 5.0))
    shard.batch("m", *(Release(f"w{i}") for i in range(1, 500)))
    shard.batch("m", *(Acquire(f"v{i}") for i in range(200)))
    shard.advance(5.0)
    got = 0
    while got < 200:
        grants = granted(shard.batch("m").notices)
        assert 0 < len(grants) <= REQUESTS["grants"]
        got += len(grants)


def test_call_sets_no_more_waiters_aside_than_it_promises(shard: ScriptedShard) -> None:
    shard.open(1, "m", "dead")
    shard.batch("m", Acquire("first"))
    shard.batch("dead", *(Acquire(f"w{i}") for i in range(500)))
    shard.client.sadd(DEAF_KEY, "dead")
    shard.batch("m", Release("first"))
    aside = 0
    while aside < 500:
        found = int(shard.client.zcard(shard.keys["aside"]))
        assert 0 < found - aside <= REQUESTS["waiters"]
        aside = found
        shard.batch("m")
    shard.client.srem(DEAF_KEY, "dead")
    while aside:
        shard.batch("dead")
        found = int(shard.client.zcard(shard.keys["aside"]))
        assert 0 < aside - found <= REQUESTS["waiters"]
        aside = found


def test_batch_costs_no_more_commands_for_more_leases(shard: ScriptedShard) -> None:
    shard.open(100, "m")
    shard.batch("m", *(Acquire(f"a{i}") for i in range(40)))
    shard.batch("m", Release("a39"))  # which makes the memory of ended leases
    costs, at = [], 0
    for pairs in (2, 16):
        ops = [Release(f"a{i}") for i in range(at, at + pairs)]
        ops += [Acquire(f"b{i}") for i in range(at, at + pairs)]
        costs.append(commands(shard.client, lambda ops=ops: shard.batch("m", *ops)))
        at += pairs
    assert costs[0] == costs[1]


# -- requests: the same commands however much there is


def crowd(shard: ScriptedShard, size: int) -> None:
    """Fill a shard with members, groups that wait, leases and ended ids."""
    shard.open(size, "m", *(f"o{i}" for i in range(size // 20)))
    for at in range(0, size, 50):
        asks = [Acquire(f"l{i}", group=f"g{i}", wait=900.0) for i in range(at, at + 50)]
        shard.batch("m", *asks[: size - at])
    for at in range(0, size, 50):
        asks = [Acquire(f"w{i}", group=f"g{i}", wait=900.0) for i in range(at, at + 50)]
        shard.batch("m", *asks[: size - at])
    for i in range(5):
        shard.batch("m", Release(f"l{i}"))


@pytest.mark.parametrize(
    "ops",
    [
        (Acquire("new", group="new"),),
        (Acquire("try", wait="try"),),
        (Release("l10"),),
        (Release("l10", Outcome.RATE_LIMITED, 1.0),),
        (Cancel("w10"),),
        (State("w11"),),
    ],
)
def test_operation_costs_the_same_commands_in_a_crowd(client: redis.Redis, ops: Any) -> None:
    costs = []
    for size in (FEW, MANY):
        client.flushall()
        shard = ScriptedShard(client)
        crowd(shard, size)
        costs.append(commands(client, lambda shard=shard: shard.batch("m", *ops)))
        shard.close()
    assert costs[0] == costs[1]


@pytest.mark.parametrize("operation", ["settle", "reset_window", "override_cap"])
def test_operators_operation_costs_the_same_commands_in_a_crowd(
    client: redis.Redis, operation: str
) -> None:
    subject = {"settle": "", "reset_window": "chat", "override_cap": "5"}[operation]
    costs = []
    for size in (FEW, MANY):
        client.flushall()
        shard = ScriptedShard(client)
        crowd(shard, size)
        costs.append(commands(client, lambda shard=shard: shard.administer(operation, subject)))
        shard.close()
    assert costs[0] == costs[1]
    assert {name: promised("requests/administer")[name] for name in REQUESTS} == REQUESTS


def test_join_and_heartbeat_cost_the_same_commands_in_a_crowd(client: redis.Redis) -> None:
    costs = []
    for size in (FEW, MANY):
        client.flushall()
        shard = ScriptedShard(client)
        crowd(shard, size)
        costs.append(
            (
                commands(client, lambda shard=shard: shard.join("new")),
                commands(client, lambda shard=shard: shard.heartbeat("new")),
            )
        )
        shard.close()
    assert costs[0] == costs[1]
    join, heartbeat = costs[1]
    assert join <= len(shard.keys.all) + 24  # one PEXPIRE per key; the looks for a loss
    assert heartbeat <= len(shard.keys.all) + 12


def test_begin_of_a_rebuild_costs_at_most_three_commands_a_member(client: redis.Redis) -> None:
    shard = ScriptedShard(client)
    crowd(shard, FEW)
    arguments = (SCHEMA_VERSION, "anew")
    begin = lambda: shard.run("member/rebuild", member_keys(shard.keys), arguments)  # noqa: E731
    members = client.zcard(shard.keys["members"])
    assert commands(client, begin) <= len(shard.keys.all) + 30 + 3 * members
    shard.close()


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("requests/snapshot", ()),
        *(("requests/look", (question,)) for question in ("show", "waiters", "shares", "events")),
    ],
)
def test_look_at_a_shard_has_no_more_rows_than_it_promises(
    client: redis.Redis, name: str, question: tuple[str, ...]
) -> None:
    bound = promised("requests/snapshot")
    costs = []
    for size in (MANY, 2 * MANY):
        client.flushall()
        shard = ScriptedShard(client)
        crowd(shard, size)
        for at in range(0, size, 50):
            shard.join(f"member {at}")
        costs.append(
            commands(
                client,
                lambda shard=shard: shard.run(name, shard.keys.all, (*question, bound["members"])),
            )
        )
        shard.close()
    assert costs[0] == costs[1]
    assert bound["members"] == bound["groups"] == bound["registrations"] == 100


def test_explanation_reads_no_more_leases_and_events_than_it_promises(
    shard: ScriptedShard,
) -> None:
    most, client = promised("requests/explain"), shard.client
    crowd(shard, MANY // 10)
    lease = client.hget(shard.keys["leases"], "l10")
    costs = []
    for more in (9_000, 18_000):
        client.hset(shard.keys["leases"], mapping={f"x{i}": lease for i in range(more)})
        with counted(client) as count:
            for subject in ("l10", "w10", "g7"):
                shard.run("requests/explain", shard.keys.all, (100, subject))
        assert count.by_name.pop("hscan") <= 3 * (most["leases"] / 1000 + 1)
        costs.append(count.by_name)
    assert costs[0] == costs[1]
    assert costs[0]["xrevrange"] == 3


def test_audit_of_a_shard_above_its_bound_compares_totals_alone(shard: ScriptedShard) -> None:
    shard.open(5, "m")
    shard.batch("m", Acquire("a"))
    most = promised("requests/audit")["entries"]
    client = shard.client
    pipe = client.pipeline(transaction=False)
    for at in range(0, most, 1000):
        rows = {
            f"g{i}": f"1|0|{i + 1}|0|{shard.server_us}|{shard.server_us}"
            for i in range(at, at + 1000)
        }
        pipe.hset(shard.keys["groups"], mapping=rows)
    pipe.execute()
    with counted(client) as count:
        report = json.loads(shard.run("requests/audit", shard.keys.all, ("json",)))
    assert report["is_complete"] is False
    assert "hgetall" not in count.by_name
    assert count.all < 60


def test_list_of_shards_looks_at_no_more_of_them_than_it_has_rows(client: redis.Redis) -> None:
    client.sadd(SHARDS_KEY, *(f"rq:p/m{i}" for i in range(MANY)))
    text = ask_text()
    costs = [commands(client, lambda: client.eval_ro(text, 0, "shards"))]
    client.sadd(SHARDS_KEY, *(f"rq:p/m{i}" for i in range(2 * MANY)))
    costs.append(commands(client, lambda: client.eval_ro(text, 0, "shards")))
    assert costs[0] == costs[1] <= 4 * 100 + 4
