"""Design 06, *Members*; design 06, *Exactly once*; design 06, *Clock*: a pinned case per rule."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from tests.support_scripts import (
    EMBEDDING,
    Acquire,
    Leave,
    Refused,
    Register,
    Release,
    ScriptedShard,
    granted,
)
from tests.support_state import audited

TTL = 15.0


def state(shard: ScriptedShard) -> dict[str, Any]:
    return audited(shard.client, shard.keys)


# -- members


def test_expired_members_waiters_vanish_and_their_slots_are_granted_in_the_same_script(
    shard: ScriptedShard,
) -> None:
    shard.open(2, "n", "m", "o")
    shard.batch("m", Acquire("a"), Acquire("b"), Acquire("c"))
    shard.batch("n", Acquire("d"))
    shard.batch("o", Acquire("e"))
    shard.beat_all("n", "o", ttl_seconds=60.0)
    shard.advance(TTL)
    assert granted(shard.batch("n").notices) == ["d"]
    assert granted(shard.pushed["o"]) == ["e"]
    assert set(shard.pushed) == {"o"}
    assert (set(state(shard)["leases"]), state(shard)["waiters"]) == ({"d", "e"}, {})


def test_expired_members_leases_are_stale(shard: ScriptedShard) -> None:
    shard.open(2, "m", "n")
    shard.batch("n", Acquire("a"))
    shard.heartbeat("m", 60.0)
    shard.advance(TTL)
    shard.join("n2")
    assert shard.ask("n2", Release("a")) == ["stale_lease"]


def test_expired_member_is_told_so_and_never_revived(shard: ScriptedShard) -> None:
    shard.open(2)
    shard.batch("m", Acquire("a"))
    shard.advance(TTL)
    assert shard.heartbeat("m")[1:] == [0]
    with pytest.raises(Refused, match="NOMEMBER"):
        shard.batch("m", Acquire("b"))
    assert state(shard)["leases"] == {}


def test_returning_member_asks_again_under_the_same_id(shard: ScriptedShard) -> None:
    shard.open(1, "n", "m")
    shard.batch("n", Acquire("a"))
    shard.batch("m", Acquire("b"))
    shard.heartbeat("n", 60.0)
    shard.advance(TTL)
    shard.batch("n")
    shard.join("m2")
    shard.batch("m2", Acquire("b"))
    assert granted(shard.batch("n", Release("a")).notices) == []
    assert granted(shard.pushed["m2"]) == ["b"]
    assert shard.batch("m2", Release("b"), Release("b")).results == [["released"], ["duplicate"]]


def test_expired_lease_stays_stale_though_its_id_was_refused_anew(shard: ScriptedShard) -> None:
    shard.open(1, "n", "m")
    shard.batch("m", Acquire("a"))
    shard.heartbeat("n", 60.0)
    shard.advance(TTL)
    shard.batch("n", Acquire("other"))
    shard.join("m2")
    assert shard.ask("m2", Acquire("a", wait="try"))[0] == "denied"
    assert shard.ask("m2", Release("a")) == ["stale_lease"]


def test_leaving_frees_at_once(shard: ScriptedShard) -> None:
    shard.open(1, "n", "m")
    shard.batch("m", Acquire("a"), Acquire("b"))
    shard.batch("n", Acquire("c"))
    assert shard.ask("m", Leave()) == ["left"]
    assert granted(shard.pushed["n"]) == ["c"]
    assert (list(state(shard)["leases"]), list(state(shard)["members"])) == (["c"], ["n"])


def test_operations_after_leaving_take_nothing(shard: ScriptedShard) -> None:
    shard.open(2, "n", "m")
    shard.batch("m", Leave(), Acquire("a"), Acquire("b", EMBEDDING), Register("alias", 1))
    assert state(shard)["leases"] == {}
    assert state(shard)["static_cap"] == 2


def test_big_members_end_is_bounded_and_goes_on(shard: ScriptedShard) -> None:
    shard.open(400, "n", "m")
    for i in range(5):
        shard.batch("m", *(Acquire(f"a{i}-{j}") for j in range(50)))
    shard.heartbeat("n", 60.0)
    shard.advance(TTL)
    shard.batch("n")
    assert len(state(shard)["leases"]) == 50
    shard.batch("n")
    assert state(shard)["leases"] == {}


def test_dead_member_is_granted_nothing_while_its_end_goes_on(shard: ScriptedShard) -> None:
    shard.open(250, "n", "m")
    for i in range(5):
        shard.batch("m", *(Acquire(f"a{i}-{j}") for j in range(50)))
    shard.batch("m", Acquire("waits"))
    shard.heartbeat("n", 60.0)
    shard.advance(TTL)
    reply = shard.batch("n")
    assert shard.pushed == {}
    assert reply.next_wake_us == reply.now_us
    shard.batch("n")
    assert (state(shard)["leases"], state(shard)["waiters"]) == ({}, {})


def test_many_waiters_of_a_vanished_resource_are_denied_without_delay(
    shard: ScriptedShard,
) -> None:
    shard.open(1, "m", "n")
    shard.batch("n", *(Acquire(f"a{i}") for i in range(150)))
    shard.heartbeat("n", 60.0)
    shard.advance(TTL)
    told: list[str] = []
    for _ in range(3):
        reply = shard.batch("n")
        told += [notice[1] for notice in reply.notices]
        assert reply.next_wake_us <= reply.now_us
    assert len(told) == 149
    assert state(shard)["waiters"] == {}


def test_many_deadlines_of_one_instant_are_met_without_delay(shard: ScriptedShard) -> None:
    shard.open(1)
    shard.batch("m", *(Acquire(f"a{i}", wait=1.0) for i in range(150)))
    shard.advance(1.0)
    told: list[str] = []
    for _ in range(3):
        reply = shard.batch("m")
        told += [notice[1] for notice in reply.notices]
        assert reply.next_wake_us <= reply.now_us
    assert len(told) == 149


def test_leaving_member_is_granted_nothing_while_its_end_goes_on(shard: ScriptedShard) -> None:
    shard.open(250, "n", "m")
    for i in range(5):
        shard.batch("m", *(Acquire(f"a{i}-{j}") for j in range(50)))
    shard.batch("m", Acquire("waits"))
    assert (shard.ask("m", Leave()), shard.pushed) == (["leaving"], {})
    assert "waits" not in state(shard)["leases"]
    assert shard.ask("m", Leave()) == ["left"]
    assert (state(shard)["leases"], state(shard)["waiters"]) == ({}, {})


def test_heartbeat_tells_how_many_members_there_are(shard: ScriptedShard) -> None:
    shard.open(1, "m", "n", "o")
    assert [shard.heartbeat(member)[1] for member in "mno"] == [3, 3, 3]


def test_heartbeat_renews_and_nothing_else(shard: ScriptedShard) -> None:
    shard.open(1, "m", "n")
    shard.batch("n", Acquire("a"))
    shard.batch("m", Acquire("b"))
    before = state(shard)
    shard.advance(TTL - 1)
    shard.heartbeat("m")
    shard.advance(1)
    shard.heartbeat("m")
    now_us = shard.server_us
    renewed = {"members": now_us + 15_000_000, "checks": now_us + 5_000_000}
    after = {kind: before[kind] | {"m": at} for kind, at in renewed.items()}
    assert state(shard) == before | after


# -- exactly once


def test_repeat_of_a_batch_happens_once(shard: ScriptedShard) -> None:
    shard.open(2)
    first = shard.call("m", 2, Acquire("a"))
    again = shard.call("m", 2, Acquire("a"))
    assert again.raw == first.raw
    assert shard.call("m", 3, Release("a", Outcome.RATE_LIMITED)).results == [["released"]]
    after = state(shard)
    assert shard.call("m", 3, Release("a", Outcome.RATE_LIMITED)).results == [["released"]]
    assert state(shard) == after


def test_late_old_batch_is_refused(shard: ScriptedShard) -> None:
    shard.open(2)
    shard.call("m", 2, Acquire("a"))
    shard.call("m", 3, Release("a"))
    before = state(shard)
    with pytest.raises(Refused, match="OLDBATCH"):
        shard.call("m", 2, Acquire("a"))
    assert state(shard) == before


def test_each_operation_of_a_batch_keeps_its_own_error(shard: ScriptedShard) -> None:
    shard.open(2)
    shard.batch("m", Acquire("a"), Release("a"))
    reply = shard.batch("m", Acquire("a"), Acquire("b"), Release("never"))
    assert [result[0] for result in reply.results] == ["error", "granted", "unknown_lease"]


def test_wake_ups_go_to_exactly_those_who_were_given_something(shard: ScriptedShard) -> None:
    shard.open(1, "m", "n", "o")
    shard.batch("m", Acquire("a"))
    shard.batch("n", Acquire("b"))
    shard.batch("o", Acquire("c"))
    assert shard.batch("m", Release("a")).notices == []
    assert {member: granted(told) for member, told in shard.pushed.items()} == {"n": ["b"]}


# -- the clock


def test_servers_clock_stepping_back_costs_nothing(shard: ScriptedShard) -> None:
    shard.open(1)
    now_us = shard.batch("m", Acquire("a"), Acquire("b", wait=5.0)).now_us
    shard.advance(-3600.0)
    assert shard.batch("m").now_us == now_us
    shard.advance(4.0)
    assert shard.batch("m").now_us == now_us + 4_000_000
    shard.advance(1.0)
    assert shard.batch("m").notices == [["denied", "b", "queue_timeout", 0, 0]]
