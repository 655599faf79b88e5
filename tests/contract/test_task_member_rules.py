"""What becomes of tasks whose members die, leave and come anew, on both servers.

Rules: design 04; design 06.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
import redis

from tests.contract.pool_under_clock import (
    MODEL,
    OTHER,
    Pool,
    honest_pool,
    submission,
    task_of,
    tasks_of,
)
from tests.contract.shard_under_clock import SERVERS, START_US, TTL_US

ENDED_PER_CALL = 200


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", submission=1000)
        yield pool


def die(pool: Pool, *survivors: str) -> None:
    """Let the time of all members but these run out."""
    for _ in range(2):
        pool.pass_time(TTL_US / 2e6)
        for member in survivors:
            pool.beat(member)


def test_pool_goes_on_with_new_members_after_all_have_died(pool: Pool) -> None:
    pool.join("n")
    pool.submit_many("a", 3, MODEL, limit=2, weight=3)
    pool.ask("n", "serve", "f")
    pool.ask("m", "set_state", "draining")
    pool.admit(1)
    pool.admit(1, by="n")
    die(pool)
    pool.join("o")
    answer = pool.ask_for(9, by="o")

    assert [(lease[1], lease[6]) for lease in answer.leases] == [
        ("a0", "1"),
        ("a2", "1"),
    ]
    (group,) = pool.capture()["groups"]
    assert (group["weight"], group["admitted_limit"], pool.capture()["state"]) == (
        3,
        "2",
        "draining",
    )
    for kind in ("functions", "pushes"):
        assert not pool.client.exists(pool.keys[kind])
    for kind in ("members", "idle"):
        assert pool.client.zrange(pool.keys[kind], 0, -1) == [b"o"]
    kept = [name for name in pool.client.hkeys(pool.keys["meta"]) if name.startswith(b"@")]
    assert kept == [b"@o"]


def test_dead_member_is_woken_no_more(pool: Pool) -> None:
    pool.join("dead", "live")
    pool.listen_to_all()
    pool.admit(5, by="dead")
    pool.admit(1, by="live")
    die(pool, "m", "live")
    pool.submit("t")

    assert pool.told() == {"live": [["work"]]}


def test_death_of_a_member_wakes_another_for_its_tasks(pool: Pool) -> None:
    pool.join("dead", "live")
    pool.submit_many("t", 2)
    pool.admit(2, by="dead")
    pool.admit(2, by="live")
    pool.listen_to_all()
    die(pool, "m", "live")
    pool.admit(0)

    assert pool.told() == {"live": [["work"]]}


def test_as_many_idle_members_are_woken_as_the_ready_tasks_need(pool: Pool) -> None:
    """Those with the most free slots first."""
    pool.join("one", "two", "three")
    pool.listen_to_all()
    pool.ask("m", "set_state", "paused")
    for member, slots in (("one", 1), ("two", 2), ("three", 3)):
        pool.admit(slots, by=member)
    pool.submit_many("t", 4)
    assert pool.woken() == []
    pool.ask("m", "set_state", "")

    assert sorted(pool.woken()) == ["three", "two"]


def test_task_is_taken_from_nobody_who_lives(pool: Pool) -> None:
    pool.join("n")
    pool.submit_many("t", 2)
    kept = pool.admit(1)
    pool.admit(1, by="n")
    die(pool, "m")

    assert tasks_of(pool.admit(9)) == ["t1"]
    assert pool.finish(kept[0]) == "released"


@pytest.mark.parametrize("how", ["dies", "leaves"])
def test_member_with_more_leases_than_one_call_ends_is_ended_by_several(
    pool: Pool, how: str
) -> None:
    pool.join("large")
    tasks = ENDED_PER_CALL + 50
    pool.ask_all("m", *(submission(f"t{i}") for i in range(tasks)))
    pool.admit(tasks, by="large")
    if how == "leaves":
        ends = [pool.ask("large", "leave") for _ in range(2)]
        assert ends == [["leaving"], ["left"]]
    else:
        die(pool, "m")
        queued = []
        for _ in range(2):
            pool.admit(0)
            waiting = pool.count("queued") + pool.count("suspect_tasks")
            queued.append((waiting, pool.next_wake_us > START_US + TTL_US))
        assert queued == [(ENDED_PER_CALL, False), (tasks, True)]

    assert pool.count("queued" if how == "leaves" else "suspect_tasks") == tasks
    assert pool.client.zscore(pool.keys["members"], "large") is None


def test_member_that_left_is_a_member_no_more(pool: Pool) -> None:
    pool.join("n")
    pool.ask("n", "leave")
    pool.submit("t")
    with pytest.raises(redis.ResponseError, match="NOMEMBER"):
        pool.admit(1, by="n")

    assert tasks_of(pool.admit(1)) == ["t"]


@pytest.mark.parametrize("seed", range(4))
def test_every_task_ends_once_however_often_members_are_replaced(pool: Pool, seed: int) -> None:
    """No task ever runs twice at a time: the audit of each round would name its second lease."""
    chance = random.Random(seed)
    pool.configure(max_losses=100)
    for group, asks in (("a", MODEL), ("b", OTHER), ("c", "submission=1")):
        pool.submit_many(group, 12, asks, limit=2)
    living, born, held, ended = ["m"], 0, dict[str, str](), Counter[str]()
    for _ in range(200):
        if sum(ended.values()) == 36:
            break
        if len(living) < 3:
            living.append(f"new{born}")
            pool.join(living[-1])
            born += 1
        member = chance.choice(living)
        fate = chance.random()
        if fate < 0.15 and len(living) > 1:
            living.remove(member)
            if fate < 0.05:
                pool.ask(member, "leave")
            else:
                die(pool, *living)
        elif fate < 0.6:
            for lease in [lease for lease, holder in held.items() if holder == member][:2]:
                if pool.finish(lease, by=member) == "released":
                    ended[task_of(lease)] += 1
                del held[lease]
        else:
            held |= dict.fromkeys(pool.admit(chance.randrange(4), by=member), member)
        assert pool.audit().differences == ()

    assert (len(ended), set(ended.values())) == (36, {1})
    assert pool.count("queued") == pool.count("running") == pool.count("lost") == 0
