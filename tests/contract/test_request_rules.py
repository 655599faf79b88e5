"""A pinned case per rule.

Rules: design 03, *One shard per provider/model*; design 03, *Eligible*.
"""

from __future__ import annotations

from typing import Any

import pytest

from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.settings import RequestAdmissionConfig, RequestAdmissionTuningConfig
from tests.support_records import read_settings, write_setting
from tests.support_scripts import (
    CHAT,
    EMBEDDING,
    Acquire,
    Cancel,
    Leave,
    Register,
    Release,
    ScriptedShard,
    State,
    granted,
)
from tests.support_state import audited, read_keys, transitions

LIMITED = Outcome.RATE_LIMITED


def state(shard: ScriptedShard) -> dict[str, Any]:
    return audited(shard.client, shard.keys)


def acquire(shard: ScriptedShard, *ops: Acquire, member: str = "m") -> list[str]:
    """Ask for each; return how each was answered."""
    return [result[0] for result in shard.batch(member, *ops).results]


# -- registering


def test_unregistered_is_denied_at_once_and_leaves_no_state(shard: ScriptedShard) -> None:
    shard.join("m")
    shard.batch("m")
    before = read_keys(shard.client, shard.keys)
    keys = shard.stored_keys()
    for wait in (None, "try", 0, 5.0):
        assert shard.ask("m", Acquire("a", wait=wait)) == ["denied", "hard_policy_denial", 0, 0]
    assert read_keys(shard.client, shard.keys) == before
    assert shard.stored_keys() == keys


def test_static_cap_is_the_smallest_alias_cap_of_live_members(shard: ScriptedShard) -> None:
    shard.open(8, "m", "n")
    assert shard.ask("n", Register("alias", 5)) == ["registered", 5]
    assert shard.ask("m", Register("other", 6)) == ["registered", 5]
    shard.heartbeat("m", 60.0)
    shard.advance(20.0)
    shard.batch("m")
    assert state(shard)["static_cap"] == 6


def test_registering_again_replaces_the_members_own_cap(shard: ScriptedShard) -> None:
    shard.open(3)
    assert shard.ask("m", Register("alias", 9)) == ["registered", 9]


def test_lowered_cap_takes_nothing_back(shard: ScriptedShard) -> None:
    shard.open(4)
    acquire(shard, *(Acquire(f"a{i}") for i in range(4)))
    shard.batch("m", Register("alias", 2))
    assert len(state(shard)["leases"]) == 4
    assert state(shard)["windows"]["chat"]["current_limit"] == 2
    assert acquire(shard, Acquire("b")) == ["waiting"]
    assert [granted(shard.batch("m", Release(f"a{i}")).notices) for i in range(3)] == [
        [],
        [],
        ["b"],
    ]


def test_moved_static_cap_is_told_and_one_that_stays_is_not(shard: ScriptedShard) -> None:
    shard.open(8)
    for cap in (8, 5, 5, 9):
        shard.batch("m", Register("alias", cap))
    shard.batch("m", Register("other", 20))
    said = [event[1:] for event in transitions(shard.client, shard.keys)[0]]
    caps = [("0", "8"), ("8", "5"), ("5", "9")]
    kind = "request_effective_cap_changed"
    assert [event for event in said if event[0] == kind] == [(kind, *moved) for moved in caps]


def test_raised_cap_lifts_an_uncut_window_at_once(shard: ScriptedShard) -> None:
    shard.open(1)
    acquire(shard, *(Acquire(f"a{i}") for i in range(3)))
    assert granted(shard.batch("m", Register("alias", 2)).notices) == ["a1"]
    assert state(shard)["windows"]["chat"]["current_limit"] == 2


def test_raised_cap_leaves_a_cut_window_to_recover(shard: ScriptedShard) -> None:
    shard.open(4)
    acquire(shard, Acquire("a"))
    shard.batch("m", Release("a", LIMITED), Register("alias", 3), Register("alias", 9))
    assert state(shard)["windows"]["chat"]["current_limit"] == 3


def test_override_caps_and_registering_never_touches_it(shard: ScriptedShard) -> None:
    shard.join("m")
    write_setting(shard.client, shard.keys, "override_cap", 3)
    assert shard.ask("m", Register("alias", 8)) == ["registered", 3]
    assert shard.ask("m", Register("alias", 2)) == ["registered", 2]
    assert read_settings(shard.client, shard.keys)["override_cap"] == "3"


def test_override_alone_registers_nothing(shard: ScriptedShard) -> None:
    write_setting(shard.client, shard.keys, "override_cap", 3)
    shard.open(8, "m", "n")
    shard.batch("m", Leave())
    assert shard.ask("n", Acquire("a")) == ["denied", "hard_policy_denial", 0, 0]


def test_waiters_are_denied_when_the_last_registration_leaves(shard: ScriptedShard) -> None:
    shard.open(1, "m", "n")
    acquire(shard, Acquire("a"))
    acquire(shard, Acquire("b"), member="n")
    shard.batch("m", Leave())
    assert shard.pushed == {"n": [["denied", "b", "hard_policy_denial", 0, 0]]}


def test_waiters_are_denied_when_the_last_registration_expires(shard: ScriptedShard) -> None:
    shard.open(1, "m", "n")
    acquire(shard, Acquire("a"))
    acquire(shard, Acquire("b"), member="n")
    shard.heartbeat("n", 60.0)
    shard.advance(15.0)
    assert shard.batch("n").notices == [["denied", "b", "hard_policy_denial", 0, 0]]


# -- eligible


def test_domains_share_the_static_cap_and_have_windows_of_their_own(shard: ScriptedShard) -> None:
    shard.open(3, config=RequestAdmissionConfig(max_limit_clamps={CHAT: 2}))
    wanted = [Acquire(f"c{i}", wait="try") for i in range(3)]
    wanted += [Acquire(f"e{i}", EMBEDDING, wait="try") for i in range(2)]
    answers = acquire(shard, *wanted)
    assert answers == ["granted", "granted", "denied", "granted", "denied"]
    assert state(shard)["in_flight"] == 3


def test_domain_is_open_at_exactly_blocked_until(shard: ScriptedShard) -> None:
    shard.open(4)
    acquire(shard, Acquire("a"))
    shard.batch("m", Release("a", LIMITED, 5.0))
    until_us = shard.server_us + 5_000_000
    shard.set_clock(until_us - 1)
    assert shard.ask("m", Acquire("b", wait="try")) == ["denied", "cooldown", until_us, 1]
    shard.set_clock(until_us)
    assert acquire(shard, Acquire("c", wait="try")) == ["granted"]


def test_clamp_bounds_one_domain_and_never_the_aggregate(shard: ScriptedShard) -> None:
    shard.open(2, config=RequestAdmissionConfig(max_limit_clamps={CHAT: 50, EMBEDDING: 1}))
    acquire(shard, Acquire("c"), Acquire("e", EMBEDDING))
    windows = state(shard)["windows"]
    assert (windows["chat"]["effective_max"], windows["embedding"]["effective_max"]) == (2, 1)


@pytest.mark.parametrize(
    ("cap", "clamp", "expected"), [(4, 9, 4), (9, 4, 4), (1, 9, 1), (9, 1, 1), (1, 1, 1)]
)
def test_effective_max_is_the_smaller_of_cap_and_clamp_and_never_below_one(
    shard: ScriptedShard, cap: int, clamp: int, expected: int
) -> None:
    aimd = RequestAdmissionTuningConfig(rule="aimd")
    shard.open(cap, config=RequestAdmissionConfig(tuning=aimd, max_limit_clamps={CHAT: clamp}))
    shard.batch("m", Acquire("a"), Release("a", LIMITED))
    seen = state(shard)["windows"]["chat"]
    assert seen["effective_max"] == expected
    assert seen["current_limit"] == max(1, int(expected * 0.75))


def test_moved_clamp_moves_its_window_at_once(shard: ScriptedShard) -> None:
    shard.open(8)
    acquire(shard, *(Acquire(f"a{i}") for i in range(6)))
    limits = []
    for clamp in (3, 5):
        config = RequestAdmissionConfig(max_limit_clamps={CHAT: clamp})
        shard.batch("m", Register("alias", 8, config))
        limits.append(state(shard)["windows"]["chat"]["current_limit"])
    assert (limits, state(shard)["static_cap"]) == ([3, 5], 8)


# -- waiting


def test_timeout_zero_takes_what_is_free(shard: ScriptedShard) -> None:
    shard.open(1)
    assert acquire(shard, Acquire("a", wait=0)) == ["granted"]
    assert shard.ask("m", Acquire("b", wait=0)) == ["denied", "queue_timeout", 0, 0]


def test_waiter_is_gone_at_its_deadline(shard: ScriptedShard) -> None:
    shard.open(1)
    acquire(shard, Acquire("a"), Acquire("b", wait=5.0))
    shard.set_clock(shard.server_us + 4_999_999)
    assert shard.batch("m").notices == []
    shard.set_clock(shard.server_us + 1)
    assert shard.batch("m", State("b")).notices == [["denied", "b", "queue_timeout", 0, 0]]
    assert state(shard)["waiters"] == {}


def test_grant_wins_over_a_deadline_of_the_same_instant(shard: ScriptedShard) -> None:
    shard.open(1)
    acquire(shard, Acquire("a"))
    shard.batch("m", Release("a", LIMITED, 5.0), Acquire("b", wait=5.0))
    shard.advance(5.0)
    assert granted(shard.batch("m").notices) == ["b"]


def test_cancel_takes_back_a_waiter_or_a_lease(shard: ScriptedShard) -> None:
    shard.open(1)
    acquire(shard, Acquire("a"), Acquire("b"), Acquire("c"))
    assert shard.ask("m", Cancel("b")) == ["cancelled"]
    reply = shard.batch("m", Cancel("a"))
    assert (reply.results, granted(reply.notices)) == ([["released"]], ["c"])
    assert state(shard)["windows"]["chat"]["last_outcome"] == "local_cancelled"


def test_lease_held_too_long_ends_as_if_its_member_were_lost(shard: ScriptedShard) -> None:
    shard.open(1, "m", "n", config=RequestAdmissionConfig(max_hold_seconds=4.0))
    acquire(shard, Acquire("a"))
    acquire(shard, Acquire("b"), member="n")
    shard.advance(4.0)
    assert granted(shard.batch("n").notices) == ["b"]
    assert shard.pushed == {"m": [["lost", "a", "max_hold"]]}
    assert shard.ask("m", Release("a")) == ["stale_lease"]


def test_hold_that_was_too_long_is_told_with_its_holder(shard: ScriptedShard) -> None:
    shard.open(1, "m", "n", config=RequestAdmissionConfig(max_hold_seconds=4.0))
    acquire(shard, Acquire("a"))
    shard.advance(4.0)
    shard.batch("n")
    said = [event[1:] for event in transitions(shard.client, shard.keys)[0]]
    assert said[-1] == ("request_lease_expired", "a", "m", "max_hold")


@pytest.mark.parametrize(
    ("waits", "expected"),
    [
        ((None, None), 60.0),  # the cooldown is over
        ((None, 7.0), 7.0),  # a deadline
        ((None, 99.0), 60.0),
    ],
)
def test_reply_names_the_next_instant_at_which_time_alone_may_help(
    shard: ScriptedShard, waits: tuple[float | None, ...], expected: float
) -> None:
    shard.open(4)
    shard.heartbeat("m", 600.0)
    acquire(shard, Acquire("a"))
    shard.batch("m", Release("a", LIMITED, 60.0))
    reply = shard.batch("m", *(Acquire(f"w{i}", wait=wait) for i, wait in enumerate(waits)))
    assert reply.next_wake_us == reply.now_us + round(expected * 1e6)


def test_reply_names_when_a_silent_member_is_looked_at(shard: ScriptedShard) -> None:
    shard.open(1, "n", "m")
    shard.heartbeat("n", 60.0)
    acquire(shard, Acquire("a"))
    reply = shard.batch("n", Acquire("b"))
    born_us = reply.now_us
    for looks in (1, 2, 3):  # each third of its TTL, and at its end
        assert reply.next_wake_us == born_us + looks * 5_000_000
        shard.set_clock(reply.next_wake_us)
        reply = shard.batch("n")
    assert reply.notices == [["granted", "b", born_us + 15_000_000, 1, 0, 1]]


def test_reply_names_no_instant_while_nobody_waits(shard: ScriptedShard) -> None:
    shard.open(1)
    assert shard.batch("m", Acquire("a")).next_wake_us == 0


def test_denial_in_a_cooldown_says_when_asking_again_may_help(shard: ScriptedShard) -> None:
    shard.open(4)
    shard.heartbeat("m", 99.0)
    acquire(shard, Acquire("a"))
    shard.batch("m", Release("a", LIMITED, 60.0), Acquire("w", wait=20.0))
    until_us = shard.server_us + 60_000_000
    shard.advance(10.0)
    left = [until_us, 50_000_000]
    assert shard.ask("m", Acquire("b", wait="try")) == ["denied", "cooldown", *left]
    assert shard.ask("m", Acquire("c", wait=0)) == ["denied", "queue_timeout", *left]
    shard.advance(10.0)
    assert shard.batch("m").notices == [["denied", "w", "queue_timeout", until_us, 40_000_000]]
