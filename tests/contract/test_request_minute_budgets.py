"""Budgets by the minute that nobody tells (docs/window.md): what is promised of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.settings import RequestAdmissionConfig, RequestAdmissionTuningConfig
from forebay.contracts.snapshots import DomainSnapshot
from forebay.coordinator.requests.snapshots import decode_capture
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from tests.contract.callers_of_a_shard import Callers, callers_of, steady
from tests.support_scripts import CHAT, PROVIDER_MODEL, Acquire, Cancel, Register, ScriptedShard
from tests.support_state import MINUTE_FIELDS, events

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
CALL_US: Final = SECOND_US // 10
COOLDOWN_US: Final = 2 * SECOND_US
LEARNED, DROPPED = "request_minute_budget_learned", "request_minute_budget_dropped"


@pytest.fixture
def shard(redis_url: str) -> Iterator[ScriptedShard]:
    """A shard on a real server alone: these are many calls, which fakeredis makes slowly."""
    with open_sync(parse_url(redis_url)) as client:
        client.flushall()
        shard = ScriptedShard(client)
        yield shard
        shard.close()


@dataclass(slots=True)
class Fleet:
    """Callers of a provider that serves so many calls in each minute of its clock, or always.

    Attributes:
        budget: how many; None serves all.
        served: how many were served so far.
        refused: the instants of its refusals.
    """

    callers: Callers
    budget: int | None
    served: int = 0
    refused: list[int] = field(default_factory=list)
    _began_us: int = 0
    _used: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began_us = self.now_us

    @property
    def now_us(self) -> int:
        return self.callers.shard.server_us

    def pass_time(self, us: int) -> None:
        self.callers.shard.set_clock(self.now_us + us)
        self.callers.settle()

    def call(self) -> bool:
        """Let the oldest lease's call be answered; return whether it was served."""
        minute = (self.now_us - self._began_us) // MINUTE_US
        used = self._used.get(minute, 0)
        if self.budget is not None and used >= self.budget:
            self.refused.append(self.now_us)
            self.callers.refuse(0)
            return False
        self._used[minute] = used + 1
        self.served += 1
        self.callers.serve(0)
        return True

    def run(self, minutes: float) -> None:
        """Let calls be answered one after another, a tenth of a second each."""
        until_us = self.now_us + round(minutes * MINUTE_US)
        while self.now_us < until_us:
            if self.callers.held:
                self.call()
                self.pass_time(CALL_US)
            else:
                wait_us = self.callers.stored("blocked_until_us") - self.now_us
                self.pass_time(max(1, min(wait_us, until_us - self.now_us)))

    def learn(self) -> None:
        """Go on until the budget is learned: to the first call of the fifth minute."""
        self.run(4.1)
        assert self.callers.stored("periods") == 5

    def until_used(self, used: int) -> None:
        """Go on in this minute until so many of it are served."""
        while self.callers.stored("success") - self.callers.stored("served_at_opening") < used:
            self.call()

    def see(self) -> DomainSnapshot:
        return seen(self.callers.shard)


def seen(shard: ScriptedShard) -> DomainSnapshot:
    """Return a snapshot of the window."""
    capture = shard.run("requests/snapshot", shard.keys.all, [0])
    return decode_capture(PROVIDER_MODEL, capture).domains[CHAT]


def told(shard: ScriptedShard) -> list[tuple[str, ...]]:
    """Return what events say of the budget: learned or dropped, the number, and why."""
    said = (fields for _name, fields in events(shard.client, shard.keys))
    return [
        (fields["kind"].rpartition("_")[2], fields["budget"], fields["reason"])
        for fields in said
        if fields["kind"] in {LEARNED, DROPPED}
    ]


def fleet_of(shard: ScriptedShard, budget: int | None = 100, **tuning: Any) -> Fleet:
    return Fleet(callers_of(shard, 16, steady(8, **tuning), count=60), budget)


# -- learning


def test_budget_is_learned_after_three_alike_minutes(shard: ScriptedShard) -> None:
    fleet = fleet_of(shard)
    fleet.run(3.95)
    assert told(shard) == []
    fleet.run(0.2)
    assert told(shard) == [("learned", "100", "alike")]


def test_learned_budget_is_refused_once_a_minute(shard: ScriptedShard) -> None:
    fleet = fleet_of(shard)
    fleet.learn()
    fleet.run(0.9)
    fleet.served, before = 0, len(fleet.refused)
    fleet.run(6)
    assert (fleet.served, len(fleet.refused) - before) == (600, 6)
    assert told(shard) == [("learned", "100", "alike")]


def test_opening_that_a_long_call_finds_is_one(shard: ScriptedShard) -> None:
    """The call goes out as the minute ends, and is back long after."""
    fleet = fleet_of(shard)
    fleet.learn()
    fleet.run(0.85)
    fleet.pass_time(max(0, fleet.callers.stored("blocked_until_us") - fleet.now_us))
    assert len(fleet.callers.held) == 1
    fleet.pass_time(20 * SECOND_US)
    fleet.call()
    assert fleet.callers.stored("opened_us") == fleet.now_us - 20 * SECOND_US
    assert (fleet.callers.stored("periods"), fleet.callers.stored("budget")) == (5, 100)


def test_budget_that_opens_bit_by_bit_has_one_opening(shard: ScriptedShard) -> None:
    """As in a sliding minute: the first call of a minute is served, the next one is refused."""
    fleet = fleet_of(shard)
    fleet.learn()
    fleet.run(0.85)
    fleet.pass_time(max(0, fleet.callers.stored("blocked_until_us") - fleet.now_us))
    fleet.call()
    opened_us = fleet.callers.stored("opened_us")
    while fleet.callers.held:
        fleet.callers.refuse(0)
    fleet.callers.wait_out_the_cooldown()
    fleet.call()
    assert fleet.callers.stored("opened_us") == opened_us
    assert fleet.callers.stored("periods") == 5


def test_other_number_in_a_minute_is_learned_anew(shard: ScriptedShard) -> None:
    fleet = fleet_of(shard)
    fleet.learn()
    fleet.run(0.9)
    fleet.budget = 60
    fleet.run(5)
    assert told(shard) == [
        ("learned", "100", "alike"),
        ("dropped", "100", "uneven"),
        ("learned", "60", "alike"),
    ]


def test_few_more_or_less_in_a_minute_are_the_same_budget(shard: ScriptedShard) -> None:
    fleet = fleet_of(shard)
    fleet.learn()
    fleet.run(0.9)
    before = len(fleet.refused)
    for budget in (104, 98, 103, 100):
        fleet.budget = budget
        fleet.run(1)
    assert told(shard) == [("learned", "100", "alike")]
    assert len(fleet.refused) - before <= 4 * 4


@pytest.mark.parametrize("used", [7, 8])
def test_few_in_a_minute_are_no_budget(shard: ScriptedShard, used: int) -> None:
    fleet = fleet_of(shard, used)
    fleet.run(5)
    assert bool(told(shard)) == (used >= 8)


# -- what a learned budget does


def test_calls_in_flight_end_at_the_budget_and_one_goes_beyond_it_alone(
    shard: ScriptedShard,
) -> None:
    fleet = fleet_of(shard)
    fleet.learn()
    out = len(fleet.callers.held)
    while fleet.callers.stored("success") - fleet.callers.stored("served_at_opening") + out < 100:
        fleet.call()
        out = len(fleet.callers.held)
    assert out > 1
    for left in range(out - 1, 0, -1):
        fleet.call()
        assert len(fleet.callers.held) == left
    fleet.call()
    assert len(fleet.callers.held) == 1
    assert not fleet.call()
    assert len(fleet.callers.held) == 0


@pytest.mark.parametrize("fewer", [1, 3, 8])
def test_minute_that_is_used_up_early_refuses_those_in_flight_and_three_more(
    shard: ScriptedShard, fewer: int
) -> None:
    """Nobody takes the places of the refused, although budget is left: no storm of refusals."""
    fleet = fleet_of(shard)
    fleet.learn()
    fleet.budget = 100 - fewer
    while fleet.call():
        pass
    before, out = len(fleet.refused), len(fleet.callers.held)
    while not fleet.callers.is_cooling:
        fleet.call()
    assert len(fleet.refused) - before <= out + 2
    assert fleet.callers.stored("blocked_until_us") > fleet.now_us + COOLDOWN_US
    assert told(shard) == [("learned", "100", "alike")]


def test_refusal_beyond_the_budget_waits_for_the_end_of_the_minute(shard: ScriptedShard) -> None:
    fleet = fleet_of(shard)
    fleet.learn()
    opened_us = fleet.callers.stored("opened_us")
    while fleet.call():
        pass
    assert fleet.callers.stored("blocked_until_us") == opened_us + MINUTE_US
    assert fleet.callers.settle() == 0
    shard.set_clock(opened_us + MINUTE_US)
    assert fleet.callers.settle() == 1


def test_total_refusal_well_below_the_budget_is_probed_as_ever(shard: ScriptedShard) -> None:
    fleet = fleet_of(shard)
    fleet.learn()
    fleet.until_used(80)
    while fleet.callers.held:
        fleet.callers.refuse(0)
    assert fleet.callers.stored("blocked_until_us") == fleet.now_us + COOLDOWN_US


def test_wait_for_the_end_of_the_minute_is_no_longer_than_the_longest_cooldown(
    shard: ScriptedShard,
) -> None:
    fleet = fleet_of(shard)
    fleet.learn()
    tuning = steady(8).model_copy(update={"max_cooldown_seconds": 7.0})
    shard.batch("m", Register("alias", 16, tuning))
    while fleet.call():
        pass
    assert fleet.callers.stored("blocked_until_us") == fleet.now_us + 7 * SECOND_US


def test_waiter_is_woken_when_the_minute_ends(shard: ScriptedShard) -> None:
    """Also while calls of the minute before are out, which no call's end announces."""
    fleet = fleet_of(shard)
    fleet.learn()
    fleet.until_used(95)
    wake_us = shard.batch("m").next_wake_us
    end_us = fleet.callers.stored("opened_us") + MINUTE_US
    assert fleet.now_us < wake_us <= end_us
    assert fleet.callers.settle() == 0
    shard.heartbeat("m", 3600.0)
    shard.set_clock(end_us - 1)
    assert fleet.callers.settle() == 0
    shard.set_clock(end_us)
    assert fleet.callers.settle() > 0


# -- dropping


def test_budget_is_dropped_after_three_that_were_served_beyond_it(shard: ScriptedShard) -> None:
    fleet = fleet_of(shard)
    fleet.learn()
    fleet.budget = None
    fleet.run(0.4)
    assert told(shard) == [("learned", "100", "alike"), ("dropped", "106", "exceeded")]
    assert len(fleet.callers.held) == fleet.callers.limit > 1


def test_budget_that_minutes_do_not_use_up_expires(shard: ScriptedShard) -> None:
    fleet = fleet_of(shard)
    fleet.learn()
    while fleet.callers.held:
        fleet.callers.end(0, Outcome.LOCAL_CANCELLED, again=False)
    for minute in range(3):
        fleet.callers.come(1)  # a window is looked at when somebody asks
        assert told(shard) == [("learned", "100", "alike")], minute
        fleet.callers.end(0, Outcome.LOCAL_CANCELLED, again=False)
        fleet.pass_time(MINUTE_US)
    fleet.callers.come(1)
    assert told(shard) == [("learned", "100", "alike"), ("dropped", "100", "unused")]


def test_outages_on_the_beat_are_no_budget_before_the_fourth(shard: ScriptedShard) -> None:
    """Two or three that come a minute apart never suffice, however alike the minutes were."""
    fleet = fleet_of(shard, None)
    for _ in range(3):
        fleet.run(0.9)
        end_us = fleet.now_us + MINUTE_US // 10
        while fleet.now_us < end_us:
            while fleet.callers.held:
                fleet.callers.refuse(0)
            fleet.pass_time(min(COOLDOWN_US, end_us - fleet.now_us))
    fleet.run(3)
    assert told(shard) == []


def test_reset_window_knows_of_no_budget(shard: ScriptedShard) -> None:
    fleet = fleet_of(shard)
    fleet.learn()
    shard.administer("reset_window", "chat")
    assert told(shard) == [("learned", "100", "alike"), ("dropped", "100", "reset")]
    assert [fleet.callers.stored(name) for name in MINUTE_FIELDS] == [0, 0, 0, 0, 0]


def test_rule_aimd_obeys_no_budget(shard: ScriptedShard) -> None:
    fleet = fleet_of(shard)
    fleet.learn()
    aimd = RequestAdmissionConfig(tuning=RequestAdmissionTuningConfig(rule="aimd"))
    shard.batch("m", Register("alias", 16, aimd))
    fleet.until_used(99)
    assert len(fleet.callers.held) == fleet.callers.limit > 1


# -- what operators see


def test_snapshot_says_the_budget_what_is_used_and_when_the_minute_ends(
    shard: ScriptedShard,
) -> None:
    fleet = fleet_of(shard)
    fleet.run(3)
    before = fleet.see()
    assert (before.minute_budget, before.minute_served, before.minute_ends_at) == (None, 0, None)
    fleet.run(1.1)
    fleet.until_used(70)
    during = fleet.see()
    end_us = fleet.callers.stored("opened_us") + MINUTE_US
    found = (during.minute_budget, during.minute_served, during.minute_ends_at)
    assert found == (100, 70, end_us / 1e6)


def test_show_says_why_it_waits_and_until_when(shard: ScriptedShard) -> None:
    fleet = fleet_of(shard)
    fleet.learn()
    fleet.until_used(99)
    out = len(fleet.callers.held)
    left_us = fleet.callers.stored("opened_us") + MINUTE_US - fleet.now_us
    left = f"{left_us / 1e6:.1f} s"
    assert out == 1
    assert fleet.see().outlook == f"lets 1 calls end, which use up the minute ({left} left)"
    while fleet.call():
        pass
    outlook = f"waits {left}: 100 of about 100 a minute are served"
    assert fleet.see().outlook == outlook
    lines = [line.decode() for line in shard.run("requests/look", shard.keys.all, ["show", 100])]
    assert any(outlook in line for line in lines)
    titles = next(line for line in lines if "served in a minute" in line)
    assert titles.split("  ")[0] == "domain"
    row = lines[lines.index(titles) + 1].split()
    assert row[:3] == ["chat", "100", "100"]


def test_denial_while_the_minute_is_used_up_says_when_it_ends(shard: ScriptedShard) -> None:
    fleet = fleet_of(shard)
    fleet.learn()
    fleet.until_used(97)
    assert not fleet.callers.is_cooling
    left_us = fleet.callers.stored("opened_us") + MINUTE_US - fleet.now_us
    until = [fleet.now_us + left_us, left_us]
    assert shard.ask("m", Acquire("late", CHAT, wait=0.0)) == ["denied", "queue_timeout", *until]
    behind = shard.ask("m", Acquire("behind", CHAT, wait="try"))
    assert behind == ["denied", "queued_waiters_ahead", *until]
    held = {lease.lease_id for lease in fleet.callers.held}
    asked = (f"{CHAT}{number}" for number in range(1, fleet.callers.asked + 1))
    shard.batch("m", *(Cancel(attempt_id) for attempt_id in asked if attempt_id not in held))
    alone = shard.ask("m", Acquire("alone", CHAT, wait="try"))
    assert alone == ["denied", "no_capacity", *until]


@pytest.mark.parametrize("outcome", [Outcome.LOCAL_CANCELLED, Outcome.PROVIDER_FAILURE])
def test_call_beyond_the_budget_that_tells_nothing_is_followed_by_another(
    shard: ScriptedShard, outcome: Outcome
) -> None:
    fleet = fleet_of(shard)
    fleet.learn()
    fleet.until_used(100)
    assert len(fleet.callers.held) == 1
    assert fleet.callers.end(0, outcome) == 1
