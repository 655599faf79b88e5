"""Order, the strict policy and the hints of requests, each rule on both servers.

Rules: design 04, *Policies*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.contract.pool_under_clock import (
    MODEL,
    ONE,
    OTHER,
    Pool,
    demand,
    honest_pool,
    policies,
    task_of,
    tasks_of,
)
from tests.contract.shard_under_clock import SERVERS


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m")
        yield pool


# -- order


def test_groups_are_served_by_weight(pool: Pool) -> None:
    for weight in (3, 2, 1):
        for i in range(20):
            pool.submit(f"w{weight}-{i}", f"w{weight}", weight=weight)
    served = Counter(task_of(lease).split("-")[0] for lease in pool.admit(24))

    assert served == {"w3": 12, "w2": 8, "w1": 4}


def test_blocked_group_is_passed_over_and_the_reply_says_why(pool: Pool) -> None:
    pool.submit_many("a", 6, MODEL)
    pool.submit_many("b", 1, OTHER)
    answer = pool.ask_for(9)

    assert {lease[1] for lease in answer.leases} == {"a0", "a1", "a2", "a3", "b0"}
    assert (answer.queued, answer.reasons) == (2, {"no_capacity": 1})
    assert pool.payloads == [f"payload of {lease[1]}".encode() for lease in answer.leases]


# -- strict


def test_group_at_its_limit_yields_to_a_peer_and_goes_beyond_without_one(pool: Pool) -> None:
    pool.submit_many("a", 4, MODEL, limit=1, weight=100)
    assert tasks_of(pool.admit(1)) == ["a0"]
    pool.submit_many("b", 1, MODEL, limit=1)

    assert tasks_of(pool.admit(1)) == ["b0"]
    assert tasks_of(pool.admit(1)) == ["a1"]


def test_capped_group_is_not_pressed_by_a_group_of_another_resource(pool: Pool) -> None:
    pool.submit("b0", "b", OTHER, weight=0.001)
    pool.admit(1)
    pool.submit_many("a", 3, MODEL, limit=1, weight=100)
    pool.submit("b1", "b", OTHER, weight=0.001)

    assert tasks_of(pool.admit(1)) == ["a0"]
    assert tasks_of(pool.admit(1)) == ["a1"]


def test_two_groups_at_their_limits_never_block_each_other_while_capacity_idles(
    pool: Pool,
) -> None:
    for group in ("a", "b"):
        pool.submit_many(group, 3, MODEL, limit=1)

    assert tasks_of(pool.admit(9)) == ["a0", "b0", "a1", "b1"]


def test_group_without_a_limit_passes_whoever_presses(pool: Pool) -> None:
    pool.put_behind("b")
    pool.submit_many("b", 1, MODEL, limit=5)
    pool.submit_many("a", 3, MODEL)

    assert tasks_of(pool.admit(3)) == ["a0", "a1", "a2"]


@pytest.mark.parametrize(
    ("own", "peers", "order"),
    [
        pytest.param(MODEL, ONE, ["a0", "a1", "b0"], id="no pressure on submission alone"),
        pytest.param(ONE, MODEL, ["a0", "b0", "a1"], id="who asks for nothing else is pressed"),
        pytest.param(ONE, ONE, ["a0", "b0", "a1"], id="pressed by its like"),
    ],
)
def test_submission_is_looked_at_only_where_a_task_asks_for_nothing_else(
    pool: Pool, own: str, peers: str, order: list[str]
) -> None:
    pool.put_behind("b")
    pool.submit_many("b", 1, peers)
    pool.submit_many("a", 2, own, limit=1, weight=1000)

    assert tasks_of(pool.admit(3)) == order


def test_peer_whose_first_task_does_not_fit_is_no_pressure(pool: Pool) -> None:
    pool.submit_many("a", 3, MODEL, limit=1)
    pool.admit(1)
    pool.submit_many("b", 1, "request:p/m=4,submission=1")

    assert tasks_of(pool.admit(9)) == ["a1", "a2"]


def test_peer_that_is_kept_out_by_a_reservation_is_no_pressure(pool: Pool) -> None:
    pool.configure(reserve_after_us=1_000_000)
    pool.submit_many("busy", 2, OTHER)
    pool.admit(2)
    pool.submit_many("large", 1, "request:p/other=3,submission=1")
    pool.submit_many("b", 1, "request:p/m=1,request:p/other=1,submission=1", weight=0.001)
    pool.pass_time(1)
    pool.submit_many("a", 3, MODEL, limit=1)

    assert tasks_of(pool.admit(9)) == ["a0", "a1", "a2"]
    assert pool.reasons() == {"no_capacity": 1, "reserved": 1}


def test_pressure_is_gone_with_the_last_task_of_the_peer(pool: Pool) -> None:
    pool.submit_many("a", 2, MODEL, limit=1)
    pool.admit(1)
    pool.put_behind("b")
    pool.submit_many("b", 1, MODEL)
    assert pool.reasons() == {"group_cap": 1}
    pool.discard("b0")

    assert pool.reasons() == {}
    assert tasks_of(pool.admit(1)) == ["a1"]


def test_group_that_falls_below_its_limit_presses_again(pool: Pool) -> None:
    for group in ("a", "b"):
        pool.submit_many(group, 3, MODEL, limit=1)
    a0, _b0 = pool.admit(2)
    assert pool.reasons() == {}
    pool.finish(a0)

    assert pool.reasons() == {"group_cap": 1}
    assert tasks_of(pool.admit(1)) == ["a1"]


def test_group_stands_by_the_limit_that_its_latest_task_brought(pool: Pool) -> None:
    pool.submit_many("a", 3, MODEL, limit=1)
    pool.admit(1)
    pool.put_behind("b")
    pool.submit_many("b", 1, MODEL)
    found = []
    for task_id, limit in (("x", 1), ("y", 2), ("z", 1), ("none", "")):
        pool.submit(task_id, "a", MODEL, limit=limit)
        found.append(pool.reasons())

    assert found == [{"group_cap": 1}, {}, {"group_cap": 1}, {}]


@pytest.mark.parametrize("end", [("finish", b"", "", ""), ("retry", 0, 0), ("drop", "bad")])
def test_group_at_its_limit_comes_back_however_a_lease_of_it_ends(
    pool: Pool, end: tuple[object, ...]
) -> None:
    pool.submit_many("a", 3, MODEL, limit=1)
    (lease,) = pool.admit(1)
    pool.put_behind("b")
    pool.submit_many("b", 1, MODEL)
    assert pool.reasons() == {"group_cap": 1}
    pool.ask("m", end[0], lease, *end[1:])

    assert pool.reasons() == {}


# -- hints that a provider has no room (design 04, *Request-pressure advisory*)


@policies
def test_task_of_a_provider_without_room_is_passed_over_for_a_peer(pool: Pool, policy: str) -> None:
    pool.configure(policy)
    pool.submit_many("a", 2, MODEL)
    pool.submit_many("b", 1, OTHER)

    assert tasks_of(pool.admit(1, hints="request:p/m")) == ["b0"]
    assert tasks_of(pool.admit(1, hints="request:p/m,gpu")) == ["a0"]


@policies
@pytest.mark.parametrize("peer", ["none", "the same", "one that does not fit"])
def test_hint_denies_nobody_where_no_peer_has_room(pool: Pool, policy: str, peer: str) -> None:
    pool.configure(policy)
    hints = "request:p/m"
    if peer == "one that does not fit":
        pool.submit_many("busy", 4, OTHER)
        pool.admit(4)
    if peer != "none":
        pool.submit_many("b", 1, OTHER)
    if peer == "the same":
        hints += ",request:p/other"
    pool.submit_many("a", 1, MODEL)

    assert "a0" in tasks_of(pool.admit(2, hints=hints))


@policies
def test_hint_moves_nobody_from_their_place(pool: Pool, policy: str) -> None:
    pool.configure(policy)
    pool.submit_many("a", 1, MODEL)
    pool.submit_many("b", 2, OTHER)
    pool.submit_many("c", 1, MODEL)
    assert tasks_of(pool.admit(1, hints="request:p/m")) == ["b0"]
    pool.submit_many("d", 1)

    assert tasks_of(pool.admit(9)) == ["a0", "c0", "d0", "b1"]


def test_hint_counts_for_its_own_ask_alone(pool: Pool) -> None:
    pool.submit_many("a", 1, MODEL)
    pool.submit_many("b", 2, OTHER)
    answers = pool.ask_all("m", demand(1, "request:p/m"), demand(1))

    assert [lease[1] for _word, (lease,), *_rest in answers] == ["b0", "a0"]


def test_group_at_its_limit_yields_to_a_peer_without_room_all_the_same(pool: Pool) -> None:
    pool.submit_many("a", 2, ONE, limit=1)
    pool.admit(1)
    pool.put_behind("b")
    pool.submit_many("b", 1, MODEL)

    assert tasks_of(pool.admit(1, hints="request:p/m")) == ["b0"]
