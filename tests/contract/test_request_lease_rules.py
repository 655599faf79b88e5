"""Leases end once, ids are used once (design 01, *Invariants* 3; design 02, *Requests*)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support_records import write_record
from tests.support_scripts import (
    Acquire,
    Cancel,
    Leave,
    Register,
    Release,
    ScriptedShard,
    State,
    granted,
)
from tests.support_state import audited, events


def state(shard: ScriptedShard) -> dict[str, Any]:
    return audited(shard.client, shard.keys)


def test_second_release_frees_no_second_slot(shard: ScriptedShard) -> None:
    shard.open(1)
    shard.batch("m", Acquire("a"), Acquire("b"), Acquire("c"))
    reply = shard.batch("m", Release("a"), Release("a"))
    assert reply.results == [["released"], ["duplicate"]]
    assert granted(reply.notices) == ["b"]
    assert state(shard)["in_flight"] == 1


def test_lease_that_is_made_and_ended_in_one_batch_is_gone(shard: ScriptedShard) -> None:
    shard.open(2)
    reply = shard.batch("m", Acquire("a"), Release("a"), Acquire("a"), State("a"), Release("a"))
    found = [result[:2] for result in reply.results]
    used = ["error", "ATTEMPT_ID_USED"]
    assert found == [["granted", "a"], ["released"], used, ["unknown"], ["duplicate"]]
    assert state(shard)["leases"] == {}


def test_lease_that_expires_and_is_asked_for_again_in_one_call_is_held(
    shard: ScriptedShard,
) -> None:
    shard.open(2, "m", "n")
    shard.batch("n", Acquire("a"))
    shard.heartbeat("m", 60.0)
    shard.advance(15.0)
    reply = shard.batch("m", Acquire("a"), Release("a"))
    assert [result[0] for result in reply.results] == ["granted", "released"]
    assert state(shard)["leases"] == {}
    assert shard.ask("m", Release("a")) == ["duplicate"]


def test_member_that_leaves_in_the_batch_that_took_a_lease_holds_none(
    shard: ScriptedShard,
) -> None:
    shard.open(2, "m", "n")
    shard.batch("m", Acquire("a"), Acquire("b"), Release("a"), Leave())
    assert state(shard)["leases"] == {}


def test_foreign_release_is_stale(shard: ScriptedShard) -> None:
    shard.open(1, "m", "n")
    shard.batch("m", Acquire("a"))
    assert shard.ask("n", Release("a")) == ["stale_lease"]
    assert list(state(shard)["leases"]) == ["a"]


def test_foreign_cancel_takes_nothing(shard: ScriptedShard) -> None:
    shard.open(1, "m", "n")
    shard.batch("m", Acquire("a"), Acquire("b"))
    shard.batch("n", Cancel("a"), Cancel("b"))
    assert (list(state(shard)["leases"]), list(state(shard)["waiters"])) == (["a"], ["b"])


@pytest.mark.parametrize(
    ("generation", "reason"), [("born", "unknown_lease"), ("older", "wrong_generation")]
)
def test_release_of_an_id_that_nobody_knows(
    shard: ScriptedShard, generation: str, reason: str
) -> None:
    shard.open(1)
    assert shard.ask("m", Release("never", generation=generation)) == [reason]


def test_asking_twice_under_one_id_holds_one_lease(shard: ScriptedShard) -> None:
    shard.open(2)
    first = shard.ask("m", Acquire("a"))
    assert shard.ask("m", Acquire("a")) == first
    assert state(shard)["in_flight"] == 1


def test_an_attempt_id_is_used_once(shard: ScriptedShard) -> None:
    shard.open(1, "m", "n")
    shard.batch("m", Acquire("a"), Acquire("b"), Acquire("c"), Release("a"))
    for name in ("a", "b", "c"):
        assert shard.ask("n", Acquire(name)) == ["error", "ATTEMPT_ID_USED", name]


def test_a_grant_told_again_keeps_its_terms(shard: ScriptedShard) -> None:
    shard.open(4)
    first = shard.ask("m", Acquire("a"))
    shard.batch("m", Register("alias", 2))
    assert shard.ask("m", State("a")) == first


def test_memory_of_finished_ids_is_bounded(shard: ScriptedShard) -> None:
    shard.open(1)
    shard.client.zadd(shard.keys["finished"], {f"old{i}": 2 * i for i in range(1, 8193)})
    write_record(shard.client, shard.keys, {"finished": 8192})
    for i in range(64):
        shard.batch("m", Acquire(f"a{i}"), Release(f"a{i}"))
    assert shard.client.zcard(shard.keys["finished"]) == 8192
    assert shard.ask("m", Release("a0")) == ["duplicate"]
    assert shard.ask("m", Release("old1")) == ["unknown_lease"]


def test_release_that_ends_nothing_is_told(shard: ScriptedShard) -> None:
    shard.open(2, "m", "n")
    shard.batch("m", Acquire("a"), Release("a"), Acquire("b"))
    shard.batch("m", Release("a"), Release("never"), Release("never", generation="older"))
    shard.batch("n", Release("b"))
    said = [fields for _name, fields in events(shard.client, shard.keys)]
    told = [
        (fields["lease_id"], fields["code"], fields["member_id"], fields["outcome"])
        for fields in said
        if fields["kind"] == "request_release_diagnostic"
    ]
    assert told == [
        ("a", "duplicate", "m", "success"),
        ("never", "unknown_lease", "m", "success"),
        ("never", "wrong_generation", "m", "success"),
        ("b", "stale_lease", "n", "success"),
    ]


def test_taking_back_an_acquire_that_was_denied_is_no_fault(shard: ScriptedShard) -> None:
    shard.open(1)
    shard.batch("m", Acquire("a"), Acquire("b", wait="try"), Cancel("b"))
    kinds = [fields["kind"] for _name, fields in events(shard.client, shard.keys)]
    assert "request_release_diagnostic" not in kinds
