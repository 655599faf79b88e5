"""What is kept for a large task, a pinned case per rule on both servers (design 04, ADR 0009)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.pool_under_clock import (
    GPU,
    MODEL,
    ONE,
    OTHER,
    THREE_GPUS,
    Pool,
    honest_pool,
    task_of,
    tasks_of,
)
from tests.contract.shard_under_clock import SECOND_US, SERVERS


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", gpu=4)
        yield pool


def stream(pool: Pool) -> list[str]:
    """Let small tasks take all there is, with more of them behind; return the leases."""
    pool.submit_many("small", 20, GPU)
    return pool.admit(4)


@pytest.mark.parametrize(("after_us", "seconds"), [(0, 5), (SECOND_US, 1)])
def test_large_task_gets_what_comes_free_once_it_has_stood_first_long_enough(
    pool: Pool, after_us: int, seconds: int
) -> None:
    pool.configure(reserve_after_us=after_us)
    leases = stream(pool)
    pool.submit_many("large", 1, THREE_GPUS)
    pool.pass_time(seconds - 0.000001)
    pool.finish(leases[0])
    assert tasks_of(pool.admit(1)) == ["small4"]
    pool.pass_time(0.000001)
    for lease in leases[1:3]:
        pool.finish(lease)
        assert pool.admit(1) == []
    assert pool.reasons() == {"no_capacity": 1, "reserved": 1}

    assert tasks_of(pool.finish_and_admit(leases[3], 9)) == ["large0"]


def test_what_is_left_beside_a_large_task_goes_to_others_at_once(pool: Pool) -> None:
    leases = stream(pool)
    pool.submit_many("large", 1, THREE_GPUS)
    pool.pass_time(5)
    finishes = [("finish", lease, b"", "", "") for lease in leases]
    *_released, admitted = pool.ask_all("m", *finishes, ("admit", 9, 60_000, "", ""))

    assert [lease[1] for lease in admitted[1]] == ["large0", "small4"]


def test_what_a_large_task_does_not_lack_stays_free(pool: Pool) -> None:
    pool.submit_many("busy", 4, MODEL)
    (lease, *_others) = pool.admit(4)
    pool.submit_many("large", 1, "gpu=3,request:p/m=1,submission=1")
    pool.pass_time(5)
    pool.submit_many("small", 3, GPU)

    assert tasks_of(pool.admit(9)) == ["small0"]
    assert pool.reasons() == {"no_capacity": 1, "reserved": 1}
    pool.finish(lease)
    assert tasks_of(pool.admit(1)) == ["large0"]


def test_resources_that_a_large_task_does_not_ask_for_are_not_kept(pool: Pool) -> None:
    stream(pool)
    pool.submit_many("large", 1, THREE_GPUS)
    pool.pass_time(5)
    pool.submit_many("other", 9, MODEL)

    assert len(pool.admit(9)) == 4


def test_nothing_is_kept_for_the_second_in_order(pool: Pool) -> None:
    pool.submit_many("typed", 9, MODEL)
    pool.submit_many("small", 9, GPU)
    leases = pool.admit(8)
    pool.submit_many("large", 1, THREE_GPUS)
    pool.submit_many("second", 1, "request:p/m=4,submission=1")
    pool.pass_time(5)
    for lease in leases[:4]:
        pool.finish(lease)

    assert tasks_of(pool.admit(9)) == ["typed4", "typed5"]


def test_time_counts_from_when_a_task_stands_first(pool: Pool) -> None:
    leases = stream(pool)
    pool.submit_many("large", 2, THREE_GPUS)
    pool.pass_time(4)
    pool.discard("large0")
    pool.pass_time(4)
    pool.finish(leases[0])
    assert tasks_of(pool.admit(1)) == ["small4"]
    pool.pass_time(1)
    pool.finish(leases[1])

    assert pool.admit(1) == []


def test_nothing_is_kept_once_the_task_is_gone(pool: Pool) -> None:
    leases = stream(pool)
    pool.submit_many("large", 1, THREE_GPUS)
    pool.pass_time(5)
    pool.finish(leases[0])
    assert pool.admit(1) == []
    pool.discard("large0")

    assert tasks_of(pool.admit(1)) == ["small4"]


def test_time_in_which_the_pool_was_paused_does_not_count(pool: Pool) -> None:
    leases = stream(pool)
    pool.submit_many("large", 1, THREE_GPUS)
    pool.pass_time(4)
    pool.ask("m", "set_state", "paused")
    pool.pass_time(4)
    pool.ask("m", "set_state", "")
    pool.finish(leases[0])
    assert tasks_of(pool.admit(1)) == ["small4"]
    pool.pass_time(5)
    pool.finish(leases[1])

    assert pool.admit(1) == []


# -- for whom: the first that the policy would let go if it fitted


def test_nothing_is_kept_for_a_group_at_its_limit_whom_a_peer_would_press(pool: Pool) -> None:
    pool.submit_many("capped", 1, ONE, limit=1)
    pool.admit(1)
    (lease, *_others) = stream(pool)
    pool.submit("c", "capped", THREE_GPUS, limit=1)
    pool.pass_time(9)

    assert pool.first() == "small4"
    assert tasks_of(pool.finish_and_admit(lease)) == ["small4"]


def test_peer_of_the_same_ask_comes_before_a_group_at_its_limit(pool: Pool) -> None:
    pool.put_behind("peer")
    pool.submit_many("capped", 1, GPU, limit=1)
    pool.submit_many("busy", 3, GPU)
    pool.admit(4)
    pool.submit("c", "capped", THREE_GPUS, limit=1)
    assert pool.first() == "c"
    pool.submit("p", "peer", THREE_GPUS)

    assert pool.first() == "p"


def test_nothing_is_kept_for_a_group_in_debt(pool: Pool) -> None:
    pool.configure("borrow")
    pool.submit_many("large", 3, GPU, limit=9)
    pool.submit("l", "large", THREE_GPUS, limit=9)
    pool.admit(3)
    pool.put_behind("small")
    pool.submit_many("small", 3, GPU, limit=9)
    (small,) = pool.admit(1)
    assert pool.debts("large") == {"gpu": 1}
    pool.pass_time(9)

    assert tasks_of(pool.finish_and_admit(small)) == ["small1"]


@pytest.mark.parametrize(("rounding", "next_one"), [("up", []), ("down", ["peer0"])])
def test_share_is_that_among_all_who_would_fit_then(
    pool: Pool, rounding: str, next_one: list[str]
) -> None:
    pool.ask("m", "claim", "gpu", "pool", 6)
    pool.configure("borrow", share_rounding=rounding)
    pool.put_behind("peer")
    pool.submit("running", "large")  # a group that runs nothing would be let go
    pool.admit(1)
    for group in ("a", "b"):
        pool.submit_many(group, 9, GPU, limit=9)
    lease, *_others = pool.admit(6)
    pool.submit_many("large", 1, "gpu=2,submission=1", limit=9)
    pool.submit_many("peer", 1, GPU, limit=9)
    pool.pass_time(9)

    assert tasks_of(pool.finish_and_admit(lease)) == next_one


def test_group_that_the_policy_holds_back_in_front_starves_nobody_behind(pool: Pool) -> None:
    pool.configure("borrow")
    pool.put_behind("small")
    pool.put_behind("large", turns=100)
    pool.submit_many("debtor", 9, GPU, limit=9)
    debt, *_others = pool.admit(3)
    pool.submit_many("large", 1, "gpu=2,submission=1", limit=9)
    pool.submit_many("small", 9, GPU, limit=9)
    (small,) = pool.admit(1)
    assert (task_of(small), pool.reasons()) == ("small0", {"no_capacity": 3})
    pool.pass_time(5)

    assert pool.finish_and_admit(small) == []
    assert tasks_of(pool.finish_and_admit(debt)) == ["large0"]


def test_who_stands_behind_one_that_fits_waits_for_its_turn(pool: Pool) -> None:
    pool.put_behind("large")
    pool.submit_many("busy", 2, GPU)
    pool.admit(2)
    pool.submit_many("first", 1, OTHER)
    pool.submit_many("large", 1, THREE_GPUS)
    assert pool.first() == ""
    pool.discard("first0")

    assert pool.first() == "large0"


@pytest.mark.parametrize("policy", ["", "borrow"])
def test_large_task_of_a_group_at_its_limit_is_not_starved_where_nobody_presses(
    pool: Pool, policy: str
) -> None:
    pool.configure(policy)
    pool.submit_many("small", 9, GPU, limit=1)
    leases = pool.admit(3)
    pool.submit("first", "large", GPU, limit=1, weight=2)
    pool.submit("second", "large", "gpu=2,submission=1", limit=1, weight=2)
    assert tasks_of(pool.admit(9)) == ["first"]
    pool.pass_time(5)
    pool.finish(leases[0])
    assert pool.admit(1) == []
    pool.finish(leases[1])

    assert tasks_of(pool.admit(1)) == ["second"]
