"""The policy that borrows, a pinned case per rule, on fakeredis and on a real server.

Rules: design 04, *Policies*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.pool_under_clock import GPU, ONE, Pool, honest_pool, tasks_of
from tests.contract.shard_under_clock import SECOND_US, SERVERS

MANY = 50
"""An admitted limit that holds nobody back."""


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.join("m")
        pool.ask("m", "claim", "submission", "pool", 100)
        yield pool


def lend(pool: Pool, gpu: int, **settings: Any) -> None:
    """Set the limit of what is borrowed, and how."""
    pool.ask("m", "claim", "gpu", "pool", gpu)
    pool.configure("borrow", **settings)


def two_groups(pool: Pool, *, limit: int = MANY, weight: float = 1) -> None:
    """Let `a` wait with eight tasks, and behind it `b`, whose first task would pass."""
    pool.put_behind("b")
    pool.submit_many("b", 1, GPU, limit=MANY)
    pool.submit_many("a", 8, GPU, limit=limit, weight=weight)


# -- the strict share


@pytest.mark.parametrize(
    ("rounding", "order"), [("up", ["a0", "a1", "b0"]), ("down", ["a0", "b0", "a1"])]
)
def test_share_of_a_half_is_rounded(pool: Pool, rounding: str, order: list[str]) -> None:
    lend(pool, 3, share_rounding=rounding)
    two_groups(pool)

    assert tasks_of(pool.admit(3)) == order


@pytest.mark.parametrize(("weight", "first_turns"), [(1, 4), (3, 6)])
def test_share_is_the_part_of_the_weight(pool: Pool, weight: float, first_turns: int) -> None:
    lend(pool, 8)
    two_groups(pool, weight=weight)

    assert tasks_of(pool.admit(8)).index("b0") == first_turns


def test_share_is_among_the_groups_whose_first_task_fits_and_wants_it(pool: Pool) -> None:
    lend(pool, 9)
    pool.submit_many("busy", 1, GPU)
    pool.admit(1)
    pool.put_behind("other")
    two_groups(pool)
    pool.submit_many("other", 1, ONE)
    pool.submit_many("large", 1, "gpu=9,submission=1")

    assert tasks_of(pool.admit(6)) == ["a0", "a1", "a2", "a3", "a4", "b0"]


def test_share_is_at_least_one(pool: Pool) -> None:
    lend(pool, 1, share_rounding="down")
    two_groups(pool)
    pool.admit(1)

    assert pool.debts("a") == {}


def test_share_is_at_most_the_admitted_limit(pool: Pool) -> None:
    lend(pool, 8)
    two_groups(pool, limit=2)

    assert tasks_of(pool.admit(4)) == ["a0", "a1", "b0", "a2"]
    assert pool.debts("a")["gpu"] == 1


def test_share_of_a_group_alone_is_as_if_one_equal_peer_existed(pool: Pool) -> None:
    lend(pool, 6)
    pool.submit_many("a", 6, GPU, limit=MANY, weight=5)
    owed = []
    for _ in range(6):
        pool.admit(1)
        owed.append(pool.debts("a").get("gpu", 0))

    assert owed == [0, 0, 0, 1, 2, 3]


# -- under pressure


def test_group_above_its_share_is_denied_group_cap(pool: Pool) -> None:
    lend(pool, 4)
    two_groups(pool)
    pool.admit(2)

    assert pool.reasons() == {"group_cap": 1}
    assert tasks_of(pool.admit(1)) == ["b0"]


def test_group_in_debt_is_denied_borrow_debt_though_it_is_back_within_its_share(
    pool: Pool,
) -> None:
    lend(pool, 4)
    pool.put_behind("b")
    pool.submit_many("a", 8, GPU, limit=MANY)
    pool.admit(4)
    pool.ask("m", "claim", "gpu", "pool", 32)
    assert pool.reasons() == {}
    pool.submit_many("b", 1, GPU, limit=MANY)

    assert pool.reasons() == {"borrow_debt": 1}
    assert tasks_of(pool.admit(9)) == ["b0", "a4", "a5", "a6", "a7"]


@pytest.mark.parametrize("peer", ["in debt", "above its share"])
def test_peer_that_would_not_pass_itself_is_no_pressure(pool: Pool, peer: str) -> None:
    lend(pool, 8)
    if peer == "in debt":
        pool.submit_many("b", 9, GPU, limit=MANY)
        pool.admit(6)
        pool.ask("m", "claim", "gpu", "pool", 32)
    else:
        pool.submit_many("b", 9, GPU, limit=1)
        pool.admit(1)
    pool.submit_many("a", 2, GPU, limit=1, weight=2)

    assert tasks_of(pool.admit(2)) == ["a0", "a1"]


def test_group_without_a_limit_presses_though_it_is_above_its_share(pool: Pool) -> None:
    lend(pool, 8)
    pool.put_behind("b")
    pool.submit_many("b", 9, GPU, limit="")
    pool.admit(6)
    pool.submit_many("a", 2, GPU, limit=1, weight=1000)

    assert tasks_of(pool.admit(2)) == ["a0", "b6"]


def test_group_without_a_limit_is_no_pressure_on_itself(pool: Pool) -> None:
    lend(pool, 4)
    pool.submit_many("a", 4, GPU)

    assert len(pool.admit(4)) == 4
    assert pool.debts("a") == {"gpu": 2}


# -- borrowing without pressure


@pytest.mark.parametrize(
    ("amount", "owed"), [(1, [0, 0, 0, 0, 1, 2, 3, 4]), (2, [0, 0, 2, 4]), (3, [0, 2]), (7, [3])]
)
def test_what_goes_beyond_the_share_is_owed_and_no_more(
    pool: Pool, amount: int, owed: list[int]
) -> None:
    lend(pool, 8)
    pool.submit_many("a", 8, f"gpu={amount},submission=1", limit=MANY)
    seen = []
    while pool.admit(1):
        seen.append(pool.debts("a").get("gpu", 0))

    assert seen == owed


@pytest.mark.parametrize(
    ("settings", "admitted"),
    [
        pytest.param({}, 8, id="dynamic: the limit less the share"),
        pytest.param({"ceiling_reserve": 3}, 5, id="dynamic: less a reserve"),
        pytest.param({"ceiling_reserve": 99}, 4, id="dynamic: never below the share"),
        pytest.param({"ceiling": 2}, 6, id="the default"),
        pytest.param({"ceiling": 2, "ceiling_reserve": 4}, 6, id="the default before a reserve"),
        pytest.param({"ceiling": 0}, 4, id="a default of nothing"),
        pytest.param({"ceiling": 0, "ceiling:a\0gpu": 3}, 7, id="of the group and resource"),
        pytest.param({"ceiling:b\0gpu": 0}, 8, id="of another group"),
        pytest.param({"ceiling:a\0submission": 0}, 8, id="of another resource"),
    ],
)
def test_group_may_owe_up_to_its_ceiling(
    pool: Pool, settings: dict[str, int], admitted: int
) -> None:
    lend(pool, 8, **settings)
    pool.submit_many("a", 9, GPU, limit=MANY)

    assert len(pool.admit(9)) == admitted
    assert pool.reasons() == {"no_capacity" if admitted == 8 else "borrow_debt": 1}


def test_single_group_that_runs_nothing_goes_beyond_its_ceiling(pool: Pool) -> None:
    lend(pool, 4, ceiling=0)
    pool.submit_many("a", 2, "gpu=4,submission=1", limit=MANY)
    (lease,) = pool.admit(9)
    assert pool.debts("a") == {"gpu": 2}
    pool.finish(lease)

    assert tasks_of(pool.admit(9)) == ["a1"]


# -- repaying


@pytest.mark.parametrize("end", ["finish", "retry", "drop", "leave", "die"])
@pytest.mark.parametrize("peer", [True, False], ids=["under pressure", "without pressure"])
def test_lease_that_ends_in_any_way_repays_what_it_held(
    pool: Pool, end: str, *, peer: bool
) -> None:
    lend(pool, 6)
    pool.submit_many("a", 6, GPU, limit=MANY)
    pool.join("n")
    leases = [*pool.admit(1, by="n"), *pool.admit(5)]
    assert pool.debts("a") == {"gpu": 3}
    if peer:
        pool.submit_many("b", 1, GPU, limit=MANY)
    if end == "die":
        pool.pass_time(10)
        pool.beat("m")
        pool.pass_time(10)
        pool.beat("m")
        pool.admit(0)
    else:
        arguments = {"finish": [b"", "", ""], "retry": [SECOND_US, 0], "drop": ["bad"], "leave": []}
        named = [] if end == "leave" else [leases[0]]
        pool.ask("n", end, *named, *arguments[end])

    assert pool.debts("a") == {"gpu": 2}


def test_debt_never_falls_below_zero(pool: Pool) -> None:
    lend(pool, 4)
    pool.submit_many("a", 4, GPU, limit=MANY)
    leases = pool.admit(4)
    owed = []
    for lease in leases:
        pool.finish(lease)
        owed.append(pool.debts("a"))

    assert owed == [{"gpu": 1}, {}, {}, {}]


# -- submission of a typed task


def test_submission_of_a_typed_task_is_shared_without_pressure(pool: Pool) -> None:
    lend(pool, 8)
    pool.ask("m", "claim", "submission", "pool", 4)
    pool.put_behind("b")
    pool.submit_many("b", 1, ONE, limit=MANY)
    pool.submit_many("a", 3, GPU, limit=MANY)

    assert tasks_of(pool.admit(3)) == ["a0", "a1", "a2"]
    assert pool.debts("a") == {"submission": 1}


def test_submission_of_a_typed_task_has_a_ceiling(pool: Pool) -> None:
    lend(pool, 8, **{"ceiling:a\0submission": 0})
    pool.ask("m", "claim", "submission", "pool", 4)
    pool.submit_many("a", 3, GPU, limit=MANY)

    assert tasks_of(pool.admit(3)) == ["a0", "a1"]
    assert pool.reasons() == {"borrow_debt": 1}


# -- bounds and changes


def test_at_most_thirty_two_first_tasks_are_evaluated(pool: Pool) -> None:
    lend(pool, 33, share_rounding="down", ceiling=0)
    pool.put_behind("last")
    for i in range(32):
        for turn in range(2):
            pool.submit(f"{turn} of {i}", f"g{i}", GPU, limit=MANY)
    assert len(pool.admit(32)) == 32
    pool.submit_many("last", 1, GPU, limit=MANY)

    assert pool.admit(1) == []
    assert pool.reasons() == {"borrow_debt": 32}
    pool.discard("1 of 31")
    assert tasks_of(pool.admit(1)) == ["last0"]


def test_policy_that_comes_into_force_counts_what_is_out_and_forgives_debts(pool: Pool) -> None:
    lend(pool, 4)
    pool.submit_many("a", 6, GPU, limit=MANY)
    leases = pool.admit(4)
    pool.configure("")
    pool.configure("borrow")
    assert pool.debts("a") == {}
    pool.finish(leases[0])
    pool.admit(1)

    assert pool.debts("a") == {"gpu": 1}


# -- liveness


@pytest.mark.parametrize("limit", ["", MANY], ids=["without limits", "with limits"])
def test_groups_that_each_ask_for_more_than_a_share_do_not_block_each_other(
    pool: Pool, limit: int | str
) -> None:
    """None of them runs anything, so no lease would ever end that could free them."""
    lend(pool, 4)
    pool.ask("m", "claim", "cpu", "pool", 4)
    pool.submit_many("a", 2, "cpu=1,gpu=3,submission=1", limit=limit)
    pool.submit_many("b", 2, "cpu=3,gpu=1,submission=1", limit=limit)

    assert tasks_of(pool.admit(4)) == ["a0", "b0"]


# -- what no policy may leave idle (design 04, *Policies*)


def test_group_without_limit_is_denied_by_no_policy(pool: Pool) -> None:
    pool.open("m", **{"submission": 64, "request:p/m": 5})
    pool.configure("borrow", ceiling=0)
    pool.submit_many("model", 10, "request:p/m=2,submission=1", limit=8)
    pool.submit_many("local", 100)
    admitted = tasks_of(pool.admit(64))
    started = Counter(task_id.rstrip("0123456789") for task_id in admitted)
    assert started == {"model": 1, "local": 63}


def test_groups_without_limit_fill_a_pool_whatever_their_shares(pool: Pool) -> None:
    pool.open("m", submission=15)
    pool.configure("borrow", share_rounding="down", ceiling=0)
    for name in "abcdefgh":
        pool.submit_many(name, 4)
    assert len(pool.admit(15)) == 15


@pytest.mark.parametrize("limit", ["", 6])
def test_head_that_another_resource_holds_back_presses_nobody(pool: Pool, limit: object) -> None:
    """B's next task would not pass on b, so A may take what is left of a."""
    pool.open("m", a=8, b=2)
    pool.configure("borrow", **({"ceiling": 0} if limit == "" else {}))
    pool.submit_many("A", 10, "a=1,submission=1", limit=limit)
    pool.submit_many("B", 10, "a=1,b=1,submission=1", limit=limit)
    admitted = Counter(task_id[0] for task_id in tasks_of(pool.admit(20)))
    assert admitted == {"A": 6, "B": 2}
