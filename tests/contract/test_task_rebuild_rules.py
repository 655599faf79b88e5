"""A pool that lost state is rebuilt: of what is left, and of what members state.

Rules: design 04; design 06.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

import pytest
from redis.exceptions import ResponseError

from forebay.coordinator.keys import POOL_KEYS
from tests.contract.pool_that_loses_state import (
    INTERVAL_SECONDS,
    LISTENING_KEY,
    MEMBERS,
    RUN_KEY,
    Fleet,
    books,
    cells_of,
    lease_named,
)
from tests.contract.pool_under_clock import GPU, Pool, honest_pool, task_of
from tests.contract.shard_under_clock import CLOCK_KEY, SERVERS

OF_RUNS: Final = {"tasks", "queue", "fifo", "cells", "progress", "row_groups", "checkpoints"}
NOT_AS_BEFORE: Final = {
    "delayed": {"delayed"},  # by the millisecond
    "held": {"fifo", "unserved", "groups", "record"},  # what nobody serves stands in line at first
    "runs": OF_RUNS | {"claims", "limits", "groups", "record", "leases", "held", "ledger"},
    "cells": OF_RUNS | {"groups", "record", "leases", "held", "ledger"},
}
"""What a loss changes: a run without its plan is over, one without cells begins anew."""
JOBS: Final = {"suspect0", "suspect1", "suspect2", "a0", "a1", "a2", "a3", "b0", "b1", "b2"}


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    yield from honest_pool(request)


@pytest.fixture
def fleet(pool: Pool) -> Fleet:
    fleet = Fleet(pool)
    fleet.open()
    pool.configure("borrow", max_losses=4, share_rounding="down")
    fleet.fill()
    fleet.listen()
    return fleet


def events(pool: Pool, kind: str) -> list[dict[str, str]]:
    return [event for event in pool.events() if event["kind"] == kind]


def flush(pool: Pool) -> None:
    """Lose all keys but those of the tests' clock and listeners."""
    kept = {name: pool.client.get(name) for name in (CLOCK_KEY, RUN_KEY)}
    pool.client.flushall()
    pool.client.mset({name: value for name, value in kept.items() if value is not None})
    pool.client.sadd(LISTENING_KEY, *MEMBERS)


@pytest.mark.parametrize("pool", ["server"], indirect=True)
@pytest.mark.parametrize("kind", [kind for kind in POOL_KEYS if kind != "awaited"])
@pytest.mark.parametrize("damage", ["deleted", "of another type"])
def test_no_key_whose_loss_a_pool_does_not_survive(fleet: Fleet, kind: str, damage: str) -> None:
    pool = fleet.pool
    before = books(pool)
    was_there = pool.client.delete(pool.keys[kind])
    if damage == "of another type":
        pool.client.set(pool.keys[kind], "garbage")
    elif not was_there:
        return  # nothing is lost
    fleet.recover()

    assert pool.audit().differences == ()
    after = books(pool)
    for name in before.keys() - NOT_AS_BEFORE.get(kind, set()):
        assert after[name] == before[name], name
    assert before["delayed"].keys() == after["delayed"].keys()
    reason = "lost" if kind == "meta" else f"damaged: {kind}"
    assert [event["reason"] for event in events(pool, "generation_changed")] == [reason]
    assert len(events(pool, "shard_damaged")) == (kind != "meta")
    assert fleet.lost == {}
    ran = fleet.run_all()
    assert len(ran) == len(set(ran))
    assert set(ran) >= JOBS


@pytest.mark.parametrize("pool", ["server"], indirect=True)
@pytest.mark.parametrize("kind", ["leases", "tasks", "groups"])
def test_entry_of_a_pool_that_cannot_be_read_is_found_and_named(fleet: Fleet, kind: str) -> None:
    pool = fleet.pool
    before = books(pool)
    (lease_id,) = (one for one in fleet.held["m"] if one.startswith("a0~"))
    garbled = {"leases": lease_id, "tasks": "a0", "groups": "a"}[kind]
    pool.client.hset(pool.keys[kind], garbled, "garbage")
    assert not all(fleet.try_sweep("m") for _ in range(100))  # each looks at eight entries
    fleet.recover()
    assert [event["reason"] for event in events(pool, "shard_damaged")] == [f"damaged: {kind}"]
    assert books(pool) == before


def test_call_of_a_member_that_has_not_joined_again_spoils_nothing(fleet: Fleet) -> None:
    pool = fleet.pool
    before = books(pool)
    pool.client.delete(pool.keys["ready"])
    assert not fleet.try_sweep("m")
    fleet.generations["m"] = pool.join_again("m", "born", generation="anew")[1]
    assert not fleet.try_sweep("n")  # the first call of the new generation
    fleet.state("m")
    fleet.recover()
    assert books(pool) == before


def test_restarted_server_lets_every_member_state_before_it_grants(fleet: Fleet) -> None:
    pool = fleet.pool
    pool.client.set(RUN_KEY, "another")
    fleet.come_back("m")
    assert fleet.admit("m", 9) == []
    assert pool.next_wake_us == int(pool.client.get(CLOCK_KEY)) + INTERVAL_SECONDS * 1e6
    assert fleet.come_back("n") == {"n": "forgotten"}
    assert fleet.admit("m", 9) != []


def test_member_that_never_comes_holds_up_a_restart_for_an_interval(fleet: Fleet) -> None:
    pool = fleet.pool
    pool.client.set(RUN_KEY, "another")
    fleet.come_back("m")
    pool.pass_time(INTERVAL_SECONDS)
    pool.beat("m")
    assert fleet.admit("m", 9) != []


def test_emptied_server_adopts_what_its_members_run(fleet: Fleet) -> None:
    pool = fleet.pool
    before = books(pool)
    held = {lease_id for leases in fleet.held.values() for lease_id in leases}
    jobs = {lease_id for lease_id in held if not lease_id.startswith("run:")}
    flush(pool)
    fleet.recover()

    after = books(pool)
    assert set(after["leases"]) == jobs  # a run is lost with its plan
    for name in ("config", "functions"):
        assert after[name] == before[name]
    claims = {name for name in before["claims"] if b"run" not in name}
    assert set(after["claims"]) == claims
    for name in ("state", "policy", "max_losses"):
        assert after["record"][name] == before["record"][name]
    assert len(events(pool, "lease_adopted")) == len(jobs)
    for lease_id in jobs:
        assert pool.arq(task_of(lease_id)) == {"job", "in-progress", "queue"}
    assert set(fleet.run_all()) == {task_of(lease_id) for lease_id in jobs}


def test_adopted_job_has_its_terms_when_it_comes_back(fleet: Fleet) -> None:
    pool = fleet.pool
    (lease_id,) = [lease_id for lease_id in fleet.held["m"] if lease_id.startswith("a0~")]
    before = books(pool)["tasks"]["a0"]
    flush(pool)
    fleet.recover()
    del fleet.held["m"][lease_id]
    pool.ask("m", "retry", lease_id, 0, 0)
    after = books(pool)["tasks"]["a0"]
    score, tries = 2, 3
    assert after[tries] == "1"
    before[score], before[tries] = after[score], "1"
    assert after == before
    assert pool.client.hget(pool.keys["groups"], "a").split(b"|")[0] == b"2"


def test_settings_are_those_of_the_latest_memory(fleet: Fleet) -> None:
    pool = fleet.pool
    early = fleet.memory
    pool.ask("n", "claim", "gpu", "tenant", "")
    pool.ask("n", "claim", "gpu", "pool", 7)
    pool.ask("n", "set_state", "paused")
    fleet.remember()
    late = fleet.memory
    flush(pool)
    fleet.memory = late
    fleet.come_back("m")
    fleet.memory = early
    fleet.come_back("n")
    assert books(pool)["limits"]["gpu"] == "7"
    assert books(pool)["record"]["state"] == "paused"


def test_claim_set_since_the_loss_is_not_undone_by_a_later_memory(fleet: Fleet) -> None:
    pool = fleet.pool
    fleet.remember()
    flush(pool)
    fleet.come_back("m")
    pool.ask("m", "claim", "gpu", "pool", 9)
    pool.ask("m", "claim", "gpu", "tenant", "")
    pool.ask("m", "claim", "disk", "pool", 3)
    fleet.memory = json.dumps(json.loads(fleet.memory) | {"sequence": "1000000"})
    fleet.come_back("n")
    assert books(pool)["limits"].items() >= {"gpu": "9", "disk": "3"}.items()
    assert books(pool)["limits"]["request:p/m"] == "4"  # of which nobody said anything since


def test_settings_of_a_pool_that_change_are_told_to_members_that_remember_them(
    fleet: Fleet,
) -> None:
    pool = fleet.pool
    pool.listen("n")
    for operation in (
        ("claim", "gpu", "pool", 7),
        ("set_state", "paused"),
        ("configure", "", 5, "full", 2),
    ):
        pool.ask("m", *operation)
        assert ["set"] in pool.told()["n"], operation
        pool.ask("m", *operation)
        assert ["set"] not in pool.told().get("n", []), operation


def test_lease_of_a_job_that_ended_is_not_adopted(fleet: Fleet) -> None:
    pool = fleet.pool
    lost = dict(fleet.held["m"])
    for lease_id in list(lost):
        pool.finish(lease_id, *cells_of(lease_id), by="m")  # its reply is lost
    pool.client.set(RUN_KEY, "another")
    fleet.recover()
    assert fleet.held["m"] == {}
    assert {task_of(lease_id) for lease_id in lost} & books(pool)["tasks"].keys() == set()


def test_lease_of_a_job_that_another_member_runs_is_not_adopted(fleet: Fleet) -> None:
    pool = fleet.pool
    lease_id, lease = next(iter(fleet.held["n"].items()))
    pool.client.set(RUN_KEY, "another")
    other = f"{task_of(lease_id)}~1"
    fleet.held["m"][other] = lease_named(lease, other)
    fleet.recover()
    assert other not in fleet.held["m"]
    assert lease_id in fleet.held["n"]


def test_pushed_task_that_a_member_never_heard_of_goes_back(pool: Pool) -> None:
    fleet = Fleet(pool)
    fleet.open()
    pool.ask_for(1, "n", seen=0)
    fleet.submit("pushed", "g", "g")
    assert books(pool)["leases"].keys() == {"pushed~1"}
    fleet.listen()
    pool.client.delete(pool.keys["pushes"])
    pool.client.set(RUN_KEY, "another")
    fleet.recover()
    assert books(pool)["leases"] == {}
    assert [task_of(lease_id) for lease_id in fleet.admit("n", 1)] == ["pushed"]
    assert fleet.pool.ask_for(1, "n").leases == []


def test_jobs_whose_payload_is_gone_are_told_and_not_waited_for(fleet: Fleet) -> None:
    pool = fleet.pool
    pool.client.delete("arq:job:a2", "arq:job:latest", pool.keys["ready"])
    fleet.recover()
    assert fleet.lost == {"a2": "f", "latest": "f"}
    for task_id in fleet.lost:
        assert pool.ask("m", "expire", task_id, b"told", 5000) == ["discarded"]
        assert pool.ask("n", "expire", task_id, b"told again", 5000) == ["unknown"]
        assert pool.arq(task_id) == {"result"}
    assert [e["task_id"] for e in events(pool, "non_retryable_dropped")] == ["a2", "latest"]
    assert pool.ask("m", "sweep")[3] in ([], {})
    assert JOBS - {"a2"} <= set(fleet.run_all())


def test_tasks_without_terms_come_back_where_their_group_tells_what_they_ask(pool: Pool) -> None:
    fleet = Fleet(pool)
    fleet.open()
    fleet.listen()
    pool.submit_many("g", 3, GPU)
    pool.submit("later", "h", delay_us=60_000_000)
    pool.client.delete(pool.keys["tasks"])
    fleet.recover()
    assert fleet.lost == {"later": ""}  # nothing says what it asks for
    assert [task_of(lease_id) for lease_id in fleet.admit("m", 3)] == ["g0", "g1"]
    assert books(pool)["ledger"] == {"gpu": "2", "submission": "2"}


def test_end_of_a_lease_that_went_with_its_key_is_not_told_as_unknown(fleet: Fleet) -> None:
    pool = fleet.pool
    lease_id = next(iter(fleet.held["m"]))
    pool.client.delete(pool.keys["leases"])
    with pytest.raises(ResponseError, match="NOMEMBER"):
        pool.finish(lease_id, by="m")
    pool.batches["m"] -= 1
    fleet.recover()
    assert fleet.finish("m", lease_id, *cells_of(lease_id)) == "released"
