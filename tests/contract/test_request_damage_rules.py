"""Damages of a request shard that counts alone do not tell, or that come while it is rebuilt."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.contract.test_request_rebuild_rules import (
    CAP,
    LISTENING_KEY,
    MEMBERS,
    QUOTAS,
    RUN_KEY,
    Fleet,
    check_whole,
    events,
)
from tests.support_records import read_record
from tests.support_scripts import (
    Acquire,
    Cancel,
    Refused,
    Register,
    Release,
    ScriptedShard,
    Sweep,
    granted,
)
from tests.support_state import audited

INTERVAL_SECONDS = 5.0


def settle(fleet: Fleet) -> None:
    """Let members sweep and come back until the shard is open again."""
    for _ in range(2):
        for member in MEMBERS:
            fleet.shard.try_batch(member, Sweep())
        fleet.come_back()
    fleet.shard.advance(INTERVAL_SECONDS)
    fleet.shard.beat_all(*MEMBERS)
    for member in MEMBERS:
        fleet.shard.batch(member, Sweep())


def lose_deadlines(fleet: Fleet) -> None:
    """Lose the deadlines of all waiters but the first, which has none."""
    shard = fleet.shard
    shard.batch("m", Cancel("m2"))
    shard.batch("n", Cancel("n2"))
    shard.batch("m", Acquire("m2"))
    shard.batch("n", Acquire("n2", wait=3600.0))
    shard.client.delete(shard.keys["deadlines"])


def lose_line(fleet: Fleet) -> None:
    """Lose a line, and let another group make it anew."""
    shard = fleet.shard
    shard.client.delete(shard.keys["line_chat"])
    shard.batch("m", Acquire("other", group="h"))


def lose_groups(fleet: Fleet) -> None:
    """Lose the groups, and let a newcomer of the same name make them anew."""
    shard = fleet.shard
    shard.client.delete(shard.keys["groups"], shard.keys["idle_groups"])
    shard.batch("m", Acquire("other"))


def lose_holds(fleet: Fleet) -> None:
    """Lose when leases are overdue."""
    fleet.shard.client.delete(fleet.shard.keys["holds"])


@pytest.mark.parametrize("lose", [lose_deadlines, lose_line, lose_groups, lose_holds])
def test_sweep_finds_what_no_count_tells(
    shard: ScriptedShard, lose: Callable[[Fleet], None]
) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    lose(fleet)
    settle(fleet)
    shard.batch("m", Cancel("other"))
    check_whole(fleet)
    assert len(events(shard, "shard_damaged")) == 1


def test_release_that_meets_a_waiter_without_its_place_begins_a_rebuild(
    shard: ScriptedShard,
) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    shard.client.delete(shard.keys["fifo"])
    assert not shard.try_batch("m", Release("m0"))  # it ended the lease before it met the damage
    settle(fleet)
    assert set(audited(shard.client, shard.keys)["leases"]) == {"m1", "m2", "n0", "n1"}


@pytest.mark.parametrize("kind", ["members", "checks", "intervals", "suspects", "awaited"])
def test_heartbeat_on_a_damaged_shard_sends_its_member_to_join(
    shard: ScriptedShard, kind: str
) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    if kind == "awaited":
        shard.client.set(RUN_KEY, "another")
        shard.join("m", generation="anew", remembered="born")
    shard.client.delete(shard.keys[kind])
    shard.client.set(shard.keys[kind], "garbage")
    assert shard.heartbeat("n")[1] == 0
    settle(fleet)
    check_whole(fleet)


def test_shard_whose_awaited_members_are_lost_waits_for_an_interval(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    shard.client.set(RUN_KEY, "another")
    fleet.come_back("m")
    shard.client.delete(shard.keys["awaited"])
    assert granted(shard.batch("m", Release("m0")).notices) == []  # "n" may hold more
    fleet.come_back("n")
    shard.advance(INTERVAL_SECONDS)
    shard.beat_all(*MEMBERS)
    assert granted(shard.batch("m").notices) == ["m2"]
    audited(shard.client, shard.keys)


def test_call_that_is_repeated_before_its_member_registers_again_is_not_denied(
    shard: ScriptedShard,
) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    shard.client.delete(*shard.keys.all)
    shard.join("m", generation="anew", remembered="born")
    assert shard.ask("m", Acquire("repeated")) == ["unknown"]
    fleet.generations["m"] = "anew"
    fleet.state("m")
    assert shard.ask("m", Acquire("repeated")) == ["waiting"]


def test_settings_are_back_where_events_outlived_them(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    shard.administer("override_cap", "3")
    fleet.remember()
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    shard.client.delete(shard.keys["meta"])
    settle(fleet)
    audited(shard.client, shard.keys)
    assert read_record(shard.client, shard.keys)["static_cap"] == "3"


def test_member_that_joins_anew_brings_settings_back_to_a_shard_that_was_born_again(
    shard: ScriptedShard,
) -> None:
    fleet = Fleet(shard)
    shard.administer("override_cap", "3")
    fleet.remember()
    shard.client.delete(*shard.keys.all)
    shard.open(CAP, "anew")
    shard.raw_batch("anew", ("recall", fleet.memory))
    shard.batch("anew", Register("alias", CAP, QUOTAS))
    audited(shard.client, shard.keys)
    assert read_record(shard.client, shard.keys)["static_cap"] == "3"


def test_member_that_joins_anew_changes_no_settings_of_a_shard_that_went_on(
    shard: ScriptedShard,
) -> None:
    fleet = Fleet(shard)
    shard.administer("override_cap", "3")
    fleet.remember()
    shard.administer("override_cap", "2")
    shard.raw_batch("m", ("recall", fleet.memory))
    shard.batch("m", Register("alias", CAP, QUOTAS))
    assert read_record(shard.client, shard.keys)["static_cap"] == "2"


def test_override_that_an_operator_sets_is_told_to_members_that_sweep_and_remember_it(
    shard: ScriptedShard,
) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    shard.administer("override_cap", "3")
    assert [["set"] in notices for notices in shard.pushed.values()] == [True, True]
    shard.administer("override_cap", "3")
    assert [["set"] in notices for notices in shard.pushed.values()] == []
    fleet.remember()
    assert json.loads(fleet.memory)["settings"]


def test_operator_s_cap_is_set_on_an_emptied_server_before_any_member_is_back(
    shard: ScriptedShard,
) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    shard.client.delete(*shard.keys.all)
    shard.administer("override_cap", "3")
    fleet.come_back()
    assert set(audited(shard.client, shard.keys)["leases"]) == {"m0", "m1", "n0", "n1"}
    assert read_record(shard.client, shard.keys)["static_cap"] == "3"
    assert [event["reason"] for event in events(shard, "generation_changed")] == ["lost"]


def test_member_whose_kept_reply_cannot_be_read_goes_on(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    shard.client.hset(shard.keys["meta"], "@m", "garbage")
    assert not shard.try_batch("m")
    settle(fleet)
    check_whole(fleet)


def garble_an_entry(fleet: Fleet, kind: str) -> None:
    """Put garbage in the place of one entry of a hash."""
    key = fleet.shard.keys[kind]
    fleet.shard.client.hset(key, min(fleet.shard.client.hkeys(key)), "garbage")


@pytest.mark.parametrize("kind", ["leases", "waiters", "groups"])
def test_sweep_finds_an_entry_that_cannot_be_read(shard: ScriptedShard, kind: str) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    garble_an_entry(fleet, kind)
    settle(fleet)
    state = audited(shard.client, shard.keys)
    assert set(state["leases"]) == {"m0", "m1", "n0", "n1"}
    assert set(state["waiters"]) == {"m2", "n2"}
    assert [event["reason"] for event in events(shard, "shard_damaged")] == [f"damaged: {kind}"]


def test_release_of_a_lease_that_cannot_be_read_frees_its_slot(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    garble_an_entry(fleet, "leases")
    assert not shard.try_batch("m", Release("m0"))
    fleet.come_back()
    assert shard.ask("m", Release("m0")) == ["released"]
    assert [event["reason"] for event in events(shard, "shard_damaged")] == ["damaged: leases"]
    assert set(audited(shard.client, shard.keys)["leases"]) == {"m1", "m2", "n0", "n1"}


def test_error_that_no_damage_explains_is_shown(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    with pytest.raises(Refused, match="BADBATCH"):
        shard.raw_batch("m", ("no such operation",))
    check_whole(fleet)
