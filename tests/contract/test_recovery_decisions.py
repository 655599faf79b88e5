"""What operators decide while a shard recovers stays; what nobody has stated yet is no memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract import pool_that_loses_state as pools
from tests.contract.pool_under_clock import Pool, honest_pool
from tests.contract.test_request_rebuild_rules import (
    LISTENING_KEY,
    MEMBERS,
    RUN_KEY,
    Fleet,
    events,
)
from tests.contract.test_task_rebuild_rules import flush
from tests.support_records import read_record
from tests.support_scripts import Release, ScriptedShard, Sweep, granted
from tests.support_state import audited


@pytest.fixture(params=["server"])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    yield from honest_pool(request)


def lose_all(shard: ScriptedShard) -> None:
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    shard.client.delete(*shard.keys.all)


def two_memories(fleet: Fleet) -> tuple[str, str]:
    """Return what members remember before and after an operator set a cap of 3."""
    early = fleet.memory
    fleet.shard.administer("override_cap", "3")
    fleet.remember()
    return early, fleet.memory


def override_cap(shard: ScriptedShard) -> str:
    audited(shard.client, shard.keys)
    return read_record(shard.client, shard.keys)["static_cap"]


@pytest.mark.parametrize("cap", ["2", ""])
def test_cap_set_while_a_shard_recovers_outlives_memories(shard: ScriptedShard, cap: str) -> None:
    fleet = Fleet(shard)
    fleet.memory, late = two_memories(fleet)
    lose_all(shard)
    fleet.come_back("m")
    shard.administer("override_cap", cap)
    fleet.memory = late
    fleet.come_back("n")
    assert override_cap(shard) == (cap or "4")


def test_second_loss_while_a_shard_recovers_keeps_the_latest_memory(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    fleet.memory, late = two_memories(fleet)
    lose_all(shard)
    fleet.come_back("m")
    memory = shard.ask("m", Sweep())[2]
    if memory is not None:
        fleet.memory = json.dumps(memory)
    lose_all(shard)
    fleet.come_back("m", generation="again")
    fleet.memory = late
    fleet.come_back("n", generation="again")
    assert override_cap(shard) == "3"


def test_operators_call_on_a_restarted_shard_begins_its_rebuild(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    shard.batch("m", Release("m0"))
    shard.client.set(RUN_KEY, "another")
    shard.advance(60.0)  # for which the server was away
    shard.administer("override_cap", "3")
    assert [i for notices in shard.pushed.values() for i in granted(notices)] == []
    assert fleet.come_back() == {"m": "forgotten", "n": "forgotten"}
    assert {"m1", "n0", "n1"} <= set(audited(shard.client, shard.keys)["leases"])
    assert [e["reason"] for e in events(shard, "generation_changed")] == ["restarted"]


@pytest.mark.parametrize(
    ("decide", "expected"),
    [
        (("set_state", "draining"), ("draining", "borrow", "4")),
        (("configure", "", 0, "", 5), ("paused", "", "5")),
    ],
)
def test_what_is_set_while_a_pool_recovers_outlives_memories(
    pool: Pool, decide: tuple[Any, ...], expected: tuple[str, ...]
) -> None:
    fleet = pools.Fleet(pool)
    fleet.open()
    fleet.remember()
    early = fleet.memory
    pool.configure("borrow", max_losses=4, share_rounding="down")
    pool.ask("n", "set_state", "paused")
    fleet.remember()
    late = fleet.memory
    flush(pool)
    fleet.memory = early
    fleet.come_back("m")
    pool.ask("m", *decide)
    fleet.memory = late
    fleet.come_back("n")
    record = pools.books(pool)["record"]
    assert (record["state"], record["policy"], record["max_losses"]) == expected
    assert pool.audit().differences == ()


def test_second_loss_while_a_pool_recovers_keeps_the_latest_memory(pool: Pool) -> None:
    fleet = pools.Fleet(pool)
    fleet.open()
    fleet.remember()
    early = fleet.memory
    pool.ask("n", "set_state", "paused")
    fleet.remember()
    late = fleet.memory
    flush(pool)
    fleet.memory = early
    fleet.come_back("m")
    memory = pool.ask("m", "sweep")[2]
    if memory is not None:
        fleet.memory = json.dumps(memory)
    for _ in range(3):  # the events that a longer recovery has
        pool.ask("m", "claim", "gpu", "tenant", 3)
        pool.ask("m", "claim", "gpu", "tenant", "")
    memory = pool.ask("m", "sweep")[2]
    if memory is not None:
        fleet.memory = json.dumps(memory)
    flush(pool)
    fleet.come_back("m", generation="again")
    fleet.memory = late
    fleet.come_back("n", generation="again")
    assert pools.books(pool)["record"]["state"] == "paused"


def test_restart_after_a_loss_recalls_nothing_that_the_pool_has(pool: Pool) -> None:
    fleet = pools.Fleet(pool)
    fleet.open()
    fleet.remember()
    flush(pool)
    fleet.come_back()
    pool.pass_time(pools.INTERVAL_SECONDS)
    fleet.beat()
    fleet.remember()
    pool.ask("m", "set_state", "paused")  # which the members do not remember yet
    pool.client.set(RUN_KEY, "another")
    fleet.come_back(generation="again")
    assert pools.books(pool)["record"]["state"] == "paused"
