"""An operator changes caps, windows and cooldowns of a provider/model by its scripts.

Rules: design 03, *One shard per provider/model*;
design 03, *The window*; design 07, *Command line*.
"""

from __future__ import annotations

from typing import Any

import pytest

from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.settings import RequestAdmissionConfig, RequestAdmissionTuningConfig
from tests.support_scripts import (
    CHAT,
    EMBEDDING,
    Acquire,
    Leave,
    Refused,
    Register,
    Release,
    ScriptedShard,
    granted,
)
from tests.support_state import audited, read_keys, transitions

LIMITED = Outcome.RATE_LIMITED


def configured(initial: int | None = None, **tuning: Any) -> RequestAdmissionConfig:
    return RequestAdmissionConfig(
        tuning=RequestAdmissionTuningConfig(rule="aimd", **tuning),
        initial_limits={} if initial is None else {CHAT: initial},
    )


def window(shard: ScriptedShard) -> dict[str, Any]:
    seen: dict[str, Any] = audited(shard.client, shard.keys)["windows"]["chat"]
    return seen


def told(shard: ScriptedShard) -> list[tuple[str, ...]]:
    """Return kind and fields of the events so far, without their time."""
    return [event[1:] for event in transitions(shard.client, shard.keys)[0]]


def cut_to_three(shard: ScriptedShard) -> None:
    """Open a window at 4 and cut it; two leases from before stay out."""
    shard.open(8, config=configured(4, successes_until_increase=2))
    shard.batch("m", Acquire("a"), Acquire("old"), Acquire("older"), Release("a", LIMITED))


# -- a window


def test_reset_window_is_born_anew_under_the_present_settings(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    shard.batch("m", Register("alias", 8, configured(6)))
    assert shard.administer("reset_window", "chat")[2] == 6
    seen = window(shard)
    assert (seen["current_limit"], seen["effective_max"], seen["rate_limit_ceiling"]) == (6, 8, 0)
    assert (seen["success_streak"], seen["consecutive_rate_limits"]) == (0, 0)
    assert seen["in_flight"] == 2


def test_reset_window_leaves_the_cooldown(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    until_us = window(shard)["blocked_until_us"]
    shard.administer("reset_window", "chat")
    assert window(shard)["blocked_until_us"] == until_us > shard.server_us


def test_429_of_a_lease_from_before_the_reset_cools_down_and_cuts_nothing(
    shard: ScriptedShard,
) -> None:
    shard.open(8, config=configured(4))
    shard.batch("m", Acquire("old"))
    shard.administer("reset_window", "chat")
    shard.batch("m", Release("old", LIMITED, 9.0))
    seen = window(shard)
    assert (seen["current_limit"], seen["rate_limit_ceiling"]) == (4, 0)
    assert seen["blocked_until_us"] == shard.server_us + 9_000_000


def test_429_of_a_lease_since_the_reset_cuts_the_new_window(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    shard.administer("reset_cooldown", "chat")
    shard.administer("reset_window", "chat")
    shard.batch("m", Acquire("new"), Release("new", LIMITED), Release("old", LIMITED))
    assert (window(shard)["current_limit"], window(shard)["rate_limit_ceiling"]) == (3, 4)


def test_reset_window_ramps_again_and_only_a_cut_ends_the_ramp(shard: ScriptedShard) -> None:
    shard.open(9, config=configured(startup_ramp_seconds=8.0, cooldown_seconds=0.0))
    shard.batch("m", Acquire("first"))
    shard.advance(8.0)
    shard.batch("m", Acquire("old"))
    assert shard.administer("reset_window", "chat")[2] == 1
    shard.heartbeat("m", 60.0)
    shard.advance(4.0)
    shard.batch("m", Release("first"), Release("old", LIMITED))
    shard.advance(2.0)
    assert shard.ask("m", Acquire("new"))[3] == 7
    shard.batch("m", Release("new", LIMITED))
    shard.advance(2.0)
    assert shard.ask("m", Acquire("newer"))[3] == 5


def test_reset_window_grants_what_became_possible(shard: ScriptedShard) -> None:
    shard.open(4, "m", "n", config=configured(2))
    shard.batch("m", Acquire("a"), Release("a", LIMITED, 1.0))
    shard.advance(1.0)
    shard.batch("n", *map(Acquire, "bcd"))
    assert len(audited(shard.client, shard.keys)["waiters"]) == 2
    shard.administer("reset_window", "chat")
    assert granted(shard.pushed["n"]) == ["c"]


def test_reset_of_a_smaller_window_takes_no_lease_back(shard: ScriptedShard) -> None:
    shard.open(4)
    shard.batch("m", *map(Acquire, "abcd"), Register("alias", 4, configured(1)))
    assert shard.administer("reset_window", "chat")[2] == 1
    assert (window(shard)["current_limit"], window(shard)["in_flight"]) == (1, 4)


def test_reset_of_a_window_that_nobody_used_makes_none(shard: ScriptedShard) -> None:
    shard.open(4)
    assert shard.administer("reset_window", "image")[2] == 0
    assert "domain_image" not in shard.stored_keys()
    assert [event for event in told(shard) if "reset" in event[0]] == []


def test_reset_while_nobody_is_registered_keeps_the_last_known_caps(shard: ScriptedShard) -> None:
    shard.open(8, "m", "n")
    shard.batch("m", Acquire("a"), Release("a", LIMITED), Leave())
    assert shard.administer("reset_window", "chat")[2] == 8
    assert shard.ask("n", Register("alias", 5)) == ["registered", 5]
    assert (window(shard)["current_limit"], window(shard)["effective_max"]) == (5, 5)


def test_reset_window_is_told(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    shard.administer("reset_window", "chat")
    shard.administer("reset_window", "chat")
    assert told(shard)[-3:] == [
        ("request_window_reset", "chat", "3", "4"),
        ("request_limit_increased", "chat", "3", "4", "reset"),
        ("request_window_reset", "chat", "4", "4"),
    ]


# -- a cooldown


def test_reset_cooldown_opens_now_and_grants_its_waiters(shard: ScriptedShard) -> None:
    shard.open(2, "m", "n")
    shard.batch("m", Acquire("a"), Release("a", LIMITED, 60.0))
    shard.batch("n", *map(Acquire, "bcd"))
    shard.advance(1.5)
    assert shard.administer("reset_cooldown", "chat")[2] == 58_500_000
    assert granted(shard.pushed["n"]) == ["b"]
    assert ("request_cooldown_reset", "chat", "58500000") in told(shard)
    seen = window(shard)
    assert (seen["blocked_until_us"], seen["current_limit"]) == (shard.server_us, 1)
    assert seen["consecutive_rate_limits"] == 1


def test_reset_cooldown_twice_is_as_once(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    shard.administer("reset_cooldown", "chat")
    before, said = read_keys(shard.client, shard.keys), told(shard)
    shard.advance(1.0)
    assert shard.administer("reset_cooldown", "chat")[2] == 0
    after = read_keys(shard.client, shard.keys)
    assert (after | {"meta": {}}, told(shard)) == (before | {"meta": {}}, said)


def test_cooldown_of_another_domain_goes_on(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    assert shard.administer("reset_cooldown", "embedding")[2] == 0
    assert window(shard)["blocked_until_us"] > shard.server_us


def test_429_after_a_reset_cools_down_again(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    shard.administer("reset_cooldown", "chat")
    shard.batch("m", Release("old", LIMITED, 7.0))
    assert window(shard)["blocked_until_us"] == shard.server_us + 7_000_000


# -- the override


def test_lowered_override_lowers_the_windows_at_once_and_takes_no_lease_back(
    shard: ScriptedShard,
) -> None:
    shard.open(8)
    shard.batch("m", *map(Acquire, "abcd"), Acquire("e", EMBEDDING))
    assert shard.administer("override_cap", "3")[2] == 3
    state = audited(shard.client, shard.keys)
    assert [state["windows"][d]["current_limit"] for d in ("chat", "embedding")] == [3, 3]
    assert (state["static_cap"], state["in_flight"]) == (3, 5)
    assert ("request_effective_cap_changed", "8", "3") in told(shard)
    assert ("request_limit_decreased", "chat", "8", "3", "cap") in told(shard)


def test_raised_override_lifts_an_uncut_window_at_once_and_grants(shard: ScriptedShard) -> None:
    shard.open(8)
    shard.administer("override_cap", "1")
    shard.batch("m", *map(Acquire, "abcd"))
    assert shard.administer("override_cap", "3")[2] == 3
    assert granted(shard.pushed["m"]) == ["b", "c"]
    assert shard.administer("override_cap", "")[2] == 8
    assert window(shard)["current_limit"] == 8


def test_raised_override_leaves_a_cut_window_to_recover(shard: ScriptedShard) -> None:
    shard.open(8)
    shard.administer("override_cap", "4")
    shard.batch("m", Acquire("a"), Release("a", LIMITED))
    shard.administer("override_cap", "0")
    assert (window(shard)["current_limit"], window(shard)["effective_max"]) == (3, 8)


def test_override_above_the_alias_caps_is_told_and_moves_no_cap(shard: ScriptedShard) -> None:
    shard.open(4)
    before = told(shard)
    assert shard.administer("override_cap", "9")[2] == 4
    assert told(shard) == [*before, ("request_override_cap_changed", "0", "9")]
    assert shard.ask("m", Register("alias", 20)) == ["registered", 9]


def test_override_before_anybody_registers_counts_as_soon_as_one_does(
    shard: ScriptedShard,
) -> None:
    shard.join("m")
    assert shard.administer("override_cap", "2")[2] == 0
    assert shard.ask("m", Register("alias", 8)) == ["registered", 2]
    assert shard.endless_keys() == set()


# -- all of them


OPERATIONS = [
    ("reset_window", "chat"),
    ("reset_cooldown", "chat"),
    ("override_cap", "2"),
    ("settle", ""),
]


@pytest.mark.parametrize(("operation", "subject"), OPERATIONS)
def test_operation_on_a_shard_that_nobody_used_is_refused_and_makes_no_key(
    shard: ScriptedShard, operation: str, subject: str
) -> None:
    with pytest.raises(Refused) as refusal:
        shard.administer(operation, subject)
    assert (refusal.value.code, shard.stored_keys()) == ("NOSHARD", set())


@pytest.mark.parametrize(("operation", "subject"), OPERATIONS)
def test_operation_first_does_what_time_did(
    shard: ScriptedShard, operation: str, subject: str
) -> None:
    shard.open(1, "m", "n")
    shard.batch("m", Acquire("a"))
    shard.batch("n", Register("alias", 1), Acquire("b"))
    shard.heartbeat("n", 60.0)
    shard.advance(15.0)
    shard.administer(operation, subject)
    assert granted(shard.pushed["n"]) == ["b"]
    assert list(audited(shard.client, shard.keys)["leases"]) == ["b"]


@pytest.mark.parametrize(
    "wrong",
    [
        ("steal", ""),
        ("reset_window", "video"),
        ("reset_cooldown", ""),
        ("override_cap", "-1"),
        ("override_cap", "1e9"),
        ("override_cap", "many"),
        ("override_cap", "12345678901"),
        ("settle", "chat"),
    ],
)
def test_wrong_word_changes_nothing(shard: ScriptedShard, wrong: tuple[str, str]) -> None:
    cut_to_three(shard)
    before = read_keys(shard.client, shard.keys)
    shard.advance(99.0)
    with pytest.raises(Refused, match="BADCALL"):
        shard.administer(*wrong)
    assert read_keys(shard.client, shard.keys) == before


def test_operator_of_another_schema_changes_nothing(shard: ScriptedShard) -> None:
    cut_to_three(shard)
    before = read_keys(shard.client, shard.keys)
    with pytest.raises(Refused, match="SCHEMA"):
        shard.administer("reset_window", "chat", schema="0")
    assert read_keys(shard.client, shard.keys) == before


def test_operation_that_grants_more_than_a_call_may_says_that_it_goes_on(
    shard: ScriptedShard,
) -> None:
    shard.open(150)
    shard.administer("override_cap", "1")
    names = [f"w{i:03}" for i in range(150)]
    shard.batch("m", *map(Acquire, names))
    counts = []
    now_us, wake_us, _ = shard.administer("override_cap", "")
    while 0 < wake_us <= now_us:
        counts.append(len(granted(shard.pushed["m"])))
        now_us, wake_us, _ = shard.administer("settle")
    assert counts == [64, 64]
    assert len(audited(shard.client, shard.keys)["leases"]) == 150
