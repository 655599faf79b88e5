"""Design 07: what members and operators set is an event, also where it moves no cap or window."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.contracts.settings import (
    RequestAdmissionConfig,
    RequestAdmissionTuningConfig,
    RequestQuotas,
)
from tests.support_scripts import CHAT, EMBEDDING, Leave, Register, ScriptedShard
from tests.support_state import events, transitions

CHANGED = "request_setting_changed"
REGISTERED = "request_resource_registered"


def told(shard: ScriptedShard, kind: str) -> list[tuple[str, ...]]:
    """Return the fields of the events of a kind, in order."""
    return [event[2:] for event in transitions(shard.client, shard.keys)[0] if event[1] == kind]


def configured(**fields: Any) -> RequestAdmissionConfig:
    return RequestAdmissionConfig(**fields)


# -- caps


def test_changed_alias_cap_is_told_although_the_static_cap_stays(shard: ScriptedShard) -> None:
    shard.open(4, "m", "n")
    for cap in (9, 9, 6):
        assert shard.ask("n", Register("wide", cap)) == ["registered", 4]
    assert told(shard, REGISTERED) == [
        ("alias", "0", "4", "m"),
        ("wide", "0", "9", "n"),
        ("wide", "9", "6", "n"),
    ]
    assert told(shard, "request_effective_cap_changed") == [("0", "4")]


def test_alias_cap_of_two_members_is_told_of_the_one_that_changed_it(shard: ScriptedShard) -> None:
    shard.open(4, "m", "n")
    shard.batch("n", Register("alias", 4))
    shard.batch("n", Register("alias", 7))
    assert told(shard, REGISTERED)[1:] == [("alias", "0", "4", "n"), ("alias", "4", "7", "n")]


def test_alias_that_was_given_up_is_new_when_it_comes_again(shard: ScriptedShard) -> None:
    shard.open(4, "m", "n")
    shard.batch("m", Leave())
    shard.join("m2")
    shard.batch("m2", Register("alias", 4))
    assert told(shard, REGISTERED) == [("alias", "0", "4", "m"), ("alias", "0", "4", "m2")]


def test_override_is_told_once_for_each_change(shard: ScriptedShard) -> None:
    shard.open(4)
    for cap in ("9", "9", "2", "", "0"):
        shard.administer("override_cap", cap)
    assert told(shard, "request_override_cap_changed") == [("0", "9"), ("9", "2"), ("2", "0")]


# -- settings

TUNED = RequestAdmissionTuningConfig
HALVING = TUNED(multiplicative_decrease_factor=0.5)
OF_AIMD = {"multiplicative_decrease_factor", "additive_increase_step", "successes_until_increase"}
SETTINGS = [
    ({"tuning": TUNED(rule="aimd")}, "rule", "steady", "aimd"),
    ({"tuning": TUNED(successes_until_try=90)}, "successes_until_try", "150", "90"),
    ({"tuning": TUNED(round_successes=12)}, "round_successes", "24", "12"),
    ({"tuning": HALVING}, "multiplicative_decrease_factor", "0.75", "0.5"),
    ({"tuning": TUNED(additive_increase_step=3)}, "additive_increase_step", "1", "3"),
    ({"tuning": TUNED(successes_until_increase=7)}, "successes_until_increase", "25", "7"),
    ({"tuning": TUNED(cooldown_seconds=0.5)}, "cooldown_us", "2000000", "500000"),
    ({"tuning": TUNED(startup_ramp_seconds=1.5)}, "startup_ramp_us", "0", "1500000"),
    ({"max_cooldown_seconds": 60.0}, "max_cooldown_us", "300000000", "60000000"),
    ({"max_hold_seconds": 4.0}, "max_hold_us", "", "4000000"),
    ({"fair_by": "tokens"}, "fair_by", "requests", "tokens"),
    ({"initial_limits": {CHAT: 2}}, "initial_limit:chat", "", "2"),
    ({"max_limit_clamps": {EMBEDDING: 3}}, "max_limit_clamp:embedding", "", "3"),
    ({"quotas": RequestQuotas(requests_per_minute=60)}, "requests_per_minute", "", "60"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "name", "default", "value"), SETTINGS, ids=lambda v: str(v)[:30]
)
def test_each_changed_setting_is_told_with_its_member_and_both_values(
    shard: ScriptedShard, fields: dict[str, Any], name: str, default: str, value: str
) -> None:
    same_rule = TUNED(rule="aimd" if name in OF_AIMD else "steady")
    shard.open(4, "m", "n", config=configured(tuning=same_rule))
    before = told(shard, CHANGED)
    assert before == ([("rule", "steady", "aimd", "alias", "m")] if name in OF_AIMD else [])
    for _ in range(2):
        shard.batch("n", Register("mine", 9, configured(**fields)))
    assert told(shard, CHANGED) == [*before, (name, default, value, "mine", "n")]
    without = {"quotas": RequestQuotas()} if "quotas" in fields else {}
    shard.batch("m", Register("alias", 4, configured(tuning=same_rule, **without)))
    assert told(shard, CHANGED)[len(before) + 1 :] == [(name, value, default, "alias", "m")]


def test_budget_and_burst_are_told_apart(shard: ScriptedShard) -> None:
    shard.open(4, config=configured())
    for limit, burst in ((600, 20), (600, 30), (300, 30)):
        quotas = RequestQuotas(tokens_per_minute=limit, bursts={"tokens_per_minute": burst})
        shard.batch("m", Register("alias", 4, configured(quotas=quotas)))
    assert [event[:3] for event in told(shard, CHANGED)] == [
        ("tokens_per_minute", "", "600"),
        ("tokens_per_minute_burst", "", "20"),
        ("tokens_per_minute_burst", "20", "30"),
        ("tokens_per_minute", "600", "300"),
    ]


def test_registration_that_leaves_the_quotas_tells_nothing_of_them(shard: ScriptedShard) -> None:
    shard.open(4, config=configured(quotas=RequestQuotas(requests_per_day=10)))
    before = told(shard, CHANGED)
    shard.batch("m", Register("alias", 4, configured()))
    assert told(shard, CHANGED) == before == [("requests_per_day", "", "10", "alias", "m")]


def test_first_registration_tells_what_is_not_the_default(shard: ScriptedShard) -> None:
    shard.open(4, config=configured(tuning=TUNED(cooldown_seconds=0.25)))
    assert told(shard, CHANGED) == [("cooldown_us", "2000000", "250000", "alias", "m")]


def test_repeated_batch_tells_a_change_once(shard: ScriptedShard) -> None:
    shard.open(4, config=configured())
    change = Register("alias", 6, configured(fair_by="tokens"))
    for _ in range(2):
        shard.call("m", 2, change)
    assert len(told(shard, CHANGED)) == 1
    assert len(told(shard, REGISTERED)) == 2


def test_operator_who_reads_the_stream_finds_who_changed_what(shard: ScriptedShard) -> None:
    shard.open(4, config=configured())
    shard.batch("m", Register("alias", 6))
    (_name, fields) = events(shard.client, shard.keys)[-2]
    assert fields["kind"] == REGISTERED
    assert {name: fields[name] for name in ("alias", "from", "cap", "member_id")} == {
        "alias": "alias", "from": "4", "cap": "6", "member_id": "m"
    }  # fmt: skip
