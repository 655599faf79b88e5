"""Design 03, *Order*: who goes first, a pinned case per rule, and the bound on starvation."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.contracts.identity import RequestDomain
from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.settings import RequestAdmissionConfig
from tests.support_scripts import (
    CHAT,
    EMBEDDING,
    Acquire,
    Cancel,
    Register,
    Release,
    ScriptedShard,
    granted,
)
from tests.support_state import audited

LIMITED = Outcome.RATE_LIMITED
HOUR = 3600.0


def state(shard: ScriptedShard) -> dict[str, Any]:
    return audited(shard.client, shard.keys)


def acquire(shard: ScriptedShard, *ops: Acquire) -> list[str]:
    """Ask for each; return how each was answered."""
    return [result[0] for result in shard.batch("m", *ops).results]


def drain(shard: ScriptedShard, lease: str, count: int) -> list[str]:
    """Release the only lease, then each that was granted for it; return the order of grants."""
    order: list[str] = []
    for _ in range(count):
        (lease,) = granted(shard.batch("m", Release(lease)).notices)
        order.append(lease)
    return order


def test_groups_share_turns_by_weight(shard: ScriptedShard) -> None:
    shard.open(1)
    acquire(shard, Acquire("first", group="x"))
    acquire(shard, *(Acquire(f"h{i}", group="heavy", weight=3.0) for i in range(9)))
    acquire(shard, *(Acquire(f"l{i}", group="light") for i in range(3)))
    order = drain(shard, "first", 12)
    assert [sum(name[0] == "h" for name in order[i : i + 4]) for i in (0, 4, 8)] == [3, 3, 3]
    assert [name for name in order if name[0] == "h"] == [f"h{i}" for i in range(9)]


def test_equal_tags_go_by_earlier_place(shard: ScriptedShard) -> None:
    shard.open(1)
    acquire(shard, Acquire("first", group="x"))
    acquire(shard, *(Acquire(f"{g}{i}", group=g) for i in range(2) for g in "cab"))
    assert drain(shard, "first", 6) == ["c0", "a0", "b0", "c1", "a1", "b1"]


def test_group_that_left_the_line_takes_a_new_place(shard: ScriptedShard) -> None:
    shard.open(1)
    acquire(shard, Acquire("first", group="x"))
    acquire(shard, *(Acquire(f"{g}0", group=g) for g in "cab"))
    shard.batch("m", Cancel("c0"), Acquire("c1", group="c"))
    assert drain(shard, "first", 3) == ["a0", "b0", "c1"]


def test_virtual_time_follows_the_tag_and_never_goes_back(shard: ScriptedShard) -> None:
    shard.open(9)
    seen = []
    for i, (group, weight) in enumerate([("x", 1.0), ("g", 0.5), ("g", 0.5), ("x", 1.0)]):
        acquire(shard, Acquire(f"a{i}", group=group, weight=weight))
        after = state(shard)
        seen.append((after["virtual_time"], after["groups"][group][1]))
    assert seen == [(0.0, 1.0), (0.0, 2.0), (2.0, 4.0), (2.0, 3.0)]


def test_kept_tag_saves_at_most_one_turn(shard: ScriptedShard) -> None:
    shard.open(1)
    acquire(shard, Acquire("o", group="old"))
    shard.batch("m", Release("o"))
    for i in range(50):
        acquire(shard, Acquire(f"b{i}", group="busy"))
        if i < 49:
            shard.batch("m", Release(f"b{i}"))
    acquire(shard, *(Acquire(f"o{i}", group="old") for i in range(3)))
    acquire(shard, *(Acquire(f"x{i}", group="busy") for i in range(3)))
    assert drain(shard, "b49", 6) == ["o0", "x0", "o1", "x1", "o2", "x2"]


@pytest.mark.parametrize(("idle_us", "tag"), [(0, 2.0), (1, 1.0)])
def test_tag_is_forgotten_an_hour_after_the_group_became_idle(
    shard: ScriptedShard, idle_us: int, tag: float
) -> None:
    shard.open(1)
    shard.heartbeat("m", 10 * HOUR)
    acquire(shard, Acquire("first", group="x"), Acquire("a", group="g"))
    shard.batch("m", Release("first"))
    acquire(shard, Acquire("b", group="g"))
    shard.advance(2 * HOUR)
    shard.batch("m", Cancel("b"))
    shard.set_clock(shard.server_us + 3_600_000_000 + idle_us)
    shard.batch("m", Release("a"), Acquire("c", group="g"))
    assert state(shard)["groups"]["g"][1] == tag


def test_weight_is_the_one_set_last(shard: ScriptedShard) -> None:
    shard.open(1)
    acquire(shard, Acquire("first", group="x"), Acquire("a", group="g", weight=4.0))
    acquire(shard, Acquire("b", group="g", weight=2.0))
    shard.batch("m", Release("first"))
    assert state(shard)["groups"]["g"][:2] == (2.0, 0.5)


def test_within_a_group_first_come_goes_first_whatever_its_domain(shard: ScriptedShard) -> None:
    shard.open(1)
    acquire(shard, Acquire("first"))
    acquire(shard, Acquire("e", EMBEDDING), Acquire("c0"), Acquire("c1"))
    assert drain(shard, "first", 3) == ["e", "c0", "c1"]


def test_domains_of_one_group_share_its_tag(shard: ScriptedShard) -> None:
    shard.open(1)
    acquire(shard, Acquire("first", group="x"))
    wanted = [("g", CHAT), ("g", EMBEDDING), ("h", CHAT), ("h", RequestDomain.IMAGE)]
    acquire(shard, *(Acquire(f"{g}-{d}", d, g) for g, d in wanted))
    order = drain(shard, "first", 4)
    assert [name[0] for name in order] == ["g", "h", "g", "h"]


def test_try_acquire_never_overtakes(shard: ScriptedShard) -> None:
    shard.open(2, config=RequestAdmissionConfig(max_limit_clamps={CHAT: 1}))
    acquire(shard, Acquire("a"), Acquire("b"))
    assert shard.ask("m", Acquire("c", wait="try")) == ["denied", "queued_waiters_ahead", 0, 0]
    assert granted(shard.batch("m", Release("a"), Acquire("d", wait="try")).notices) == ["b"]


def test_try_acquire_without_room_and_waiters_is_no_capacity(shard: ScriptedShard) -> None:
    shard.open(1)
    acquire(shard, Acquire("a"))
    assert shard.ask("m", Acquire("b", wait="try")) == ["denied", "no_capacity", 0, 0]


def test_waiters_of_another_domain_are_not_ahead_of_try_acquire(shard: ScriptedShard) -> None:
    shard.open(1)
    acquire(shard, Acquire("a"), Acquire("waits", EMBEDDING))
    assert shard.ask("m", Acquire("b", wait="try")) == ["denied", "no_capacity", 0, 0]


def test_try_acquire_behind_waiters_of_a_cooldown_is_told_of_the_cooldown(
    shard: ScriptedShard,
) -> None:
    shard.open(2)
    acquire(shard, Acquire("a"))
    shard.batch("m", Release("a", LIMITED), Acquire("waits"))
    assert shard.ask("m", Acquire("b", wait="try"))[:2] == ["denied", "cooldown"]


def test_waiter_of_a_cooling_domain_holds_up_nobody_of_another(shard: ScriptedShard) -> None:
    shard.open(2)
    acquire(shard, Acquire("c"))
    shard.batch("m", Release("c", LIMITED), Acquire("waits"))
    assert acquire(shard, Acquire("e", EMBEDDING, wait="try")) == ["granted"]


def test_at_most_64_grants_a_call_and_nobody_slips_in_between(shard: ScriptedShard) -> None:
    shard.open(1)
    ids = [f"w{i:03}" for i in range(150)]
    acquire(shard, Acquire("a"), *map(Acquire, ids))
    reply = shard.batch("m", Register("alias", 200), Acquire("late", wait="try"))
    assert reply.results[1] == ["denied", "queued_waiters_ahead", 0, 0]
    assert reply.next_wake_us == reply.now_us
    rest = [granted(shard.batch("m").notices) for _ in range(3)]
    assert [granted(reply.notices), *rest] == [ids[:64], ids[64:128], ids[128:], []]


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    history=st.lists(st.sampled_from("wuv"), max_size=12),
    weights=st.lists(st.sampled_from(["1", "2", "3", "0.5", "7", "0.1"]), min_size=3, max_size=3),
    k=st.integers(1, 3),
)
def test_starvation_bound(
    shard: ScriptedShard, history: list[str], weights: list[str], k: int
) -> None:
    """While the k-th waiter of w may go, each u gets at most 1 + floor(k * u / w) grants."""
    shard.client.flushdb()
    shard.set_clock(shard.server_us)
    shard.open(1)
    weight = dict(zip("wuv", weights, strict=True))
    numbers = itertools.count()

    def ask(group: str) -> str:
        name = f"{group}{next(numbers)}"
        acquire(shard, Acquire(name, group=group, weight=float(weight[group])))
        return name

    for group in history:
        shard.batch("m", Release(ask(group)))
    holder = ask("u")
    for group in "uuvv":
        ask(group)
    kth = [ask("w") for _ in range(k)][-1]
    counts = {"u": 0, "v": 0, "w": 0}
    while holder != kth:
        (holder,) = granted(shard.batch("m", Release(holder)).notices)
        counts[holder[0]] += 1
        ask(holder[0])
    for group in "uv":
        assert counts[group] <= 1 + k * Fraction(weight[group]) // Fraction(weight["w"])
