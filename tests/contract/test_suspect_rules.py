"""Members to whom nobody listens (design 06, *Members*): a pinned case per rule, TTL 15 s."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.settings import RequestAdmissionConfig, RequestQuotas
from tests.contract.pool_under_clock import Pool, open_pool
from tests.contract.shard_under_clock import SERVERS
from tests.support_scripts import (
    DEAF_KEY,
    EMBEDDING,
    Acquire,
    Cancel,
    Release,
    ScriptedShard,
    State,
    Sweep,
    granted,
)
from tests.support_state import audited

INTERVAL = 5.0


def fall_deaf(of: Any, *members: str) -> None:
    of.client.sadd(DEAF_KEY, *members)


def listen_again(of: Any, *members: str) -> None:
    of.client.srem(DEAF_KEY, *members)


def state(shard: ScriptedShard) -> dict[str, Any]:
    return audited(shard.client, shard.keys)


def wait_in_order(shard: ScriptedShard, *waits: tuple[str, str]) -> None:
    """Fill a cap of 1 by the last member, then let members wait, each in a group of its name."""
    shard.open(1, "dead", "m", "n")
    shard.batch("n", Acquire("first"))
    for member, attempt_id in waits:
        shard.batch(member, Acquire(attempt_id, group=f"of {attempt_id}"))


# -- grants


def test_waiter_of_a_suspect_is_not_chosen(shard: ScriptedShard) -> None:
    wait_in_order(shard, ("dead", "a"), ("m", "b"))
    fall_deaf(shard, "dead")
    shard.batch("n", Release("first"))
    assert {who: granted(told) for who, told in shard.pushed.items()} == {"m": ["b"]}
    assert state(shard)["suspects"] == {"dead": shard.server_us}
    assert set(state(shard)["waiters"]) == {"a"}


def test_suspect_that_calls_stands_where_it_stood(shard: ScriptedShard) -> None:
    wait_in_order(shard, ("dead", "a"), ("m", "b"), ("m", "c"))
    fall_deaf(shard, "dead")
    shard.batch("n", Release("first"))
    assert shard.ask("dead", State("a")) == ["waiting"]
    listen_again(shard, "dead")
    shard.batch("m", Release("b"))
    assert granted(shard.pushed["dead"]) == ["a"]
    assert state(shard)["suspects"] == {}


def test_suspect_whose_heartbeat_comes_stands_where_it_stood(shard: ScriptedShard) -> None:
    wait_in_order(shard, ("dead", "a"), ("m", "b"), ("m", "c"))
    fall_deaf(shard, "dead")
    shard.batch("n", Release("first"))
    shard.heartbeat("dead")
    listen_again(shard, "dead")
    shard.batch("m", Release("b"))
    assert granted(shard.pushed["dead"]) == ["a"]


def test_suspect_is_given_what_is_free_in_its_own_call(shard: ScriptedShard) -> None:
    """Its reply tells it."""
    wait_in_order(shard, ("dead", "a"))
    fall_deaf(shard, "dead")
    shard.batch("n", Release("first"))
    assert granted(shard.batch("dead").notices) == ["a"]


def test_waiters_of_a_suspect_keep_their_order_within_a_group(shard: ScriptedShard) -> None:
    shard.open(1, "dead", "m", "n")
    shard.batch("n", Acquire("first"))
    for member, attempt_id in (("dead", "a"), ("m", "b"), ("dead", "c"), ("m", "d")):
        shard.batch(member, Acquire(attempt_id))
    fall_deaf(shard, "dead")
    shard.batch("n", Release("first"))
    assert granted(shard.pushed["m"]) == ["b"]
    shard.heartbeat("dead")
    listen_again(shard, "dead")
    order = []
    for member, lease in (("m", "b"), ("dead", "a"), ("dead", "c")):
        order += granted(shard.batch(member, Release(lease)).notices)
        order += [name for told in shard.pushed.values() for name in granted(told)]
    assert order == ["a", "c", "d"]


def test_quota_is_not_kept_for_a_suspect(shard: ScriptedShard) -> None:
    config = RequestAdmissionConfig(
        quotas=RequestQuotas(tokens_per_minute=600, bursts={"tokens_per_minute": 20})
    )
    shard.open(8, "dead", "m", config=config)
    shard.batch("m", Acquire("first", cost=15))
    shard.batch("dead", Acquire("large", group="g", cost=20))
    fall_deaf(shard, "dead")
    assert shard.ask("m", Acquire("small", group="h", cost=5))[0] == "granted"


def test_cancelled_waiter_of_a_suspect_is_gone(shard: ScriptedShard) -> None:
    wait_in_order(shard, ("dead", "a"))
    fall_deaf(shard, "dead")
    shard.batch("n", Release("first"))
    assert state(shard)["suspects"]
    assert shard.ask("dead", Cancel("a"))[0] in {"cancelled", "released"}
    assert state(shard)["waiters"] == {}


def test_deadline_of_a_suspects_waiter_counts(shard: ScriptedShard) -> None:
    shard.open(1, "dead", "m")
    shard.batch("m", Acquire("first"))
    shard.batch("dead", Acquire("a", wait=2.0))
    fall_deaf(shard, "dead")
    shard.batch("m", Release("first"))
    shard.advance(3.0)
    shard.batch("m")
    assert shard.pushed["dead"][0][:3] == ["denied", "a", "queue_timeout"]
    assert state(shard)["waiters"] == {}


def test_more_waiters_of_a_suspect_than_a_call_moves_hold_up_nobody_for_long(
    shard: ScriptedShard,
) -> None:
    shard.open(1, "dead", "m")
    shard.batch("m", Acquire("first"))
    for i in range(450):
        shard.batch("dead", Acquire(f"w{i}", group=f"g{i}"))
    shard.batch("m", Acquire("last", group="mine"))
    fall_deaf(shard, "dead")
    reply = shard.batch("m", Release("first"))
    calls = 1
    while not granted(reply.notices):
        assert reply.next_wake_us == reply.now_us  # the rest goes on at once
        reply = shard.batch("m")
        calls += 1
    assert (granted(reply.notices), calls) == (["last"], 3)
    listen_again(shard, "dead")
    for _ in range(4):
        shard.batch("dead")
    shard.batch("m", Release("last"))
    assert granted(shard.pushed["dead"]) == ["w0"]
    state(shard)


# -- early expiry


def test_suspect_is_expired_after_one_interval_and_not_before(shard: ScriptedShard) -> None:
    shard.open(2, "m", "dead")
    shard.batch("dead", Acquire("a"))
    fall_deaf(shard, "dead")
    shard.advance(INTERVAL)
    shard.heartbeat("m")
    shard.batch("m")  # its heartbeat is an interval old: it is looked at, and nobody listens
    assert state(shard)["suspects"] == {"dead": shard.server_us}
    shard.advance(INTERVAL - 0.000_001)
    shard.heartbeat("m")
    shard.batch("m")
    assert set(state(shard)["leases"]) == {"a"}
    shard.advance(0.000_001)
    shard.batch("m")
    assert (state(shard)["leases"], set(state(shard)["members"])) == ({}, {"m"})


def test_member_that_is_listened_to_is_expired_at_its_ttl(shard: ScriptedShard) -> None:
    """As one that was stopped: its sockets are open."""
    shard.open(2, "m", "stopped")
    shard.batch("stopped", Acquire("a"))
    for _ in range(2):
        shard.advance(INTERVAL)
        shard.heartbeat("m")
        shard.batch("m")
        assert set(state(shard)["leases"]) == {"a"}
    shard.advance(INTERVAL)
    shard.batch("m")
    assert set(state(shard)["leases"]) == set()


def test_suspect_that_is_heard_of_within_its_interval_keeps_its_leases(
    shard: ScriptedShard,
) -> None:
    shard.open(2, "m", "n")
    shard.batch("n", Acquire("a"))
    fall_deaf(shard, "n")
    for _ in range(6):
        shard.advance(INTERVAL - 1)
        shard.heartbeat("m")
        shard.heartbeat("n")
        shard.batch("m")
    assert set(state(shard)["leases"]) == {"a"}


def test_suspect_that_listens_again_when_its_interval_ends_keeps_its_leases(
    shard: ScriptedShard,
) -> None:
    shard.open(2, "m", "n")
    shard.batch("n", Acquire("a"))
    fall_deaf(shard, "n")
    for _ in range(2):
        shard.advance(INTERVAL)
        shard.heartbeat("m")
        listen_again(shard, *(["n"] if state(shard)["suspects"] else ["none"]))
        shard.batch("m")
    assert set(state(shard)["leases"]) == {"a"}
    assert state(shard)["suspects"] == {}


def test_nobody_is_expired_early_where_the_shard_heard_nobody(shard: ScriptedShard) -> None:
    """The server's own network was away for 6 s, and took the connections one by one."""
    shard.open(4, "m", "n", "o")
    shard.batch("n", Acquire("a"))
    shard.batch("o", Acquire("b"), Acquire("c"), Acquire("d"), Acquire("e"))
    fall_deaf(shard, "n", "o")
    shard.batch("m", Acquire("f"))
    shard.batch("n", Release("a"))
    fall_deaf(shard, "m")
    shard.advance(6.0)
    shard.batch("m")
    assert set(state(shard)["members"]) == {"m", "n", "o"}
    shard.batch("o")
    assert {"b", "c", "d"} <= set(state(shard)["leases"])


def cut_off_all(shard: ScriptedShard) -> None:
    """Cut one after the other off: "n" is a suspect when "m" calls for the last time."""
    shard.open(2, "m", "n")
    shard.batch("n", Acquire("held"))
    shard.batch("m", Acquire("first"))
    shard.batch("n", Acquire("a"))
    fall_deaf(shard, "n")
    shard.batch("m", Release("first"))
    assert state(shard)["suspects"] == {"n": shard.server_us}
    fall_deaf(shard, "m")


def expect_gone_after_an_interval(shard: ScriptedShard) -> None:
    """The members that are back are heard of from now on; "n" is not."""
    shard.batch("m")
    shard.advance(INTERVAL - 0.000_001)
    shard.batch("m")
    assert set(state(shard)["leases"]) == {"held"}
    shard.advance(0.000_001)
    shard.batch("m")
    assert "n" not in state(shard)["members"]


@pytest.mark.parametrize("first", ["heartbeat", "join", "operator"])
def test_silence_counts_whoever_is_heard_of_first_after_it(
    shard: ScriptedShard, first: str
) -> None:
    """Each has connections of its own, and they come back one by one."""
    cut_off_all(shard)
    shard.advance(6.0)
    match first:
        case "heartbeat":
            shard.heartbeat("m")
        case "join":
            shard.join("o")
        case "operator":
            shard.administer("settle")
    listen_again(shard, "m")
    expect_gone_after_an_interval(shard)


def test_nobody_is_expired_early_at_the_call_of_a_member_that_nobody_listens_to(
    shard: ScriptedShard,
) -> None:
    """It was cut off itself, though for hardly longer than members are silent."""
    cut_off_all(shard)
    shard.advance(INTERVAL + 0.2)
    shard.batch("m")
    listen_again(shard, "m")
    expect_gone_after_an_interval(shard)


def test_suspect_that_is_found_listening_stands_where_it_stood_at_once(
    shard: ScriptedShard,
) -> None:
    """In the call that finds it so, before anything is granted."""
    wait_in_order(shard, ("dead", "a"), ("m", "b"), ("m", "c"))
    fall_deaf(shard, "dead")
    shard.batch("n", Release("first"))
    for _ in range(2):
        shard.advance(INTERVAL / 2)
        shard.beat_all("m", "n")
    listen_again(shard, "dead")
    shard.batch("m", Release("b"))
    assert granted(shard.pushed["dead"]) == ["a"]


def test_each_of_several_dead_members_is_expired_early(shard: ScriptedShard) -> None:
    names = [f"m{i}" for i in range(10)]
    shard.open(10, *names)
    for name in names:
        shard.batch(name, Acquire(f"of {name}"))
    fall_deaf(shard, *names[7:])
    for _ in range(2):
        shard.advance(INTERVAL)
        for name in names[:7]:
            shard.heartbeat(name)
            shard.batch(name)
    assert set(state(shard)["members"]) == set(names[:7])


@pytest.mark.parametrize(("count", "expected"), [(8, 0.0), (9, 0.625)])
def test_members_of_a_large_fleet_do_not_wake_for_each_look(
    shard: ScriptedShard, count: int, expected: float
) -> None:
    """Where there are many, somebody calls soon in any case."""
    shard.open(1, *(f"m{i}" for i in range(count)))
    shard.batch("m0", Acquire("a"))
    shard.advance(INTERVAL)
    reply = shard.batch("m1", Acquire("b"))
    shard.advance(INTERVAL - 0.1)
    reply = shard.batch("m1")
    assert reply.next_wake_us == reply.now_us + round((expected or 0.1) * 1e6)


def test_sweep_says_when_to_look_next_while_anything_is_held(shard: ScriptedShard) -> None:
    shard.open(2, "m", "dead")
    assert shard.ask("m", Sweep())[:2] == ["swept", None]
    shard.batch("dead", Acquire("a"))
    fall_deaf(shard, "dead")
    seconds = []
    while "dead" in state(shard)["members"]:
        (word, left_us, _memory) = shard.ask("m", Sweep())
        seconds.append(left_us / 1e6)
        shard.advance(left_us / 1e6)
        shard.heartbeat("m")
        shard.batch("m")
    assert (word, seconds) == ("swept", [INTERVAL, INTERVAL])


def test_silent_member_is_looked_at_once_an_interval(shard: ScriptedShard) -> None:
    shard.open(2, "m", "n")
    shard.heartbeat("m", 60.0)
    shard.advance(INTERVAL)
    shard.batch("m")
    looked_at = state(shard)["checks"]["n"]
    assert looked_at == shard.server_us + 5_000_000
    shard.advance(INTERVAL - 1)
    shard.batch("m")
    assert state(shard)["checks"]["n"] == looked_at


def test_suspect_that_leaves_leaves_nothing(shard: ScriptedShard) -> None:
    wait_in_order(shard, ("dead", "a"))
    fall_deaf(shard, "dead")
    shard.batch("n", Release("first"), Acquire("b", EMBEDDING))
    shard.advance(2 * INTERVAL)
    shard.beat_all("m", "n", ttl_seconds=60.0)
    shard.batch("n")
    shard.advance(0.1)
    shard.batch("n")
    assert "dead" not in state(shard)["members"]
    assert shard.stored_keys() & {"aside", "suspects", "waiters"} == set()


# -- deadlines (design 03, *Order*)


def test_deadline_that_has_passed_is_served_before_anything_is_granted(
    shard: ScriptedShard,
) -> None:
    shard.open(1, "m")
    shard.heartbeat("m", 99.0)
    shard.batch("m", Acquire("a"))
    shard.batch("m", Release("a", Outcome.RATE_LIMITED, 5.0))
    shard.batch("m", Acquire("w", wait=1.0))
    shard.advance(6.0)
    (notice,) = shard.batch("m").notices
    assert notice[:3] == ["denied", "w", "queue_timeout"]


def test_grant_wins_at_the_very_instant_of_the_deadline(shard: ScriptedShard) -> None:
    shard.open(1, "m")
    shard.heartbeat("m", 99.0)
    shard.batch("m", Acquire("a"))
    shard.batch("m", Release("a", Outcome.RATE_LIMITED, 1.0))
    shard.batch("m", Acquire("w", wait=1.0))
    shard.advance(1.0)
    assert granted(shard.batch("m").notices) == ["w"]


def test_newcomer_goes_before_nobody_whose_deadline_is_left_to_the_next_call(
    shard: ScriptedShard,
) -> None:
    """More deadlines have passed than one call serves: none of the others is granted meanwhile."""
    shard.open(1, "m")
    shard.heartbeat("m", 99.0)
    shard.batch("m", Acquire("a"))
    shard.batch("m", Release("a", Outcome.RATE_LIMITED, 5.0))
    shard.batch("m", *(Acquire(f"w{i}", wait=1.0) for i in range(100)))
    shard.advance(6.0)
    reply = shard.batch("m")
    assert [notice[0] for notice in reply.notices] == ["denied"] * 64
    assert reply.next_wake_us <= reply.now_us
    assert [notice[0] for notice in shard.batch("m").notices] == ["denied"] * 36
    assert shard.ask("m", Acquire("new"))[0] == "granted"


# -- pools


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in open_pool(request):
        yield pool
        assert pool.audit().differences == ()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("seen", ["", 0])
def test_ready_task_wakes_no_suspect(pool: Pool, count: int, seen: object) -> None:
    pool.open("m", "dead", "n")
    pool.ask_for(9, "dead", seen=seen)
    pool.ask_for(1, "n", seen=seen)
    pool.listen_to_all()
    fall_deaf(pool, "dead")
    for i in range(count):
        pool.submit(f"t{i}")
    assert set(pool.told()) == {"n"}


def test_suspects_tasks_go_back_after_an_interval(pool: Pool) -> None:
    pool.open("m", "dead")
    pool.submit("t")
    assert pool.admit(1, by="dead") == ["t~1"]
    fall_deaf(pool, "dead")
    for _ in range(2):
        pool.pass_time(INTERVAL)
        pool.beat("m")
        found = pool.admit(1)
    assert found == ["t~2"]
    pool.finish("t~2")


def test_suspect_of_a_pool_that_asks_is_one_no_more(pool: Pool) -> None:
    pool.open("m", "late")
    pool.submit("t")
    assert pool.admit(1, by="late") == ["t~1"]
    fall_deaf(pool, "late")
    for _ in range(4):
        pool.pass_time(INTERVAL - 1)
        pool.beat("m")
        pool.ask_for(0, "m")
        pool.ask_for(0, "late")
        pool.beat("late")
    assert pool.finish("t~1", by="late") == "released"
