"""Design 11, *Why it is safe*: what the scripts promise of a window under the rule ``steady``."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import fakeredis
import pytest

from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.quotas import QuotaBudget
from forebay.contracts.settings import (
    RequestAdmissionConfig,
    RequestAdmissionTuningConfig,
    RequestQuotas,
)
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from tests.contract.callers_of_a_shard import LONG_TTL_SECONDS, Callers, callers_of, steady
from tests.support_scripts import CHAT, EMBEDDING, Leave, Register, Release, ScriptedShard
from tests.support_state import events, read_keys

COOLDOWN_US = 2_000_000
ORDERS: dict[str, Callable[[], Iterator[int]]] = {
    "oldest first": lambda: itertools.repeat(0),
    "newest first": lambda: itertools.repeat(-1),
    "shuffled": lambda: iter(random.Random(7).choices(range(10**6), k=4000)),
}


@pytest.fixture
def shard(redis_url: str) -> Iterator[ScriptedShard]:
    """A shard on a real server alone: these are many calls, which fakeredis makes slowly."""
    with open_sync(parse_url(redis_url)) as client:
        client.flushall()
        shard = ScriptedShard(client)
        yield shard
        shard.close()


# -- a refusal of a full window


@pytest.mark.parametrize("hint", [None, 5.0])
@pytest.mark.parametrize("limit", [1, 2, 9, 40])
def test_refusal_of_a_full_window_grants_nobody(
    shard: ScriptedShard, limit: int, hint: float | None
) -> None:
    callers = callers_of(shard, 64, steady(limit))
    while callers.held:
        assert callers.is_full or callers.is_cooling
        assert callers.refuse(0, hint) == 0
    assert callers.waiting == 300


@pytest.mark.parametrize("order", ORDERS)
def test_refusals_between_successes_grant_nobody_either(shard: ScriptedShard, order: str) -> None:
    callers, picks = callers_of(shard, 64, steady(12, successes_until_try=5)), ORDERS[order]()
    for is_refused in random.Random(3).choices([True, False, False, False], k=150):
        if callers.wait_out_the_cooldown() or callers.held:
            pick = next(picks) % len(callers.held)
            assert callers.is_full
            if is_refused:
                assert callers.refuse(pick) == 0
            else:
                callers.serve(pick)
    assert callers.stored("success") > 50


# -- total refusal


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("limit", [1, 2, 3, 8, 24, 64, 256])
def test_total_refusal_cools_down_after_at_most_2_and_twice_log2_of_the_limit_fresh_refusals(
    shard: ScriptedShard, limit: int, order: str
) -> None:
    callers = callers_of(shard, 256, steady(limit))
    callers.fall_to_the_first_cooldown(ORDERS[order]())
    assert callers.refused_fresh <= 2 + 2 * math.log2(limit)
    assert (callers.limit, len(callers.held)) == (1, 0)


def test_total_refusal_of_replaced_leases_cools_down_as_soon(shard: ScriptedShard) -> None:
    """Each refusal but the last hits a lease that was granted since the one before."""
    callers = callers_of(shard, 64, steady(64))
    while callers.limit > 1:
        while callers.held[-1].cuts != callers.stored("cuts"):
            callers.end(0, Outcome.PROVIDER_FAILURE)
        callers.refuse()
    assert callers.refused_fresh <= 2 + 2 * math.log2(64)


@pytest.mark.parametrize("hint", [None, 7.0])
def test_total_refusal_is_one_attempt_a_cooldown_from_then_on(
    shard: ScriptedShard, hint: float | None
) -> None:
    callers = callers_of(shard, 64, steady(24))
    while callers.held:
        callers.refuse(0, hint)
    pause_us = COOLDOWN_US if hint is None else round(hint * 1e6)
    for _ in range(20):
        assert callers.wait_out_the_cooldown() == 1
        shard.heartbeat("m", LONG_TTL_SECONDS)
        assert callers.refuse(hint=hint) == 0
        assert callers.stored("blocked_until_us") == shard.server_us + pause_us
        shard.set_clock(shard.server_us + pause_us - 1)
        assert callers.settle() == 0


def test_leases_of_a_dead_member_let_no_refusals_storm(shard: ScriptedShard) -> None:
    """They count as in flight, so nobody is known to be refused alone until they have ended."""
    shard.open(64, "m", "dead", config=steady(24))
    shard.heartbeat("m", LONG_TTL_SECONDS)
    shard.heartbeat("dead", 15.0)
    callers = Callers(shard)
    assert callers.come(6, "dead") == 6
    callers.come(100)
    dead, callers.held = callers.held[:6], callers.held[6:]
    refused = 0
    while callers.held:
        assert callers.refuse(0) == 0
        refused += 1
    assert refused == 18
    assert not callers.is_cooling
    assert callers.stored("in_flight") == len(dead) >= callers.limit
    shard.advance(20.0)  # the dead member's leases end, which is no word of the provider
    assert callers.settle() == callers.limit <= 6
    while callers.held:
        assert callers.refuse(0) == 0
    assert callers.is_cooling
    assert callers.refused_fresh <= 2 + 2 * math.log2(24)


# -- bounds


@pytest.mark.parametrize("seed", range(6))
def test_limit_and_ceiling_stay_within_1_and_the_effective_max(
    shard: ScriptedShard, seed: int
) -> None:
    dice = random.Random(seed)
    config = steady(dice.choice([1, 4, 24]), successes_until_try=3, round_successes=2)
    callers = callers_of(shard, 24, config, 60)
    for _ in range(150):
        _one_move(callers, dice, config)
        seen = shard_capture(shard)
        assert 1 <= seen["current_limit"] <= seen["effective_max"]
        assert 1 <= seen["ceiling"] <= seen["effective_max"]


def _one_move(callers: Callers, dice: random.Random, config: RequestAdmissionConfig) -> None:
    shard = callers.shard
    what = dice.choices(["serve", "refuse", "fail", "cap", "pass"], [12, 4, 1, 2, 2])[0]
    match what:
        case "cap":
            callers.call("m", Register("alias", dice.choice([1, 2, 5, 24, 60]), config))
        case "pass":
            shard.advance(dice.choice([0.5, 2.0, 6.0]))
            callers.settle()
        case _ if not callers.held:
            callers.wait_out_the_cooldown()
        case "serve":
            callers.serve(dice.randrange(len(callers.held)))
        case "fail":
            callers.end(dice.randrange(len(callers.held)), Outcome.PROVIDER_FAILURE)
        case "refuse":
            hint = dice.choice([None, None, 1.0])
            callers.refuse(dice.randrange(len(callers.held)), hint)


def shard_capture(shard: ScriptedShard) -> dict[str, Any]:
    """Return what a snapshot says of the chat window."""
    capture = json.loads(shard.run("requests/snapshot", shard.keys.all, (0,)))
    seen: dict[str, Any] = capture["domains"]["chat"]
    return seen


# -- the same events, the same numbers


def _history(shard: ScriptedShard, seed: int) -> tuple[dict[str, Any], list[Any]]:
    """Play a history by dice; return all that is stored and told in the end."""
    dice = random.Random(seed)
    config = steady(8, successes_until_try=4, round_successes=3)
    callers = callers_of(shard, 24, config, 60)
    for _ in range(200):
        _one_move(callers, dice, config)
    return read_keys(shard.client, shard.keys), events(shard.client, shard.keys)


@pytest.mark.parametrize("seed", [1, 2])
def test_same_events_give_the_same_numbers_on_every_server(redis_url: str, seed: int) -> None:
    ends = []
    for _ in range(2):
        with open_sync(parse_url(redis_url)) as client:
            client.flushall()
            ends.append(_on(client, seed))
    with fakeredis.FakeRedis(version=(7,)) as client:
        ends.append(_on(client, seed))
    (stored, told), *others = ends
    assert int(stored["domain_chat"]["cuts"]) > 3
    assert int(stored["domain_chat"]["success"]) > 50
    assert [other[0] for other in others] == [stored] * 2
    assert [[fields for _, fields in other[1]] for other in others] == [
        [fields for _, fields in told]
    ] * 2


def _on(client: Any, seed: int) -> tuple[dict[str, Any], list[Any]]:
    shard = ScriptedShard(client)
    try:
        return _history(shard, seed)
    finally:
        shard.close()


@pytest.mark.parametrize("rule", ["steady", "aimd"])
def test_each_event_of_a_window_names_its_rule(shard: ScriptedShard, rule: str) -> None:
    quick = {
        "steady": steady(4, successes_until_try=1, round_successes=1),
        "aimd": RequestAdmissionConfig(
            tuning=RequestAdmissionTuningConfig(rule="aimd", successes_until_increase=1),
            initial_limits={CHAT: 4},
        ),
    }
    callers = callers_of(shard, 6, quick[rule])
    callers.refuse()
    callers.wait_out_the_cooldown()
    callers.serve()
    for _ in range(3):
        callers.serve()  # a ceiling is noted
    while callers.held:
        callers.refuse(0)
    callers.wait_out_the_cooldown()
    for _ in range(80):
        callers.serve()  # it is reached, and left behind
    shard.administer("reset_window", "chat")
    said = [fields for _, fields in events(shard.client, shard.keys)]
    names = {fields["kind"]: fields.get("algorithm") for fields in said}
    of_windows = {
        "request_rate_limited",
        "request_limit_decreased",
        "request_limit_increased",
        "request_soft_ceiling_recovered",
        "request_fully_recovered",
        "request_window_reset",
    }
    assert of_windows <= names.keys()
    assert {names[kind] for kind in of_windows} == {rule}


# -- return, noise, holding and trying


@pytest.mark.parametrize("ceiling", [1, 2, 3, 24, 64])
def test_window_returns_to_its_ceiling_by_doubling_each_calls_time(
    shard: ScriptedShard, ceiling: int
) -> None:
    callers = callers_of(shard, ceiling, steady(ceiling))
    while callers.held:
        callers.refuse(0)
    callers.wait_out_the_cooldown()
    limits = []
    while callers.limit < ceiling:
        for _ in range(len(callers.held)):
            callers.serve()
        limits.append(callers.limit)
    assert limits == [min(ceiling, 2**k) for k in range(1, len(limits) + 1)]


def test_refusals_a_round_apart_are_noise_and_leave_the_ceiling(shard: ScriptedShard) -> None:
    callers = callers_of(shard, 24, steady(24))
    for successes in (24, 24, 60, 24, 24):
        for _ in range(successes):
            callers.serve()
        callers.refuse()
    for _ in range(48):
        callers.serve()
    assert (callers.limit, shard_capture(shard)["ceiling"]) == (24, 24)


def test_refusals_within_a_round_lower_the_ceiling_to_what_is_in_flight(
    shard: ScriptedShard,
) -> None:
    callers = callers_of(shard, 24, steady(24))
    for successes in (24, 23):
        for _ in range(successes):
            callers.serve()
        callers.refuse()
    left = len(callers.held)
    assert shard_capture(shard)["ceiling"] == 24  # nobody knows yet whether serving goes on
    for _ in range(left + 1):
        callers.serve()
    assert (callers.limit, shard_capture(shard)["ceiling"]) == (left, left)


def test_lone_refusal_at_what_was_served_ends_no_try(shard: ScriptedShard) -> None:
    callers = callers_of(shard, 64, steady(8, successes_until_try=1, round_successes=1), 8)
    callers.refuse()
    while not callers.stored("step"):
        callers.serve()
    assert (callers.limit, callers.stored("rate_limit_ceiling")) == (8, 7)
    for _ in range(5):
        callers.end(0, Outcome.PROVIDER_FAILURE, again=False)
    callers.refuse()  # not full: falls by a quarter
    callers.come(20)
    callers.serve()
    assert (callers.limit, callers.is_full) == (6, True)
    callers.refuse()
    assert (callers.limit, callers.stored("step"), callers.stored("top")) == (5, 1, 0)


def test_fewer_successes_until_a_try_bind_a_window_that_fell_before(shard: ScriptedShard) -> None:
    callers = callers_of(shard, 64, steady(24))
    for _ in range(8):
        callers.refuse()
        callers.end(0, Outcome.PROVIDER_FAILURE)
    callers.meet_limit(10, 20)
    assert (callers.stored("soon_tries"), callers.stored("step")) == (3, 0)
    callers.call("m", Register("alias", 64, steady(24, successes_until_try=5)))
    while callers.limit < callers.stored("rate_limit_ceiling"):
        callers.serve()
    before = callers.limit
    for _ in range(5):
        callers.serve()
    assert callers.limit == before + 1


@pytest.mark.parametrize("limit", [1, 4, 24, 30, 63])
def test_standing_limit_is_held_at_one_refusal_a_try(shard: ScriptedShard, limit: int) -> None:
    """Also of a limit above a round, which is first met by a climb that nobody served before."""
    callers = callers_of(shard, 64, steady())
    callers.meet_limit(limit, 20 * limit)
    served, refused = callers.meet_limit(limit, 1000)
    assert 4 <= refused <= 1 + 0.009 * served
    assert limit <= callers.limit <= limit + 1


@pytest.mark.parametrize("is_at_maximum", [True, False])
def test_maximum_that_was_raised_is_nothing_that_was_served(
    shard: ScriptedShard, is_at_maximum: bool
) -> None:
    """A window that served its old maximum climbs to the new one as from birth."""
    callers = callers_of(shard, 24, steady(24))
    callers.meet_limit(24, 100)
    if not is_at_maximum:
        callers.refuse()  # noise
    callers.call("m", Register("alias", 64, steady(24)))
    callers.meet_limit(40, 800)
    served, refused = callers.meet_limit(40, 1000)
    assert 4 <= refused <= 1 + 0.009 * served


def test_ramp_is_a_climb_as_well(shard: ScriptedShard) -> None:
    """What ends it is what is refused, though its target was never served."""
    callers = callers_of(shard, 64, steady(48, startup_ramp_seconds=48.0))
    for _ in range(40):
        shard.advance(1.0)
        callers.settle()
        callers.meet_limit(30, 40)
    served, refused = callers.meet_limit(30, 1000)
    assert 4 <= refused <= 1 + 0.009 * served


def test_at_most_5_are_refused_from_birth_at_a_limit_of_4(shard: ScriptedShard) -> None:
    _, refused = callers_of(shard, 64, steady()).meet_limit(4, 80)
    assert refused <= 5


def test_step_up_is_found_by_steps_that_double_and_no_step_is_above_a_quarter(
    shard: ScriptedShard,
) -> None:
    callers = callers_of(shard, 256, steady())
    callers.meet_limit(10, 300)
    while not callers.stored("step"):
        callers.meet_limit(256, 1)
    limits = [callers.limit]
    while callers.limit < 58:
        callers.meet_limit(256, 1)
        limits.append(callers.limit)
    assert sorted(set(limits)) == [11, 13, 16, 20, 25, 31, 38, 47, 58]


def test_window_at_its_maximum_tries_nothing(shard: ScriptedShard) -> None:
    callers = callers_of(shard, 8, steady(8))
    for _ in range(400):
        callers.serve()
    assert (callers.limit, callers.stored("step")) == (8, 0)
    seen = shard_capture(shard)
    assert (seen["ceiling"], seen["is_trying"]) == (8, False)


# -- retry-after


def test_first_hint_stops_growth_and_not_the_others_calls(shard: ScriptedShard) -> None:
    callers = callers_of(shard, 24, steady(24))
    for _ in range(24):
        callers.serve()
    callers.refuse(hint=5.0)
    limit = callers.limit
    for _ in range(200):
        assert callers.serve() == 1
    assert callers.limit == limit
    shard.advance(5.0)
    callers.serve()
    assert callers.limit == limit + 1


def test_third_hint_to_a_lease_granted_after_the_one_before_cools_everyone_down(
    shard: ScriptedShard,
) -> None:
    callers = callers_of(shard, 64, steady(24))
    callers.refuse(0, 5.0)
    callers.refuse(0, 5.0)
    assert not callers.is_cooling  # it was granted before: the same burst
    assert callers.limit == 22
    for _ in range(2):
        assert not callers.is_cooling
        callers.end(0, Outcome.PROVIDER_FAILURE)
        callers.refuse(-1, 7.0)
    assert callers.stored("blocked_until_us") == shard.server_us + 7_000_000
    assert callers.limit == (22 - 1 - 2) // 4


# -- demand, batches, other domains, quotas


def test_demand_equal_to_the_limit_is_never_refused(shard: ScriptedShard) -> None:
    callers = callers_of(shard, 64, steady(), 24)
    assert callers.meet_limit(24, 400) == (400, 0)
    assert 24 <= callers.limit <= 25


def test_releases_of_a_batch_without_waiters_earn_one_credit(shard: ScriptedShard) -> None:
    callers = callers_of(shard, 64, steady(8), 8)
    for _ in range(2):
        shard.batch("m", *(Release(lease.lease_id) for lease in callers.held))
        callers.held.clear()
        callers.come(8)
    assert callers.stored("success") == 16
    assert callers.limit == 9  # a window of 9 is not full with 8


def test_grants_of_a_full_window_go_on_in_the_next_calls(shard: ScriptedShard) -> None:
    callers = callers_of(shard, 200, steady(200), 1000)
    callers.settle()
    while callers.settle():
        pass
    assert len(callers.held) == 200
    before = callers.limit
    batch, callers.held = callers.held[:150], callers.held[150:]
    last = Release(batch[-1].lease_id, Outcome.RATE_LIMITED)
    reply = shard.batch("m", *(Release(lease.lease_id) for lease in batch[:-1]), last)
    assert reply.next_wake_us == reply.now_us  # the rest is granted at once, by the next call
    assert callers.stored("in_flight") == 50 + 64
    assert before * 3 // 4 <= callers.limit < before
    while shard.batch("m").notices:
        pass
    assert callers.stored("in_flight") == callers.limit


@pytest.fixture
def held_back(shard: ScriptedShard) -> Callers:
    """A window of 24 with 12 in flight and others waiting: another domain holds 12 of the cap."""
    config = steady(24)
    limits = {**config.initial_limits, EMBEDDING: 12}
    shard.open(24, config=config.model_copy(update={"initial_limits": limits}))
    shard.heartbeat("m", LONG_TTL_SECONDS)
    Callers(shard, EMBEDDING).come(12)
    callers = Callers(shard)
    callers.come(100)
    assert (len(callers.held), callers.limit) == (12, 24)
    return callers


def test_domain_that_the_cap_holds_back_neither_grows_nor_earns(held_back: Callers) -> None:
    before = held_back.window
    for _ in range(200):
        assert held_back.serve() == 1
    changed = {name for name, value in held_back.window.items() if before[name] != value}
    assert changed == {"last_outcome"}


def test_domain_that_the_cap_holds_back_loses_at_most_a_quarter_a_refusal(
    held_back: Callers,
) -> None:
    assert held_back.refuse(0) == 1  # the cap has room again, and so has the window
    assert held_back.limit == 24 * 3 // 4
    assert held_back.refuse(0) == 1
    assert held_back.limit == 24 * 3 // 4  # the same congestion
    assert held_back.refuse(-1) == 1
    assert held_back.limit == 18 * 3 // 4


def test_total_refusal_of_a_domain_that_the_cap_holds_back_ends_in_a_cooldown(
    held_back: Callers,
) -> None:
    held_back.fall_to_the_first_cooldown(itertools.repeat(-1))
    assert held_back.refused_fresh <= 2 + 2 * math.log2(24)


def test_window_that_a_quota_holds_back_does_not_grow(shard: ScriptedShard) -> None:
    config = steady(8, successes_until_try=2)
    quotas = RequestQuotas(requests_per_minute=6, bursts={QuotaBudget.REQUESTS_PER_MINUTE: 6})
    callers = callers_of(shard, 64, config.model_copy(update={"quotas": quotas}))
    assert len(callers.held) == 6
    for _ in range(30):
        shard.advance(10.0)
        callers.settle()
        callers.serve()
    assert callers.limit == 8


def test_member_that_leaves_tells_the_window_nothing(shard: ScriptedShard) -> None:
    shard.open(64, "m", "n", config=steady(8))
    shard.heartbeat("m", LONG_TTL_SECONDS)
    callers = Callers(shard)
    callers.come(8, "n")
    callers.come(20)
    before = callers.window
    shard.batch("n", Leave())
    changed = {name for name, value in callers.window.items() if before[name] != value}
    assert changed <= {"last_outcome", "waiters"}
    assert callers.stored("in_flight") == 8
