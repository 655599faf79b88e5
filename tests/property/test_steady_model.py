"""What the page of the rule ``steady`` promises, of the model alone.

Rules: design 11, *Why it is safe*.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.property.modes import SETTINGS
from tests.property.steady_fleet import Fleet
from tests.property.window_steady_model import SteadySettings, born

SECOND_US = 1_000_000
COOLDOWN_US = SteadySettings().cooldown_us
CAPS = st.sampled_from([1, 2, 3, 4, 5, 8, 24, 64, 256])
QUICK = st.builds(
    SteadySettings,
    successes_until_try=st.sampled_from([1, 3, 10, 150]),
    round_successes=st.sampled_from([1, 2, 5, 24]),
)
"""Settings under which a short history has tries, steps and lone refusals."""
PICKS = st.integers(0, 10**6)
HINTS_US = st.sampled_from([0, 0, 0, 1, SECOND_US // 2, 5 * SECOND_US])
MOVES = st.one_of(
    st.tuples(st.just("serve"), PICKS, st.integers(1, 40)),
    st.tuples(st.just("refuse"), PICKS, HINTS_US),
    st.tuples(st.just("lose"), PICKS, st.just(0)),
    st.tuples(st.just("pass"), st.just(0), st.sampled_from([1, SECOND_US, 3 * SECOND_US])),
    st.tuples(st.just("cap"), st.just(0), CAPS),
    st.tuples(st.just("demand"), st.just(0), st.sampled_from([0, 1, 2, 7, 10**6, 10**6])),
)
HISTORIES = st.lists(MOVES, max_size=40)


def fleet_of(cap: int, settings: SteadySettings | None = None, initial: int | None = None) -> Fleet:
    fleet = Fleet(window=born(cap, initial), settings=settings or SteadySettings())
    fleet.grant()
    return fleet


def move(fleet: Fleet, what: str, pick: int, amount: int) -> None:
    """Let one move of a history happen, where it can."""
    match what:
        case "pass":
            fleet.pass_time(amount)
        case "cap":
            fleet.recap(amount)
        case "demand":
            fleet.demand = amount
            fleet.grant()
        case "serve":
            for _ in range(amount if fleet.leases else 0):
                fleet.serve(pick % len(fleet.leases))
                if not fleet.leases:
                    return
        case _ if fleet.leases:
            args = [amount] if what == "refuse" else []
            getattr(fleet, what)(pick % len(fleet.leases), *args)


@st.composite
def lived(draw: st.DrawFn) -> Fleet:
    """A fleet with some history."""
    initial = draw(st.sampled_from([None, None, 1, 24, 256]))
    fleet = fleet_of(draw(CAPS), draw(QUICK), initial)
    for each in draw(HISTORIES):
        move(fleet, *each)
    return fleet


def in_some_order(data: st.DataObject) -> Iterator[int]:
    """Picks without end: all of them drawn at random would be too many."""
    some = data.draw(st.lists(PICKS, min_size=1, max_size=8))
    return itertools.cycle(some)


# -- whatever happens


@SETTINGS
@given(lived(), MOVES)
def test_limit_and_ceiling_stay_within_their_bounds(fleet: Fleet, then: Any) -> None:
    move(fleet, *then)
    window = fleet.window
    assert 1 <= window.limit <= window.effective_max
    assert 1 <= window.ceiling <= window.effective_max
    assert window.served >= window.served_at_refusal


@SETTINGS
@given(lived(), PICKS, HINTS_US)
def test_refusal_of_a_full_window_grants_nobody(fleet: Fleet, pick: int, hint_us: int) -> None:
    assume(fleet.leases and fleet.is_full)
    assert fleet.refuse(pick % len(fleet.leases), hint_us) == 0


@SETTINGS
@given(lived())
def test_somebody_is_granted_when_no_cooldown_lasts_and_nothing_is_out(fleet: Fleet) -> None:
    fleet.demand = 1
    while fleet.leases:
        fleet.demand = 0
        fleet.lose()
    fleet.demand = 1
    fleet.wait_out_the_cooldown()
    assert len(fleet.leases) == 1


@SETTINGS
@given(lived(), PICKS)
def test_only_a_success_raises_the_limit(fleet: Fleet, pick: int) -> None:
    assume(fleet.leases)
    before = fleet.window.limit
    fleet.refuse(pick % len(fleet.leases))
    assert fleet.window.limit <= before
    if fleet.leases:
        before = fleet.window.limit
        fleet.lose(pick % len(fleet.leases))
        assert fleet.window.limit == before


# -- total refusal


@SETTINGS
@given(lived(), st.data())
def test_total_refusal_cools_down_after_few_fresh_refusals(
    fleet: Fleet, data: st.DataObject
) -> None:
    fleet.demand = 10**6
    fleet.wait_out_the_cooldown()
    limit, before = fleet.window.limit, fleet.refused_fresh
    fleet.fall_to_the_first_cooldown(in_some_order(data))
    assert fleet.refused_fresh - before <= 2 + 2 * math.log2(limit)
    assert fleet.window.limit == 1
    assert not fleet.leases


@SETTINGS
@given(lived(), st.data(), st.integers(1, 20))
def test_total_refusal_is_one_attempt_a_cooldown_from_then_on(
    fleet: Fleet, data: st.DataObject, cooldowns: int
) -> None:
    fleet.demand = 10**6
    fleet.wait_out_the_cooldown()
    fleet.fall_to_the_first_cooldown(in_some_order(data))
    granted = fleet.granted
    for _ in range(cooldowns):
        fleet.wait_out_the_cooldown()
        until_us = fleet.now_us + COOLDOWN_US
        assert fleet.refuse() == 0
        assert fleet.window.blocked_until_us == until_us
    assert fleet.granted == granted + cooldowns


@SETTINGS
@given(lived(), st.data(), st.integers(1, 5))
def test_leases_of_the_dead_let_no_refusals_storm(
    fleet: Fleet, data: st.DataObject, dead: int
) -> None:
    """While they are out nobody is known to be refused alone, and still few refusals come."""
    fleet.demand = 10**6
    fleet.wait_out_the_cooldown()
    assume(len(fleet.leases) > dead)
    limit, before, picks = fleet.window.limit, fleet.refused_fresh, in_some_order(data)
    while len(fleet.leases) > dead:
        fleet.refuse(dead + next(picks) % (len(fleet.leases) - dead))
    assert fleet.refused_fresh - before <= 2 + 2 * math.log2(limit)
    while fleet.leases and fleet.window.limit > 1:
        fleet.lose()
        if not fleet.is_cooling:
            fleet.refuse()
    assert fleet.refused_fresh - before <= 2 + 2 * math.log2(limit)


def test_each_fresh_refusal_in_a_row_falls_twice_as_far_and_at_most_to_a_half() -> None:
    fleet = fleet_of(256, initial=40)
    limits = []
    while fleet.window.limit > 1:
        fleet.leases[-1] = fleet.window.cuts  # whoever is refused next was granted since
        fleet.refuse()
        limits.append(fleet.window.limit)
        while len(fleet.leases) > fleet.window.limit:
            fleet.lose()
    assert limits == [39, 38, 36, 32, 24, 12, 6, 3, 1]


def test_window_that_is_not_full_falls_by_a_quarter_and_not_below_what_is_in_flight() -> None:
    limits = []
    for demand in (2, 20, 30):
        fleet = fleet_of(32, initial=32)
        fleet.demand = 0
        while len(fleet.leases) > demand:
            fleet.lose()
        fleet.refuse()
        fleet.refuse()  # granted before the first one
        limits.append(fleet.window.limit)
    assert limits == [1, 24, 28]  # the last one stands full by then, and gives no place again


# -- return and noise


@pytest.mark.parametrize("ceiling", [1, 2, 3, 24, 64, 256])
def test_window_returns_to_its_ceiling_by_doubling_each_call_s_time(ceiling: int) -> None:
    fleet = fleet_of(ceiling, initial=ceiling)
    fleet.fall_to_the_first_cooldown(itertools.repeat(0))
    assert fleet.window.ceiling == ceiling
    fleet.wait_out_the_cooldown()
    limits = []
    while fleet.window.limit < ceiling:
        for _ in range(len(fleet.leases)):
            fleet.serve()
        limits.append(fleet.window.limit)
    assert limits == [min(ceiling, 2**k) for k in range(1, len(limits) + 1)]


@SETTINGS
@given(CAPS, st.lists(st.integers(24, 140), min_size=1, max_size=12))
def test_refusals_a_round_apart_leave_the_ceiling(cap: int, apart: list[int]) -> None:
    fleet = fleet_of(cap, initial=cap)
    for _ in range(max(24, cap)):
        fleet.serve()  # that much was served before
    for successes in apart:
        for _ in range(successes):
            fleet.serve()
        fleet.refuse()
        assert fleet.window.ceiling == cap
        fleet.wait_out_the_cooldown()
    for _ in range(2 * cap):
        fleet.serve()
    assert fleet.window.limit == cap


@SETTINGS
@given(st.sampled_from([3, 4, 24, 64, 256]), st.data())
def test_refusals_within_a_round_lower_the_ceiling_to_what_is_in_flight(
    cap: int, data: st.DataObject
) -> None:
    fleet = fleet_of(cap, initial=cap)
    for _ in range(24):
        fleet.serve()
    fleet.refuse()
    for _ in range(data.draw(st.integers(1, 23))):
        fleet.serve()
    fleet.refuse()
    left = len(fleet.leases)
    assert fleet.window.ceiling == cap  # nobody knows yet whether serving goes on
    for _ in range(left + 1):
        fleet.serve()
    assert fleet.window.ceiling == left


# -- holding and trying


@pytest.mark.parametrize("limit", [1, 2, 4, 7, 24, 30, 48, 62, 63])
def test_standing_limit_is_held_at_one_refusal_a_try(limit: int) -> None:
    fleet = fleet_of(64)
    fleet.meet_limit(limit, 60 * limit)
    served, refused = fleet.meet_limit(limit, 10_000)
    assert refused <= 1 + 0.009 * served
    assert refused >= served // 200  # it goes on trying: the limit may have risen
    assert limit <= fleet.window.limit <= limit + 1


def test_few_are_refused_from_birth_at_a_limit_of_4() -> None:
    _, refused = fleet_of(64).meet_limit(4, 80)
    assert refused <= 5


def test_steps_of_a_try_double_up_to_a_quarter_of_the_window() -> None:
    fleet = fleet_of(256)
    fleet.meet_limit(10, 600)
    while not fleet.window.step:
        fleet.meet_limit(256, 1)
    limits = []
    for _ in range(300):
        limits.append(fleet.window.limit)
        fleet.meet_limit(256, 1)
    assert sorted(set(limits)) == [11, 13, 16, 20, 25, 31, 38, 47, 58, 72]


@pytest.mark.parametrize(("low", "high"), [(12, 24), (4, 8), (24, 64)])
def test_step_up_is_found_by_steps_that_double(low: int, high: int) -> None:
    fleet = fleet_of(64)
    fleet.meet_limit(low, 1000)
    assert fleet.window.ceiling == low
    fleet.meet_limit(high, 150 + 24 * high)
    assert fleet.window.ceiling >= high


def test_step_down_is_followed_by_doubling_falls() -> None:
    fleet = fleet_of(256, initial=256)
    _, refused = fleet.meet_limit(64, 64)
    assert fleet.window.limit <= 65
    assert refused <= 256 - 64 + 8


def test_first_try_after_a_fall_comes_early_and_the_next_ones_later() -> None:
    fleet = fleet_of(64, initial=64)
    fleet.meet_limit(24, 240)
    waits = []
    for _ in range(5):
        began = fleet.window.served
        refused = 0
        while not refused:
            _, refused = fleet.meet_limit(24, 1)
        waits.append(fleet.window.served - began)
    assert waits[-1] >= 150
    assert waits == sorted(waits)


def test_window_at_its_maximum_tries_nothing() -> None:
    fleet = fleet_of(8)
    for _ in range(2000):
        fleet.serve()
    window = fleet.window
    assert (window.limit, window.ceiling, window.credit, window.step) == (8, 8, 0, 0)


# -- retry-after


def test_first_hint_stops_growth_and_not_the_others_calls() -> None:
    fleet = fleet_of(24, initial=24)
    for _ in range(24):
        fleet.serve()
    fleet.refuse(hint_us=5 * SECOND_US)
    limit, granted = fleet.window.limit, fleet.granted
    for _ in range(1000):
        assert fleet.serve() == 1
    assert (fleet.window.limit, fleet.granted) == (limit, granted + 1000)
    fleet.pass_time(5 * SECOND_US)
    fleet.serve()
    assert fleet.window.limit == limit + 1


@pytest.mark.parametrize(("served", "is_for_all"), [(2, True), (3, False)])
def test_third_hint_in_a_row_after_an_eighth_of_a_window_at_most_cools_everyone_down(
    served: int, is_for_all: bool
) -> None:
    fleet = fleet_of(64, initial=24)
    for _ in range(2):
        fleet.leases[-1] = fleet.window.cuts
        fleet.refuse(hint_us=COOLDOWN_US)
    assert not fleet.is_cooling
    fleet.window.served += served
    fleet.leases[-1] = fleet.window.cuts
    fleet.refuse(hint_us=COOLDOWN_US)
    assert fleet.is_cooling == is_for_all


def test_hints_shorter_than_a_cooldown_cool_nobody_down_but_one_that_is_alone() -> None:
    fleet = fleet_of(64, initial=24)
    while len(fleet.leases) > 1:
        fleet.leases[-1] = fleet.window.cuts
        fleet.refuse(hint_us=COOLDOWN_US - 1)
        assert not fleet.is_cooling
    fleet.refuse(hint_us=COOLDOWN_US - 1)
    assert fleet.window.blocked_until_us == fleet.now_us + COOLDOWN_US - 1


def test_third_hint_to_a_lease_granted_after_the_one_before_cools_everyone_down() -> None:
    fleet = fleet_of(64, initial=24)
    fleet.refuse(hint_us=5 * SECOND_US)
    fleet.refuse(0, hint_us=5 * SECOND_US)
    assert not fleet.is_cooling  # it was granted before: the same burst
    limit = fleet.window.limit
    for _ in range(2):
        assert not fleet.is_cooling
        fleet.leases[-1] = fleet.window.cuts
        fleet.refuse(hint_us=7 * SECOND_US)
    assert fleet.window.blocked_until_us == fleet.now_us + 7 * SECOND_US
    assert fleet.window.limit == (limit - 1 - 2) // 4
