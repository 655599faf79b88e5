"""The rule `steady` (docs/window.md): a pinned case per sentence, on the tests' clock."""

from __future__ import annotations

from collections import Counter
from itertools import count, pairwise
from typing import Any, Final

import pytest

from forebay.contracts.outcomes import RateLimitScope
from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.settings import RequestAdmissionConfig, RequestAdmissionTuningConfig
from tests.support_records import read_window, write_record
from tests.support_scripts import (
    AIMD,
    CHAT,
    Acquire,
    Leave,
    Register,
    Release,
    ScriptedShard,
    granted,
)
from tests.support_state import audited, events

SUCCESS, LIMITED, FAILED = Outcome.SUCCESS, Outcome.RATE_LIMITED, Outcome.PROVIDER_FAILURE
SECOND_US: Final = 1_000_000
MOVES: Final = ("request_limit_increased", "request_limit_decreased")
RECOVERIES: Final = ("request_soft_ceiling_recovered", "request_fully_recovered")


def configured(initial: int | None = None, **tuning: Any) -> RequestAdmissionConfig:
    return RequestAdmissionConfig(
        tuning=RequestAdmissionTuningConfig(**tuning),
        initial_limits={} if initial is None else {CHAT: initial},
    )


def stored(shard: ScriptedShard) -> dict[str, int]:
    """Return the numbers of the window of chat; one that is absent is 0."""
    audited(shard.client, shard.keys)
    found = read_window(shard.client, shard.keys)
    return Counter(
        {name: int(value or 0) for name, value in found.items() if name != "last_outcome"}
    )


class Crowd:
    """Callers of one window, more than it takes: whoever leaves is followed by one who waits."""

    def __init__(self, shard: ScriptedShard) -> None:
        self.shard = shard
        self.held: list[str] = []
        self._names = (f"a{number}" for number in count())
        self.come()

    @property
    def limit(self) -> int:
        return stored(self.shard)["current_limit"]

    def come(self, callers: int = 100) -> None:
        names = [next(self._names) for _ in range(callers)]
        while names:
            some, names = names[:50], names[50:]
            results = self.shard.batch("m", *(Acquire(name) for name in some)).results
            self.held += [
                name for name, result in zip(some, results, strict=True) if result[0] == "granted"
            ]

    def end(
        self,
        outcome: Outcome,
        times: int = 1,
        *,
        hint: float | None = None,
        newest: bool = False,
        scope: RateLimitScope | None = None,
    ) -> list[str]:
        """End leases one after another, the oldest first or the newest; return who was granted."""
        came: list[str] = []
        for _ in range(times):
            lease = self.held.pop(-1 if newest else 0)
            if stored(self.shard)["waiters"] < 8:
                self.come()
            reply = self.shard.batch("m", Release(lease, outcome, hint, scope=scope))
            came += granted(reply.notices)
            self.held += granted(reply.notices)
        return came

    def serve(self, times: int) -> list[str]:
        return self.end(SUCCESS, times)

    def refuse_newest(self, **how: Any) -> list[str]:
        """Refuse a lease that was granted since the last refusal, all others being served still."""
        self.end(FAILED)
        return self.end(LIMITED, newest=True, **how)


def crowd_at(
    shard: ScriptedShard, limit: int, cap: int = 64, *, ceiling: int | None = None, **tuning: Any
) -> Crowd:
    """Return a crowd before a full window that stands at a limit, its ceiling where it says."""
    config = configured(limit, **tuning)
    shard.open(cap, config=config)
    shard.heartbeat("m", 3600.0)
    crowd = Crowd(shard)
    noted = {"rate_limit_ceiling": limit if ceiling is None else ceiling, "step": 0}
    write_record(shard.client, shard.keys, noted, "window_chat")
    return crowd


def told(shard: ScriptedShard, *kinds: str) -> list[tuple[str, ...]]:
    """Return the events of these kinds: from, to and reason of moves, else the kind alone."""
    return [
        (fields["from"], fields["to"], fields["reason"]) if "reason" in fields else (kind,)
        for _name, fields in events(shard.client, shard.keys)
        if (kind := fields["kind"]) in kinds
    ]


# -- birth


@pytest.mark.parametrize(("cap", "initial", "born"), [(64, None, 4), (3, None, 3), (64, 24, 24)])
def test_window_is_born_at_four_unless_its_initial_limit_is_given(
    shard: ScriptedShard, cap: int, initial: int | None, born: int
) -> None:
    shard.open(cap, config=configured(initial))
    assert shard.ask("m", Acquire("a"))[3:] == [born, 0, cap]
    assert stored(shard)["rate_limit_ceiling"] == 0


def test_new_window_doubles_each_calls_time(shard: ScriptedShard) -> None:
    shard.open(64, config=configured())
    crowd = Crowd(shard)
    limits = [crowd.limit]
    for _ in range(4):
        crowd.serve(limits[-1])
        limits.append(crowd.limit)
    assert limits == [4, 8, 16, 32, 64]
    crowd.serve(300)
    assert (crowd.limit, stored(shard)["success_streak"]) == (64, 0)


def test_refusal_of_a_new_windows_climb_ends_it_however_much_was_served(
    shard: ScriptedShard,
) -> None:
    shard.open(64, config=configured())
    crowd = Crowd(shard)
    crowd.serve(4 + 8 + 16 + 8)
    assert crowd.limit == 40
    crowd.end(LIMITED, newest=True)
    crowd.serve(39 + 60)
    seen = stored(shard)
    assert (seen["current_limit"], seen["rate_limit_ceiling"], seen["step"]) == (39, 39, 0)


def test_outage_before_anything_was_learned_ends_in_a_new_climb(shard: ScriptedShard) -> None:
    shard.open(64, config=configured())
    crowd = Crowd(shard)
    crowd.serve(4)
    crowd.end(LIMITED, times=8)
    shard.advance(2.0)
    crowd.held = granted(shard.batch("m", Acquire("probe", wait="try")).notices)
    crowd.serve(1 + 2 + 4)
    assert crowd.limit == 8


def test_new_window_at_its_maximum_takes_a_lone_refusal_for_noise(shard: ScriptedShard) -> None:
    shard.open(8, config=configured())
    crowd = Crowd(shard)
    crowd.serve(4 + 24)
    assert (crowd.limit, stored(shard)["step"]) == (8, 0)
    crowd.end(LIMITED)
    crowd.serve(8)
    assert (crowd.limit, stored(shard)["rate_limit_ceiling"]) == (8, 0)


def test_ramp_climbs_to_four_and_its_first_refusal_ends_it_like_a_try(
    shard: ScriptedShard,
) -> None:
    shard.open(64, config=configured(startup_ramp_seconds=3.0))
    crowd = Crowd(shard)
    limits = [crowd.limit]
    for _ in range(3):
        shard.advance(1.0)
        crowd.end(FAILED)
        limits.append(crowd.limit)
    assert limits == [1, 2, 3, 4]
    shard.administer("reset_window", "chat")
    shard.advance(2.0)
    crowd.end(FAILED, times=4)
    crowd.end(LIMITED, newest=True)
    seen = stored(shard)
    assert (seen["current_limit"], seen["top"], seen["ramp_us"]) == (2, 2, 0)


# -- 1, 2: refused


def test_refusal_lowers_the_window_to_what_is_in_flight_and_grants_nobody(
    shard: ScriptedShard,
) -> None:
    crowd = crowd_at(shard, 24)
    assert crowd.end(LIMITED) == []
    assert crowd.limit == len(crowd.held) == 23
    assert stored(shard)["blocked_until_us"] == 0


def test_burst_of_one_instant_is_one_refusal(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    assert crowd.end(LIMITED, times=8) == []
    seen = stored(shard)
    assert (seen["current_limit"], seen["cuts"], seen["row"]) == (16, 1, 1)


def test_fall_doubles_while_nothing_is_served_and_is_at_most_a_half(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 40, 64)
    limits = [40]
    while limits[-1] > 1:
        crowd.refuse_newest()
        limits.append(crowd.limit)
        crowd.end(FAILED, times=len(crowd.held) - limits[-1] + (limits[-1] > 1))
    falls = [before - after for before, after in pairwise(limits)]
    assert falls[:5] == [1, 1, 2, 4, 8]
    assert limits == [40, 39, 38, 36, 32, 24, 12, 6, 3, 1]


def test_success_of_a_lease_granted_since_ends_a_row(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    for _ in range(2):
        crowd.refuse_newest()
    assert stored(shard)["row"] == 2
    crowd.serve(1)
    assert stored(shard)["row"] == 2  # it was granted before them
    crowd.end(SUCCESS, newest=True)
    assert stored(shard)["row"] == 0


def test_window_that_something_else_holds_back_falls_by_a_quarter(shard: ScriptedShard) -> None:
    shard.open(64, config=configured(40))
    shard.batch("m", *(Acquire(f"a{i}") for i in range(10)))
    shard.batch("m", *(Release(f"a{i}", LIMITED) for i in range(3)))
    assert stored(shard)["current_limit"] == 30


# -- 3: nothing else in flight


@pytest.mark.parametrize(("hint", "pause"), [(None, 2), (7.0, 7)])
def test_refused_with_nothing_else_in_flight_cools_down_and_probes_by_one(
    shard: ScriptedShard, hint: float | None, pause: int
) -> None:
    shard.open(64, config=configured(24))
    shard.batch("m", *(Acquire(f"a{i}") for i in range(3)))
    shard.batch("m", Release("a0"), Release("a1"), Release("a2", LIMITED, hint))
    seen = stored(shard)
    until_us = shard.server_us + pause * SECOND_US
    assert (seen["current_limit"], seen["blocked_until_us"]) == (1, until_us)
    assert told(shard, *MOVES) == [("24", "1", "outage")]


def test_total_refusal_is_probed_by_one_attempt_per_cooldown(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    fresh = 0
    while crowd.held:
        crowd.end(LIMITED)
        fresh = stored(shard)["cuts"]
    assert fresh <= 2 + 2 * 5
    for probe in range(5):
        shard.set_clock(stored(shard)["blocked_until_us"])
        reply = shard.batch("m", Acquire(f"p{probe}", wait="try"))
        crowd.held = granted(reply.notices)
        assert len(crowd.held) == 1
        assert crowd.end(LIMITED) == []
    assert shard.server_us + 2 * SECOND_US == stored(shard)["blocked_until_us"]
    assert stored(shard)["rate_limit_ceiling"] == 24  # an outage is not forgotten capacity


# -- 4: back to what was served


def test_window_below_its_ceiling_comes_back_by_one_a_success(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 6, ceiling=24)
    limits = []
    for _ in range(3):
        crowd.serve(crowd.limit)
        limits.append(crowd.limit)
    assert limits == [12, 24, 24]
    assert told(shard, *MOVES, *RECOVERIES) == [
        ("6", "24", "return"),
        ("request_soft_ceiling_recovered",),
    ]


def test_success_of_a_window_that_is_not_full_adds_nothing(shard: ScriptedShard) -> None:
    shard.open(64, config=configured(8))
    shard.batch("m", *(Acquire(f"a{i}") for i in range(7)))
    shard.batch("m", *(Release(f"a{i}") for i in range(7)))
    assert (stored(shard)["current_limit"], stored(shard)["success_streak"]) == (8, 0)


def test_success_of_a_lease_granted_before_a_refusal_adds_nothing(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 8, ceiling=24)
    since = {"success": 24}  # so that it is a lone refusal
    write_record(shard.client, shard.keys, since, "window_chat")
    crowd.end(LIMITED)
    crowd.serve(7)
    assert crowd.limit == 7
    crowd.serve(1)
    assert crowd.limit == 8


# -- 5: hold, try, confirm


def test_it_tries_one_more_after_150_successes_of_a_full_window(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    crowd.serve(149)
    assert (crowd.limit, stored(shard)["success_streak"]) == (24, 149)
    crowd.serve(1)
    assert (crowd.limit, stored(shard)["rate_limit_ceiling"]) == (25, 24)
    assert told(shard, *MOVES) == [("24", "25", "try")]


def test_each_round_confirms_the_step_and_doubles_the_next_to_a_quarter(
    shard: ScriptedShard,
) -> None:
    crowd = crowd_at(shard, 12, successes_until_try=2, round_successes=3)
    crowd.serve(2)
    seen = [(crowd.limit, stored(shard)["rate_limit_ceiling"])]
    for _ in range(4):
        crowd.serve(seen[-1][0])  # a window's worth, as that is more than 3
        seen.append((crowd.limit, stored(shard)["rate_limit_ceiling"]))
    assert seen == [(13, 12), (15, 13), (18, 15), (22, 18), (27, 22)]


def test_window_that_reached_its_maximum_by_tries_has_recovered(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 6, cap=8, successes_until_try=2, round_successes=3)
    crowd.serve(2 + 7 + 8)
    seen = stored(shard)
    assert (seen["current_limit"], seen["rate_limit_ceiling"]) == (8, 0)
    assert (seen["step"], seen["success_streak"]) == (0, 0)
    assert told(shard, *MOVES, *RECOVERIES) == [
        ("6", "7", "try"),
        ("7", "8", "try"),
        ("request_fully_recovered",),
    ]
    crowd.serve(20)
    assert stored(shard)["success_streak"] == 0


def test_plain_success_writes_one_number_of_the_rule(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    crowd.end(FAILED)
    before = stored(shard)
    crowd.serve(1)
    after = stored(shard)
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed == {"success_streak", "success", "waiters"}


# -- 6: what ends a try, what is noise, what is load


def test_refusal_that_ends_a_try_puts_the_ceiling_at_what_is_in_flight(
    shard: ScriptedShard,
) -> None:
    crowd = crowd_at(shard, 24)
    crowd.serve(150)
    assert crowd.end(LIMITED, newest=True) == []
    crowd.serve(24)  # granted before it
    assert (crowd.limit, stored(shard)["top"]) == (24, 24)
    crowd.serve(1)
    seen = stored(shard)
    assert (seen["current_limit"], seen["rate_limit_ceiling"], seen["step"]) == (24, 24, 0)
    assert seen["top"] == 0


def test_lone_refusal_at_the_ceiling_is_noise_and_keeps_it(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    crowd.serve(30)
    crowd.end(LIMITED)
    seen = stored(shard)
    assert (seen["current_limit"], seen["rate_limit_ceiling"]) == (23, 24)
    assert seen["success_streak"] == 30
    crowd.serve(24)
    assert (crowd.limit, stored(shard)["rate_limit_ceiling"]) == (24, 24)


def test_refusals_closer_than_a_round_lower_the_ceiling_when_serving_goes_on(
    shard: ScriptedShard,
) -> None:
    crowd = crowd_at(shard, 24)
    crowd.serve(30)
    crowd.end(LIMITED)
    crowd.serve(22)
    crowd.refuse_newest()
    seen = stored(shard)
    assert (seen["rate_limit_ceiling"], seen["top"]) == (24, 22)
    crowd.end(FAILED, newest=True)
    crowd.end(SUCCESS, newest=True)
    assert stored(shard)["rate_limit_ceiling"] == 22


def test_three_refusals_with_nothing_served_between_are_no_noise(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    crowd.serve(30)
    crowd.end(LIMITED, times=2)
    assert (stored(shard)["top"], stored(shard)["success_streak"]) == (0, 30)
    crowd.end(LIMITED, times=10)
    seen = stored(shard)
    assert (seen["current_limit"], seen["top"], seen["success_streak"]) == (12, 12, 0)
    crowd.serve(12 + 1)
    seen = stored(shard)
    assert (seen["current_limit"], seen["rate_limit_ceiling"], seen["soon_tries"]) == (12, 12, 3)


# -- 7: after a fall


def test_three_tries_after_a_fall_come_after_50_and_then_after_150(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24, ceiling=63)
    crowd.end(LIMITED)
    crowd.serve(24)
    assert (crowd.limit, stored(shard)["rate_limit_ceiling"]) == (23, 23)
    waits = []
    for _ in range(5):
        served = stored(shard)["success"] - stored(shard)["success_streak"]
        while crowd.limit == 23:
            crowd.serve(1)
        waits.append(stored(shard)["success"] - served)
        crowd.end(LIMITED, newest=True)
    assert waits == [50, 50, 50, 150, 150]


# -- 8: a hint


def test_first_hint_stops_tries_and_returns_but_nobodys_calls(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    crowd.serve(30)
    crowd.end(LIMITED, hint=5.0)
    crowd.serve(23)
    assert crowd.serve(10) != []
    seen = stored(shard)
    assert (seen["current_limit"], seen["blocked_until_us"]) == (23, 0)
    assert seen["quiet_until_us"] == shard.server_us + 5 * SECOND_US
    shard.advance(5.0)
    crowd.serve(1)
    assert crowd.limit == 24


def test_third_hint_in_a_row_means_everyone(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    for _ in range(2):
        crowd.refuse_newest(hint=5.0)
        shard.advance(1.0)
    assert stored(shard)["blocked_until_us"] == 0
    crowd.serve(2)
    assert crowd.refuse_newest(hint=5.0) == []
    seen = stored(shard)
    assert seen["blocked_until_us"] == shard.server_us + 5 * SECOND_US
    assert (seen["current_limit"], seen["row"]) == (5, 0)
    assert told(shard, *MOVES)[-1] == ("22", "5", "hint")


@pytest.mark.parametrize(("hint", "is_for_all"), [(0.15, False), (1.999, False), (2.0, True)])
def test_hint_shorter_than_a_cooldown_stops_nobodys_calls(
    shard: ScriptedShard, hint: float, *, is_for_all: bool
) -> None:
    """A window that falls has found what is served before a pause for everyone had ended."""
    crowd = crowd_at(shard, 24)
    for _ in range(3):
        crowd.refuse_newest(hint=hint)
    seen = stored(shard)
    assert seen["row"] == (0 if is_for_all else 3)
    assert (seen["blocked_until_us"] > shard.server_us) == is_for_all
    assert told(shard, *MOVES)[-1][-1] == ("hint" if is_for_all else "row")


@pytest.mark.parametrize("hint", [0.15, 5.0])
def test_hints_between_which_others_are_served_mean_nobody_else(
    shard: ScriptedShard, hint: float
) -> None:
    """Calls take their time and refusals do not: a row says little while others are served."""
    crowd = crowd_at(shard, 40)
    for _ in range(3):
        crowd.refuse_newest(hint=hint)
        crowd.serve(6)  # granted before it
    seen = stored(shard)
    assert (seen["row"], seen["blocked_until_us"]) == (3, 0)
    assert [reason for *_, reason in told(shard, *MOVES)] == ["refused", "row", "row"]


def test_run_of_tries_that_overshoots_is_answered_with_hints_and_no_cooldown(
    shard: ScriptedShard,
) -> None:
    crowd = crowd_at(shard, 24, successes_until_try=2, round_successes=3)
    crowd.serve(2 + 25)
    assert (crowd.limit, stored(shard)["step"]) == (27, 2)
    for _ in range(2):
        crowd.refuse_newest(hint=1.0)
    assert (crowd.limit, stored(shard)["blocked_until_us"]) == (25, 0)


def test_hint_of_a_lease_granted_before_the_first_blocks_nobody(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    crowd.refuse_newest()
    crowd.refuse_newest()
    crowd.end(LIMITED, hint=5.0)
    assert stored(shard)["blocked_until_us"] == 0


def test_wild_hint_is_clamped_for_tries_as_for_cooldowns(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    crowd.end(LIMITED, hint=1e6)
    assert stored(shard)["quiet_until_us"] == shard.server_us + 300 * SECOND_US
    said = [fields.get("code") for _name, fields in events(shard.client, shard.keys)]
    assert said.count("cooldown_clamped") == 1


# -- caps, reset, what was learned


def test_lowered_cap_lowers_the_window_and_forgets_nothing(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24, 64)
    crowd.serve(150)
    limits = []
    for cap in (20, 64):
        shard.batch("m", Register("alias", cap, configured(24)))
        limits.append(crowd.limit)
    assert limits == [20, 20]
    assert (stored(shard)["step"], stored(shard)["success_streak"]) == (0, 0)
    crowd.end(FAILED, times=5)
    crowd.serve(20)
    assert crowd.limit == 24


def test_raised_cap_lifts_a_window_that_stood_at_its_old_maximum(shard: ScriptedShard) -> None:
    shard.open(4, config=configured())
    crowd = Crowd(shard)
    shard.batch("m", Register("alias", 6, configured()))
    assert crowd.limit == 6


def test_raised_cap_lifts_no_window_that_is_still_below_it(shard: ScriptedShard) -> None:
    shard.open(32, config=configured())
    crowd = Crowd(shard)
    shard.batch("m", Register("alias", 64, configured()))
    assert crowd.limit == 4


def test_reset_window_is_as_new(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    for _ in range(3):
        crowd.refuse_newest(hint=1.0)
    shard.batch("m", Register("alias", 64, configured()))
    shard.administer("reset_window", "chat")
    seen = stored(shard)
    assert (seen["current_limit"], seen["step"]) == (4, 1)
    forgotten = ("rate_limit_ceiling", "row", "soon_tries", "top", "quiet_until_us")
    assert [seen[name] for name in forgotten] == [0] * 5


def test_reset_cooldown_ends_what_a_hint_stopped(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    crowd.end(LIMITED, hint=5.0)
    assert shard.administer("reset_cooldown", "chat")[2] == 5 * SECOND_US
    assert stored(shard)["quiet_until_us"] == shard.server_us


def test_window_of_the_other_rule_goes_on_from_what_it_knew(shard: ScriptedShard) -> None:
    shard.open(32, config=AIMD)
    crowd = Crowd(shard)
    crowd.end(LIMITED)
    assert (crowd.limit, stored(shard)["rate_limit_ceiling"]) == (24, 32)
    shard.batch("m", Register("alias", 64, configured()))
    shard.advance(2.0)
    crowd.end(FAILED, times=8)
    crowd.serve(24 + 8)
    assert crowd.limit == 32


def test_what_was_learned_is_kept_for_a_restarted_fleet(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    crowd.end(LIMITED)
    shard.batch("m", Leave())
    shard.advance(6 * 24 * 3600.0)
    shard.join("n")
    shard.batch("n", Register("alias", 64, configured()))
    assert (stored(shard)["current_limit"], stored(shard)["rate_limit_ceiling"]) == (23, 24)


# -- events


def test_events_of_a_window_are_a_chain_and_name_their_rule(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 6, ceiling=24)
    crowd.serve(9)
    crowd.end(LIMITED)
    crowd.end(LIMITED)
    assert told(shard, *MOVES) == [
        ("6", "15", "return"),
        ("15", "14", "refused"),
        ("14", "13", "refused"),
    ]
    rules = {
        fields["algorithm"]
        for _name, fields in events(shard.client, shard.keys)
        if fields["kind"] in {*MOVES, "request_rate_limited"}
    }
    assert rules == {"steady"}


def test_second_fresh_refusal_is_told_as_a_row(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    crowd.refuse_newest()
    crowd.refuse_newest()
    assert told(shard, *MOVES) == [("24", "23", "refused"), ("23", "22", "row")]


# -- a budget


@pytest.mark.parametrize("rule", ["steady", "aimd"])
def test_hint_of_a_budget_blocks_until_its_refill_and_cuts_nothing(
    shard: ScriptedShard, rule: str
) -> None:
    shard.open(64, config=configured(24, rule=rule))
    shard.heartbeat("m", 3600.0)
    crowd = Crowd(shard)
    crowd.serve(3)
    before = stored(shard)
    assert crowd.end(LIMITED, 5, hint=4000.0, scope=RateLimitScope.QUOTA) == []
    after = stored(shard)
    assert after["blocked_until_us"] == shard.server_us + 4000 * SECOND_US
    kept = ("current_limit", "rate_limit_ceiling", "cuts", "row", "success_streak")
    assert [after.get(name) for name in kept] == [before.get(name) for name in kept]
    assert told(shard, "request_limit_decreased") == []


@pytest.mark.parametrize("rule", ["steady", "aimd"])
def test_budget_that_refuses_after_its_refill_is_an_ordinary_refusal_too(
    shard: ScriptedShard, rule: str
) -> None:
    shard.open(64, config=configured(24, rule=rule))
    shard.heartbeat("m", 3600.0)
    crowd = Crowd(shard)
    crowd.end(LIMITED, 2, hint=60.0, scope=RateLimitScope.QUOTA)
    shard.advance(60.0)
    shard.heartbeat("m", 3600.0)
    crowd.end(FAILED)
    crowd.end(LIMITED, newest=True, hint=60.0, scope=RateLimitScope.QUOTA)
    seen = stored(shard)
    assert seen["current_limit"] == {"steady": 23, "aimd": 18}[rule]
    assert seen["blocked_until_us"] == shard.server_us + 60 * SECOND_US


def test_budget_that_served_since_its_refill_cuts_nothing_again(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    crowd.end(LIMITED, hint=60.0, scope=RateLimitScope.QUOTA)
    shard.advance(60.0)
    shard.heartbeat("m", 3600.0)
    crowd.serve(1)
    crowd.end(LIMITED, newest=True, hint=60.0, scope=RateLimitScope.QUOTA)
    assert (crowd.limit, stored(shard)["cuts"]) == (24, 0)


def test_scope_without_a_usable_hint_is_an_ordinary_refusal(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    crowd.end(LIMITED, scope=RateLimitScope.QUOTA)
    assert (crowd.limit, stored(shard)["cuts"]) == (23, 1)


def test_refill_is_believed_for_a_month(shard: ScriptedShard) -> None:
    crowd = crowd_at(shard, 24)
    crowd.end(LIMITED, hint=1e9, scope=RateLimitScope.QUOTA)
    assert stored(shard)["blocked_until_us"] == shard.server_us + 31 * 86_400 * SECOND_US
