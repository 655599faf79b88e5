"""Events of a pool report each time that a member had a free slot beside ready work.

Rules: design 04; design 08.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forebay.coordinator.tasks.idle_gaps import IdleGaps, p99
from tests.contract.pool_under_clock import GPU, MODEL, Pool, honest_pool
from tests.contract.shard_under_clock import SERVERS
from tests.support_scripts import DEAF_KEY


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", "n", submission=4, gpu=1)
        pool.ask("m", "configure", "", 0, "full", 3)
        yield pool


def gaps(pool: Pool, **slots: int) -> list[float]:
    """Return the gaps of members with so many slots; "m" has two if nothing is said."""
    slots = slots or {"m": 2}
    found = IdleGaps(lambda member: slots.get(member, 0))
    for event in pool.events():
        found.note(event)
    found.close()
    return found.seconds


def test_gap_lasts_from_the_submit_until_the_task_is_taken(pool: Pool) -> None:
    pool.submit("t", by="n")
    pool.pass_time(0.3)
    pool.admit(1)
    assert gaps(pool) == [0.3]


def test_gap_goes_on_while_others_take_what_there_is(pool: Pool) -> None:
    """As for a worker whose word of work was lost: the others take their part, and it sleeps."""
    for i in range(3):
        pool.submit(f"t{i}")
    for _ in range(3):
        pool.pass_time(0.5)
        pool.admit(1, by="n")
    assert gaps(pool, m=2, n=3) == [1.5, 1.5]
    assert gaps(pool, m=2) == [1.5]


def test_what_a_call_frees_and_takes_again_is_no_gap(pool: Pool) -> None:
    for i in range(3):
        pool.submit(f"t{i}")
    first, second = pool.admit(2)
    pool.pass_time(0.4)
    pool.finish_and_admit(first)
    pool.pass_time(0.4)
    pool.finish(second)
    assert gaps(pool) == []


def test_member_without_a_free_slot_is_not_idle(pool: Pool) -> None:
    for i in range(3):
        pool.submit(f"t{i}")
    leases = pool.admit(2)
    pool.pass_time(2.0)
    pool.finish(leases[0])
    pool.pass_time(0.1)
    pool.admit(1)
    assert gaps(pool) == [pytest.approx(0.1)]


def test_work_that_fits_no_limit_is_no_work(pool: Pool) -> None:
    for i in range(2):
        pool.submit(f"t{i}", asks=GPU)
    (lease,) = pool.admit(2)
    pool.pass_time(2.0)
    pool.finish(lease)
    pool.pass_time(0.1)
    pool.ask("m", "claim", "gpu", "pool", 4)
    pool.admit(1)
    assert gaps(pool) == [pytest.approx(0.1)]


def test_paused_pool_has_no_work(pool: Pool) -> None:
    pool.ask("m", "set_state", "paused")
    pool.submit("t")
    pool.pass_time(2.0)
    pool.ask("m", "set_state", "")
    pool.pass_time(0.1)
    pool.admit(1)
    assert gaps(pool) == [pytest.approx(0.1)]


def test_member_to_whom_nobody_listens_is_not_idle(pool: Pool) -> None:
    pool.ask_for(2)
    pool.client.sadd(DEAF_KEY, "m")
    pool.submit("t", by="n")
    pool.pass_time(2.0)
    pool.admit(1, by="n")
    assert gaps(pool, m=2) == []
    pool.client.srem(DEAF_KEY, "m")
    pool.submit("u", by="n")
    pool.pass_time(0.2)
    pool.submit("v", by="n")
    pool.admit(1)  # from here on it is known to be there
    pool.pass_time(0.2)
    pool.admit(1)
    assert gaps(pool, m=2) == [0.2]


def test_task_that_was_lost_is_no_such_work_until_it_ended_once(pool: Pool) -> None:
    pool.submit("t")
    pool.join("dying", ttl_us=1_000_000)
    pool.admit(1, by="dying")
    pool.pass_time(1.0)
    pool.beat("m")
    pool.ask_for(0, "m")
    pool.pass_time(2.0)
    (lease,) = pool.admit(1)
    pool.ask("m", "retry", lease, 0, 0)
    pool.pass_time(0.1)
    pool.admit(1)
    assert gaps(pool) == [pytest.approx(0.1)]


def test_task_that_is_delayed_is_work_from_its_instant_on(pool: Pool) -> None:
    pool.submit("t", delay_us=1_000_000)
    pool.pass_time(1.0)
    pool.ask_for(0, "n")
    pool.pass_time(0.2)
    pool.admit(1)
    assert gaps(pool) == [pytest.approx(0.2)]


def test_cancelled_task_is_no_work_any_more(pool: Pool) -> None:
    pool.submit("t")
    pool.pass_time(0.2)
    pool.discard("t")
    pool.pass_time(2.0)
    pool.ask("m", "set_state", "draining")
    assert gaps(pool) == [0.2]


def test_run_that_waits_for_a_cooldown_has_no_work_until_its_end() -> None:
    asks = {"asks": MODEL}
    events = [
        {"kind": "member_joined", "member_id": "m", "at_us": "0"},
        {
            "kind": "resource_cooling",
            "resource": MODEL.partition("=")[0],
            "until_us": "3000000",
            "at_us": "1000000",
        },
        {"kind": "ready_enqueued", "task_id": "t", "at_us": "1000000", **asks},
        {"kind": "task_lease_acquired", "task_id": "t", "lease_id": "t~1", "member_id": "m"}
        | {"at_us": "3500000"},
    ]
    found = IdleGaps(lambda _member: 1)
    for event in events:
        found.note(event)
    found.close()
    assert found.seconds == [0.5]


def test_99th_percentile_of_little_is_what_there_is() -> None:
    assert (p99([]), p99([3.0])) == (0.0, 3.0)
    assert p99([1.0] * 99 + [9.0]) < 9.0
