"""Design 03, *The window*, of `rule="aimd"`: a pinned case per sentence."""

from __future__ import annotations

import math
from typing import Any

import pytest

from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.settings import RequestAdmissionConfig, RequestAdmissionTuningConfig
from forebay.coordinator.keys import KEEP_UNUSED_SHARD_MS
from tests.support_scripts import (
    CHAT,
    EMBEDDING,
    Acquire,
    Leave,
    Register,
    Release,
    ScriptedShard,
    State,
    granted,
)
from tests.support_state import audited, events, transitions

SUCCESS, LIMITED = Outcome.SUCCESS, Outcome.RATE_LIMITED
MOVES = {
    "request_limit_increased",
    "request_limit_decreased",
    "request_soft_ceiling_recovered",
    "request_fully_recovered",
}


def configured(
    initial: int | None = None, max_cooldown_seconds: float = 300.0, **tuning: Any
) -> RequestAdmissionConfig:
    return RequestAdmissionConfig(
        tuning=RequestAdmissionTuningConfig(rule="aimd", **tuning),
        initial_limits={} if initial is None else {CHAT: initial},
        max_cooldown_seconds=max_cooldown_seconds,
    )


def window(shard: ScriptedShard) -> dict[str, Any]:
    seen: dict[str, Any] = audited(shard.client, shard.keys)["windows"]["chat"]
    return seen


def take(shard: ScriptedShard, *names: str) -> list[Any]:
    """Acquire each; return the terms [acquired_us, limit, cuts, effective_max] of the last."""
    results = shard.batch("m", *(Acquire(name, wait="try") for name in names)).results
    assert {result[0] for result in results} == {"granted"}
    terms: list[Any] = results[-1][2:]
    return terms


def succeed(shard: ScriptedShard, times: int) -> None:
    """Let attempts run one after another, each a success."""
    for _ in range(times):
        shard.batch("m", Acquire("again", wait="try"), Release("again"))
        shard.client.zrem(shard.keys["finished"], "again")


def moves(shard: ScriptedShard) -> list[tuple[str, ...]]:
    """Return how the window moved, in order: the event and its limits."""
    promised, _ = transitions(shard.client, shard.keys)
    return [(kind, *rest[1:3]) for _at, kind, *rest in promised if kind in MOVES]


# -- birth


@pytest.mark.parametrize(("initial", "born"), [(None, 8), (3, 3), (20, 8)])
def test_window_is_born_at_its_initial_limit(
    shard: ScriptedShard, initial: int | None, born: int
) -> None:
    shard.open(8, config=configured(initial))
    assert take(shard, "a")[1:] == [born, 0, 8]


def test_window_is_born_at_its_domains_first_acquire(shard: ScriptedShard) -> None:
    shard.open(8)
    take(shard, "a")
    assert list(audited(shard.client, shard.keys)["windows"]) == ["chat"]


def test_ramp_climbs_from_one_to_the_initial_limit(shard: ScriptedShard) -> None:
    shard.open(9, config=configured(5, startup_ramp_seconds=8.0))
    limits = []
    for i in range(10):
        limits.append(take(shard, f"a{i}")[1])
        shard.batch("m", Release(f"a{i}", Outcome.PROVIDER_FAILURE))
        shard.advance(1.0)
    assert limits == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_ramp_climbs_to_its_target_under_the_present_caps(shard: ScriptedShard) -> None:
    shard.open(4, config=configured(startup_ramp_seconds=8.0))
    take(shard, "a")
    shard.advance(4.0)
    shard.batch("m", Register("alias", 9, configured(startup_ramp_seconds=8.0)))
    assert take(shard, "b")[1] == 5
    shard.advance(4.0)
    assert take(shard, "c")[1] == 9


def test_waiters_of_a_ramp_are_granted_as_it_climbs(shard: ScriptedShard) -> None:
    shard.open(5, config=configured(startup_ramp_seconds=8.0))
    take(shard, "a")
    reply = shard.batch("m", Acquire("b"))
    assert reply.next_wake_us == reply.now_us + 2_000_000
    shard.set_clock(reply.next_wake_us)
    assert shard.ask("m", State("b"))[0] == "granted"


def test_successes_within_a_ramp_count_towards_nothing(shard: ScriptedShard) -> None:
    shard.open(8, config=configured(4, startup_ramp_seconds=8.0, successes_until_increase=2))
    succeed(shard, 3)
    shard.advance(8.0)
    succeed(shard, 1)
    assert (window(shard)["success_streak"], window(shard)["current_limit"]) == (1, 4)


def test_first_429_ends_the_ramp_and_cuts_the_value_of_that_moment(shard: ScriptedShard) -> None:
    shard.open(9, config=configured(startup_ramp_seconds=8.0, cooldown_seconds=0.0))
    take(shard, "a")
    shard.advance(4.0)
    shard.batch("m", Release("a", LIMITED))
    shard.advance(100.0)
    shard.heartbeat("m")
    assert window(shard)["current_limit"] == math.floor(5 * 0.75)


# -- a rate limit


def test_burst_of_429s_cuts_once(shard: ScriptedShard) -> None:
    shard.open(8)
    names = [f"a{i}" for i in range(8)]
    take(shard, *names)
    shard.batch("m", *(Release(name, LIMITED) for name in names))
    seen = window(shard)
    assert (seen["current_limit"], seen["cuts"], seen["consecutive_rate_limits"]) == (6, 1, 8)


def test_burst_cuts_once_though_the_window_moved_in_between(shard: ScriptedShard) -> None:
    shard.open(8)
    take(shard, "a", "b")
    shard.batch("m", Release("a", LIMITED), Register("alias", 3), Release("b", LIMITED))
    assert (window(shard)["current_limit"], window(shard)["cuts"]) == (3, 1)


def test_429_of_a_lease_admitted_since_cuts_again(shard: ScriptedShard) -> None:
    shard.open(8, config=configured(cooldown_seconds=1.0))
    take(shard, "a")
    shard.batch("m", Release("a", LIMITED))
    shard.advance(1.0)
    assert take(shard, "b")[2] == 1
    shard.batch("m", Release("b", LIMITED))
    assert (window(shard)["current_limit"], window(shard)["rate_limit_ceiling"]) == (4, 8)


def test_429_with_window_one_stays_at_one_and_cools_down(shard: ScriptedShard) -> None:
    shard.open(1)
    take(shard, "a")
    shard.batch("m", Release("a", LIMITED))
    assert window(shard)["current_limit"] == 1
    assert window(shard)["blocked_until_us"] == shard.server_us + 2_000_000


def test_cooldown_is_never_shortened(shard: ScriptedShard) -> None:
    shard.open(8)
    take(shard, "a", "b", "c")
    until_us = shard.server_us + 60_000_000
    shard.batch("m", Release("a", LIMITED, 60.0), Release("b", LIMITED, 1.0))
    assert window(shard)["blocked_until_us"] == until_us
    shard.heartbeat("m", 90.0)
    shard.advance(59.0)
    shard.batch("m", Release("c", LIMITED, 5.0))
    assert window(shard)["blocked_until_us"] == until_us + 4_000_000


def test_wild_hint_is_clamped_and_recorded(shard: ScriptedShard) -> None:
    shard.open(8, config=configured(max_cooldown_seconds=30.0))
    take(shard, "a")
    shard.batch("m", Release("a", LIMITED, 1e8))
    assert window(shard)["blocked_until_us"] == shard.server_us + 30_000_000
    said = [fields for _name, fields in events(shard.client, shard.keys)]
    recorded = [fields["taken_us"] for fields in said if fields.get("code") == "cooldown_clamped"]
    assert recorded == ["30000000"]


@pytest.mark.parametrize("hint", [None, 0.0, -3.0, math.nan, math.inf, -math.inf])
def test_unusable_hint_is_the_configured_cooldown(shard: ScriptedShard, hint: float | None) -> None:
    shard.open(8)
    take(shard, "a")
    shard.batch("m", Release("a", LIMITED, hint))
    assert window(shard)["blocked_until_us"] == shard.server_us + 2_000_000


def test_long_retry_after_never_hides_later_growth(shard: ScriptedShard) -> None:
    shard.open(8, config=configured(successes_until_increase=1))
    take(shard, "a")
    shard.batch("m", Release("a", LIMITED, 250.0))
    shard.heartbeat("m", 500.0)
    shard.advance(250.0)
    succeed(shard, 1)
    assert window(shard)["current_limit"] == 7


def test_ceiling_is_the_limit_that_the_lease_was_admitted_under(shard: ScriptedShard) -> None:
    shard.open(8)
    take(shard, "a")
    shard.batch("m", Register("alias", 5), Release("a", LIMITED))
    assert (window(shard)["rate_limit_ceiling"], window(shard)["current_limit"]) == (8, 3)


def test_ceiling_is_noted_by_the_first_cut_alone(shard: ScriptedShard) -> None:
    shard.open(8, config=configured(cooldown_seconds=0.0))
    seen = []
    for name in "abc":
        take(shard, name)
        shard.batch("m", Release(name, LIMITED))
        seen.append((window(shard)["current_limit"], window(shard)["rate_limit_ceiling"]))
    assert seen == [(6, 8), (4, 8), (3, 8)]


def test_what_was_learned_is_kept_for_a_restarted_fleet(shard: ScriptedShard) -> None:
    shard.open(8)
    take(shard, "a")
    shard.batch("m", Release("a", LIMITED), Leave())
    for kind in shard.stored_keys():  # for 7 days, of which this test may take an hour
        kept_ms = shard.client.pttl(shard.keys[kind])
        assert KEEP_UNUSED_SHARD_MS - 3_600_000 < kept_ms <= KEEP_UNUSED_SHARD_MS
    shard.advance(6 * 24 * 3600.0)
    shard.join("n")
    shard.batch("n", Register("alias", 8))
    assert window(shard)["current_limit"] == 6
    assert window(shard)["rate_limit_ceiling"] == 8


# -- a success


def test_window_that_grows_grants_in_the_same_call(shard: ScriptedShard) -> None:
    shard.open(8, config=configured(1, successes_until_increase=1))
    take(shard, "a")
    shard.batch("m", Acquire("b"), Acquire("c"), Acquire("d"))
    assert granted(shard.batch("m", Release("a")).notices) == ["b", "c"]


def test_success_outside_a_cooldown_ends_a_row_of_rate_limits(shard: ScriptedShard) -> None:
    shard.open(8, config=configured(cooldown_seconds=1.0))
    take(shard, "a", "b", "c")
    shard.batch("m", Release("a", LIMITED), Release("b"))
    assert window(shard)["consecutive_rate_limits"] == 1
    shard.advance(1.0)
    take(shard, "d")
    shard.batch("m", Release("c"))
    assert window(shard)["consecutive_rate_limits"] == 0


def test_success_in_a_cooldown_that_empties_the_domain_ends_the_row(shard: ScriptedShard) -> None:
    shard.open(8)
    take(shard, "a", "b")
    shard.batch("m", Release("a", LIMITED), Release("b"))
    assert window(shard)["consecutive_rate_limits"] == 0
    assert window(shard)["success_streak"] == 0


def test_lost_member_that_leaves_the_domain_empty_ends_no_row(shard: ScriptedShard) -> None:
    shard.open(8, "n", "m", config=configured(cooldown_seconds=0.0))
    take(shard, "a", "b")
    shard.batch("m", Release("a", LIMITED), Leave())
    seen = window(shard)
    assert (seen["in_flight"], seen["consecutive_rate_limits"]) == (0, 1)
    assert (seen["current_limit"], seen["last_outcome"]) == (6, "member_lost")


def test_window_grows_by_a_step_after_a_full_streak_and_no_further(shard: ScriptedShard) -> None:
    tuning = {"successes_until_increase": 3, "additive_increase_step": 2}
    shard.open(6, config=configured(3, **tuning))
    seen = []
    for _ in range(12):
        succeed(shard, 1)
        seen.append((window(shard)["success_streak"], window(shard)["current_limit"]))
    streaks, limits = zip(*seen, strict=True)
    assert streaks == (1, 2, 0) * 4
    assert limits == (3, 3, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6)


def test_429_restarts_the_streak(shard: ScriptedShard) -> None:
    shard.open(8, config=configured(3, successes_until_increase=2, cooldown_seconds=0.0))
    take(shard, "a", "b", "c")
    shard.batch("m", Release("a"), Release("b", LIMITED), Release("c"))
    assert (window(shard)["success_streak"], window(shard)["current_limit"]) == (1, 2)


def test_success_in_cooldown_only_gives_its_lease_back(shard: ScriptedShard) -> None:
    shard.open(8, config=configured(4, successes_until_increase=1))
    take(shard, "a", "b", "c")
    shard.batch("m", Release("a", LIMITED))
    before = window(shard)
    assert shard.ask("m", Release("b")) == ["released"]
    assert window(shard) == before | {"in_flight": 1, "last_outcome": "success"}


@pytest.mark.parametrize(
    ("outcome", "left"),
    [(outcome, 1) for outcome in ("local_cancelled", "local_timeout")]
    + [(outcome, 0) for outcome in ("provider_failure", "provider_timeout", "success")]
    + [("unexpected_exception", 0), ("rate_limited", 2)],
)
def test_outcome_that_empties_the_domain_ends_a_row_of_rate_limits(
    shard: ScriptedShard, outcome: str, left: int
) -> None:
    shard.open(8, config=configured(cooldown_seconds=0.0))
    take(shard, "a", "b")
    shard.batch("m", Release("a", LIMITED), Release("b", Outcome(outcome)))
    assert window(shard)["consecutive_rate_limits"] == left


@pytest.mark.parametrize(
    "outcome", ["provider_failure", "provider_timeout", "unexpected_exception", "local_timeout"]
)
def test_failures_move_neither_window_nor_streak(shard: ScriptedShard, outcome: str) -> None:
    shard.open(8, config=configured(4, successes_until_increase=3))
    take(shard, "a", "b", "c")
    shard.batch("m", Release("a"))
    before = window(shard)
    shard.batch("m", Release("b", Outcome(outcome)))
    assert window(shard) == before | {"in_flight": 1, "last_outcome": outcome}


# -- what is said


def test_recovery_is_said_at_the_ceiling_and_at_the_maximum(shard: ScriptedShard) -> None:
    shard.open(6, config=configured(4, successes_until_increase=1, cooldown_seconds=0.0))
    take(shard, "a")
    shard.batch("m", Release("a", LIMITED))
    succeed(shard, 4)
    assert moves(shard) == [
        ("request_limit_decreased", "4", "3"),
        ("request_limit_increased", "3", "4"),
        ("request_soft_ceiling_recovered",),
        ("request_limit_increased", "4", "5"),
        ("request_limit_increased", "5", "6"),
        ("request_fully_recovered",),
    ]
    assert window(shard)["rate_limit_ceiling"] == 0


def test_lowered_cap_is_no_recovery(shard: ScriptedShard) -> None:
    shard.open(8, config=configured(cooldown_seconds=0.0))
    take(shard, "a")
    shard.batch("m", Release("a", LIMITED))
    shard.batch("m", Register("alias", 5, configured(successes_until_increase=1)))
    succeed(shard, 3)
    assert [move[0] for move in moves(shard)] == ["request_limit_decreased"] * 2
    assert window(shard)["rate_limit_ceiling"] == 8


def test_domains_cool_down_on_their_own(shard: ScriptedShard) -> None:
    shard.open(8)
    take(shard, "a")
    shard.batch("m", Acquire("e", EMBEDDING), Release("a", LIMITED))
    windows = audited(shard.client, shard.keys)["windows"]
    assert (windows["embedding"]["blocked_until_us"], windows["embedding"]["cuts"]) == (0, 0)


def test_each_429_is_told_with_the_end_of_the_cooldown(shard: ScriptedShard) -> None:
    shard.open(8)
    take(shard, "a", "b")
    shard.batch("m", Release("a", LIMITED, 9.0), Release("b", LIMITED))
    promised, _ = transitions(shard.client, shard.keys)
    said = [event[1:] for event in promised if event[1] == "request_rate_limited"]
    assert said == [("request_rate_limited", "chat", str(shard.server_us + 9_000_000))] * 2


def test_steps_of_a_ramp_are_told_by_the_call_that_sees_them(shard: ScriptedShard) -> None:
    shard.open(9, config=configured(5, startup_ramp_seconds=8.0))
    take(shard, "a")
    shard.advance(1.0)
    shard.batch("m", Acquire("nothing moved", wait="try"))
    shard.advance(3.0)
    shard.run("requests/snapshot", shard.keys.all, (0,))
    assert moves(shard) == []
    take(shard, "b")
    shard.heartbeat("m")
    shard.advance(10.0)
    take(shard, "c")
    take(shard, "d")
    assert moves(shard) == [
        ("request_limit_increased", "1", "3"),
        ("request_limit_increased", "3", "5"),
    ]


def test_cap_that_moves_a_ramp_is_told_as_such(shard: ScriptedShard) -> None:
    ramp = configured(startup_ramp_seconds=8.0)
    shard.open(9, config=ramp)
    take(shard, "a")
    shard.advance(4.0)
    shard.batch("m", Register("alias", 5, ramp))
    said = [event[2:] for event in transitions(shard.client, shard.keys)[0]]
    assert said[-2:] == [("chat", "1", "5", "ramp"), ("chat", "5", "3", "cap")]
