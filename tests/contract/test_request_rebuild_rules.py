"""A request shard that lost state is rebuilt: of what is left, and of what members state.

Rules: design 06, *Generations*.

Members are played by the test: each joins again where it is refused, and states what it holds.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from forebay.contracts.settings import RequestAdmissionConfig
from forebay.coordinator.keys import REQUEST_KEYS
from tests.support_records import read_record, read_window
from tests.support_scripts import (
    AIMD,
    Acquire,
    Register,
    Release,
    ScriptedShard,
    Sweep,
    granted,
)
from tests.support_state import audited

CAP: Final = 4
MEMBERS: Final = ("m", "n")
LOST: Final = tuple(kind for kind in REQUEST_KEYS if kind != "awaited")
QUOTAS: Final = AIMD.model_copy(update={"max_hold_seconds": 3600.0})
RUN_KEY: Final = "fb:test:run_id"
LISTENING_KEY: Final = "fb:test:listening"


class Fleet:
    """Two members with two leases each, and a waiter each: "m" came first."""

    def __init__(self, shard: ScriptedShard, config: RequestAdmissionConfig = QUOTAS) -> None:
        self.shard = shard
        self.held: dict[str, list[str]] = {"m": ["m0", "m1"], "n": ["n0", "n1"]}
        self.waits = {"m": "m2", "n": "n2"}
        self.asked_at = {"m": shard.server_us, "n": shard.server_us}
        self.generations = dict.fromkeys(MEMBERS, "born")
        self.memory = ""
        self.events_before = 0
        shard.open(CAP, *MEMBERS, config=config)
        shard.batch("n", Register("alias", CAP, config))
        for member in MEMBERS:
            for lease_id in self.held[member]:
                assert shard.ask(member, Acquire(lease_id))[0] == "granted"
        for member in MEMBERS:
            self.asked_at[member] = shard.server_us
            assert shard.ask(member, Acquire(self.waits[member], wait=3600.0)) == ["waiting"]
            shard.advance(0.5)
        self.remember()

    def remember(self) -> None:
        """Let members remember what a sweep tells."""
        self.memory = json.dumps(self.shard.ask("m", Sweep())[2])

    def come_back(self, *members: str, generation: str = "anew") -> dict[str, str]:
        """Let members join again, and state everything; return their statuses."""
        statuses = {}
        for member in members or MEMBERS:
            remembered = self.generations[member]
            reply = self.shard.join(member, generation=generation, remembered=remembered)
            statuses[member], self.generations[member] = reply[3], reply[1]
            if reply[3] == "forgotten":
                self.state(member)
        return statuses

    def state(self, member: str) -> list[list[Any]]:
        """Let a member state what it holds, as production encodes it."""
        age = self.shard.server_us - self.asked_at[member]
        wait = ("wait", self.waits[member], "chat", "g", "1.0", 0, round(3600e6) - age, age)
        calls: list[tuple[Any, ...]] = [("recall", self.memory)]
        calls += [
            ("hold", lease_id, "chat", "g", self.shard.server_us, CAP, 0, CAP, 0)
            for lease_id in self.held[member]
        ]
        return self.shard.raw_batch(
            member, ("register", *_registered()), *calls, wait, ("inventory", "")
        )

    def granted_after_all_end(self) -> list[str]:
        """End every lease that is held; return who is granted then, in order."""
        told = []
        for member in MEMBERS:
            for lease_id in self.held[member]:
                reply = self.shard.batch(
                    member, Release(lease_id, generation=self.generations[member])
                )
                assert reply.results == [["released"]], lease_id
                told += granted(reply.notices)
                told += [i for notices in self.shard.pushed.values() for i in granted(notices)]
        return told


def _registered() -> tuple[Any, ...]:
    from tests.support_scripts import encode

    return tuple(encode(Register("alias", CAP, QUOTAS)))[1:]


def events(shard: ScriptedShard, kind: str) -> list[dict[str, str]]:
    found = []
    for _id, fields in shard.client.xrange(shard.keys["events"]):  # type: ignore[misc]
        event = {key.decode(): value.decode() for key, value in fields.items()}
        if event["kind"] == kind:
            found.append(event)
    return found


def in_flight(shard: ScriptedShard) -> int:
    return int(audited(shard.client, shard.keys)["in_flight"])


def check_whole(fleet: Fleet) -> None:
    """All that was held is held, nothing more, in the order in which it was asked for."""
    shard = fleet.shard
    state = audited(shard.client, shard.keys)  # which runs the audit
    assert set(state["leases"]) == {"m0", "m1", "n0", "n1"}
    assert set(state["waiters"]) == {"m2", "n2"}
    assert fleet.granted_after_all_end() == ["m2", "n2"]


def test_restarted_server_lets_every_member_state_before_it_grants(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    shard.client.set(RUN_KEY, "another")
    fleet.come_back("m")
    reply = shard.batch("m", Release("m0"))
    assert granted(reply.notices) == []  # "n" may hold more than the shard knows
    assert fleet.come_back("n") == {"n": "forgotten"}
    assert granted(shard.pushed["m"]) == ["m2"]
    assert [e["reason"] for e in events(shard, "generation_changed")] == ["restarted"]


def test_member_that_never_comes_holds_up_a_restart_for_an_interval(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    shard.client.set(RUN_KEY, "another")
    fleet.come_back("m")
    reply = shard.batch("m", Release("m0"))
    assert reply.next_wake_us == reply.now_us + 5_000_000
    shard.advance(5.0)
    shard.heartbeat("m")
    assert granted(shard.batch("m").notices) == ["m2"]


def test_emptied_server_adopts_what_its_members_hold(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    shard.client.delete(*shard.keys.all)
    assert fleet.come_back() == {"m": "forgotten", "n": "forgotten"}
    assert shard.ask("m", Acquire("late", wait="try"))[:2] == ["denied", "queued_waiters_ahead"]
    shard.advance(5.0)
    shard.beat_all(*MEMBERS)
    check_whole(fleet)
    assert len(events(shard, "lease_adopted")) == len("mmnn")


def test_first_member_that_is_new_waits_where_others_listen(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, "new", *MEMBERS)
    shard.client.delete(*shard.keys.all)
    shard.join("new", generation="anew")
    shard.batch("new", Register("alias", CAP, QUOTAS))
    assert shard.ask("new", Acquire("x", wait="try"))[:2] == ["denied", "no_capacity"]
    fleet.come_back()
    assert in_flight(shard) == CAP


def test_first_member_that_is_new_is_served_at_once_where_nobody_listens(
    shard: ScriptedShard,
) -> None:
    Fleet(shard)
    shard.client.delete(*shard.keys.all)
    shard.client.sadd(LISTENING_KEY, "new")
    shard.open(CAP, "new")
    assert shard.ask("new", Acquire("x"))[0] == "granted"


def test_fleet_that_starts_on_a_new_server_is_served_once_all_that_listen_have_joined(
    shard: ScriptedShard,
) -> None:
    shard.client.delete(*shard.keys.all)
    shard.client.sadd(LISTENING_KEY, "first", "second")
    shard.join("first", generation="anew")
    shard.batch("first", Register("alias", CAP, QUOTAS))
    assert shard.ask("first", Acquire("x", wait="try"))[:2] == ["denied", "no_capacity"]
    shard.join("second", generation="later")
    assert shard.ask("first", Acquire("y", wait="try"))[0] == "granted"


def test_newcomers_open_no_shard_that_another_member_remembers(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, "new", "m")
    shard.client.delete(*shard.keys.all)
    shard.client.set(RUN_KEY, "another")  # so that not all that remember it may listen yet
    fleet.come_back("m")
    shard.join("new", generation="later")
    assert shard.ask("m", Acquire("x", wait="try"))[0] == "denied"
    fleet.come_back("n")
    assert in_flight(shard) == CAP


def test_expired_member_is_told_so_while_the_generation_lasts(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    shard.advance(13.0)
    shard.heartbeat("m")
    shard.advance(2.0)
    assert not shard.try_batch("n")
    assert fleet.come_back("n") == {"n": "expired"}
    assert set(audited(shard.client, shard.keys)["leases"]) == {"m0", "m1", "m2"}


def test_generation_that_no_reply_can_hold_is_a_damage(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    shard.client.hset(shard.keys["meta"], mapping={"generation": 'a"b', "reason": 'c"\\d'})
    assert fleet.come_back() == {"m": "forgotten", "n": "forgotten"}
    check_whole(fleet)
    assert [event["reason"] for event in events(shard, "shard_damaged")] == ["damaged: meta"]


def test_reason_that_no_reply_can_hold_keeps_no_member_out(shard: ScriptedShard) -> None:
    Fleet(shard)
    shard.client.hset(shard.keys["meta"], "reason", 'c"\\d')
    assert shard.join("new", generation="later")[3:5] == ["joined", "cd"]


def test_lease_that_ended_is_not_adopted(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    shard.batch("m", Release("m0"))
    shard.client.set(RUN_KEY, "another")
    fleet.held["m"] = []
    fleet.come_back()
    assert shard.raw_batch("m", ("hold", "m0", "chat", "g", 1, CAP, 0, CAP, 0)) == [["stale_lease"]]


def test_window_keeps_the_lower_of_both_memories(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    shard.administer("override_cap", "3")
    fleet.remember()
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    shard.client.delete(*shard.keys.all)
    fleet.come_back()
    shard.advance(5.0)
    shard.beat_all(*MEMBERS)
    shard.batch("m")
    audited(shard.client, shard.keys)
    assert read_record(shard.client, shard.keys)["static_cap"] == "3"
    assert read_window(shard.client, shard.keys)["current_limit"] == "3"


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("damage", ["deleted", "of another type"])
def test_no_key_whose_loss_a_shard_does_not_survive(
    shard: ScriptedShard, kind: str, damage: str
) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    was_there = shard.client.delete(shard.keys[kind])
    if damage == "of another type":
        shard.client.set(shard.keys[kind], "garbage")
    elif not was_there:
        return  # nothing is lost
    for _ in range(2):  # a call meets the damage; the joins rebuild; a call opens the shard
        for member in MEMBERS:
            shard.try_batch(member, Sweep())
        fleet.come_back()
        shard.advance(0.1)
    shard.advance(5.0)
    shard.beat_all(*MEMBERS)
    for member in MEMBERS:
        shard.batch(member, Sweep())
    check_whole(fleet)
    if kind != "meta":
        assert len(events(shard, "shard_damaged")) <= 1


def test_member_that_has_not_joined_again_is_woken_and_refused(shard: ScriptedShard) -> None:
    fleet = Fleet(shard)
    shard.client.sadd(LISTENING_KEY, *MEMBERS)
    shard.client.set(RUN_KEY, "another")
    reply = shard.join("m", generation="anew", remembered=fleet.generations["m"])
    assert reply[3] == "forgotten"
    assert "n" in shard.pushed
    fleet.generations["m"] = "anew"
    fleet.state("m")
    assert not shard.try_batch("n", Release("n0"))
    assert shard.heartbeat("n")[1] == 0
    assert fleet.come_back("n") == {"n": "forgotten"}
    assert shard.heartbeat("n")[1] == len(MEMBERS)
    check_whole(fleet)


def test_leave_of_an_earlier_membership_grants_nothing_while_others_are_awaited(
    shard: ScriptedShard,
) -> None:
    fleet = Fleet(shard)
    shard.client.set(RUN_KEY, "another")
    shard.join("later", generation="anew")
    assert shard.raw_batch("n", ("leave",)) == [["left"]]
    assert shard.pushed == {}
    assert fleet.come_back("m") == {"m": "forgotten"}
    shard.advance(5.0)
    shard.beat_all("m", "later")
    assert granted(shard.batch("m").notices) == ["m2"]
