"""Limits of resources that change, and tasks that ask for more, on both servers.

Rules: design 04, *The ledger*.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.pool_under_clock import GPU, THREE_GPUS, Pool, honest_pool, tasks_of
from tests.contract.run_plans import plan
from tests.contract.shard_under_clock import SECOND_US, SERVERS, START_US


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", gpu=4)
        yield pool


# -- tasks that ask for more than a lowered limit


def test_task_above_a_lowered_limit_is_parked_and_its_group_goes_on(pool: Pool) -> None:
    for task_id, asks in (("t0", THREE_GPUS), ("t1", GPU), ("t2", THREE_GPUS), ("t3", GPU)):
        pool.submit(task_id, asks=asks)
    pool.ask("m", "claim", "gpu", "pool", 2)

    assert pool.reasons() == {"never_fits": 1}
    assert tasks_of(pool.admit(9)) == ["t1"]
    assert pool.notices == [["work"]]
    assert tasks_of(pool.admit(9)) == ["t3"]
    assert pool.reasons() == {"never_fits": 2}
    assert pool.count("queued") == 0
    assert pool.show()[1].startswith("queued 0, delayed 0, parked 2, running 2")


def test_parked_task_takes_its_old_place_when_the_limit_is_raised(pool: Pool) -> None:
    for task_id, asks in (("t0", THREE_GPUS), ("t1", GPU), ("t2", GPU)):
        pool.submit(task_id, asks=asks)
    pool.ask("m", "claim", "gpu", "pool", 1)
    assert tasks_of(pool.admit(9)) == ["t1"]
    pool.ask("m", "claim", "gpu", "pool", 4)

    assert pool.reasons() == {}
    assert tasks_of(pool.admit(9)) == ["t0"]


def test_raised_limit_brings_back_only_what_it_allows(pool: Pool) -> None:
    pool.ask("m", "claim", "gpu", "pool", 10)
    pool.submit("ten", "a", "gpu=10,submission=1")
    pool.submit("three", "b", THREE_GPUS)
    pool.ask("m", "claim", "gpu", "pool", 1)
    assert pool.reasons() == {"never_fits": 2}
    pool.ask("m", "claim", "gpu", "pool", 3)

    assert pool.reasons() == {"never_fits": 1}
    assert tasks_of(pool.admit(9)) == ["three"]


def test_limit_that_is_taken_back_parks_whoever_asks_for_the_resource(pool: Pool) -> None:
    pool.submit_many("g", 1, GPU)
    assert pool.ask("m", "claim", "gpu", "pool", "") == ["claimed", 0]

    assert pool.reasons() == {"never_fits": 1}
    assert pool.submit("new", asks=GPU) == ["refused", "unknown_resource", "gpu"]
    pool.ask("m", "claim", "gpu", "pool", 1)
    assert tasks_of(pool.admit(9)) == ["g0"]


def test_task_of_a_group_at_its_limit_is_parked_and_brought_back_too(pool: Pool) -> None:
    for task_id, asks in (("t0", GPU), ("t1", THREE_GPUS), ("t2", GPU)):
        pool.submit(task_id, asks=asks, limit=1)
    pool.admit(1)
    pool.put_behind("peer")
    pool.submit("p", "peer", GPU)
    pool.ask("m", "claim", "gpu", "pool", 2)
    assert pool.reasons() == {"never_fits": 1, "group_cap": 1}
    pool.ask("m", "claim", "gpu", "pool", 4)

    assert pool.reasons() == {"group_cap": 1}
    assert tasks_of(pool.admit(9)) == ["p"]
    assert pool.reasons() == {"no_capacity": 1}


def test_delayed_task_is_parked_at_its_time(pool: Pool) -> None:
    pool.submit("t", asks=THREE_GPUS, delay_us=SECOND_US)
    pool.ask("m", "claim", "gpu", "pool", 2)
    assert pool.reasons() == {}
    pool.pass_time(1)
    assert pool.admit(9) == []

    assert pool.reasons() == {"never_fits": 1}


def test_task_that_comes_back_from_a_lease_is_parked_too(pool: Pool) -> None:
    pool.submit("t", asks=THREE_GPUS)
    (lease,) = pool.admit(1)
    pool.ask("m", "claim", "gpu", "pool", 2)
    assert pool.reasons() == {}
    pool.ask("m", "retry", lease, 0, 0)

    assert pool.reasons() == {"never_fits": 1}


def test_more_tasks_than_one_call_moves_are_parked_and_brought_back_by_the_next(
    pool: Pool,
) -> None:
    pool.ask("m", "claim", "gpu", "pool", 210)
    pool.submit_many("g", 70, THREE_GPUS)
    parked = []
    for limit in (2, 210):
        pool.ask("m", "claim", "gpu", "pool", limit)
        assert pool.next_wake_us == START_US
        parked.append(pool.count("parked"))
        pool.admit(0)
        parked.append(pool.count("parked"))

    assert parked == [64, 70, 6, 0]
    assert tasks_of(pool.admit(99)) == [f"g{i}" for i in range(70)]


# -- live limits


def test_lowered_limit_takes_nothing_away_and_the_smallest_claim_counts(pool: Pool) -> None:
    pool.ask("m", "claim", "submission", "pool", 3)
    for i in range(3):
        pool.submit(f"t{i}")
    leases = pool.admit(2)

    assert pool.ask("m", "claim", "submission", "run", 1) == ["claimed", 1]
    assert pool.count("running") == 2
    assert pool.admit(1) == []
    for lease in leases:
        assert pool.finish(lease) == "released"
    assert pool.ask("m", "claim", "submission", "run", "") == ["claimed", 3]
    assert len(pool.admit(1)) == 1


def test_holder_that_claims_again_replaces_its_own_claim(pool: Pool) -> None:
    claims = [("a", 3), ("b", 5), ("a", 9), ("pool", ""), ("b", ""), ("a", "")]

    found = [pool.ask("m", "claim", "gpu", holder, limit)[1] for holder, limit in claims]
    assert found == [3, 3, 4, 5, 9, 0]


def test_claim_of_a_run_ends_with_it(pool: Pool) -> None:
    assert pool.ask("m", "run_submit", "run", plan(limits={"gpu": 1}), "{}") == ["accepted"]
    assert pool.client.hget(pool.keys["limits"], "gpu") == b"1"
    pool.ask("m", "run_cancel", "run")

    assert pool.client.hget(pool.keys["limits"], "gpu") == b"4"
