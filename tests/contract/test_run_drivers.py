"""Who attends a run: its claims and its row groups, on fakeredis and on a real server.

Rules: design 05, *Drivers*.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.pool_under_clock import MODEL, Pool, honest_pool
from tests.contract.run_plans import plan, values_of
from tests.contract.shard_under_clock import SERVERS
from tests.support_scripts import DEAF_KEY

CLAIMED = {"request:p/m": 1}
LIFE_US = 3600_000_000


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """A pool with the workers m and n, which live long, and the drivers d and e."""
    for pool in honest_pool(request):
        pool.open("m", "n", "d", "e")
        for worker in ("m", "n"):
            pool.beat(worker, LIFE_US)
        yield pool


def begin(pool: Pool, *, by: str = "d", run: str = "run", **terms: Any) -> None:
    text = plan(**({"limits": CLAIMED} | terms))
    assert pool.ask(by, "run_submit", run, text, "{}") == ["accepted"]


def limit(pool: Pool, resource: str = "request:p/m") -> int:
    return int(pool.client.hget(pool.keys["limits"], resource) or 0)


def lose(pool: Pool, driver: str = "d") -> None:
    """Let a driver's membership expire."""
    pool.pass_time(60)
    pool.ask_for(0)
    assert pool.client.zscore(pool.keys["members"], driver) is None


def work(pool: Pool) -> int:
    """Work until nothing is ready; return how many tasks were made."""
    made = 0
    while leases := pool.admit(99):
        for lease in leases:
            assert pool.finish(lease, *values_of(lease), result=b"") == "released"
        made += len(leases)
    return made


def row_groups(pool: Pool) -> tuple[int, int]:
    """Return how many are open, and how many wait to be written."""
    counts = pool.client.hmget(pool.keys["progress"], "run\0open", "run\0unwritten")
    return int(counts[0] or 0), int(counts[1] or 0)


def test_a_runs_claims_count_from_its_submission_on(pool: Pool) -> None:
    begin(pool)
    assert limit(pool) == 1


@pytest.mark.parametrize("end", ["expires", "leaves"])
def test_claims_of_a_run_stop_counting_when_its_drivers_membership_ends(
    pool: Pool, end: str
) -> None:
    begin(pool)
    if end == "expires":
        lose(pool)
    else:
        assert pool.ask("d", "leave") == ["left"]
    assert limit(pool) == 4
    assert ("run_unattended", "run", "d") in [
        (event["kind"], event.get("run_id"), event.get("member_id")) for event in pool.events()
    ]


@pytest.mark.parametrize("by", ["d", "e"])
@pytest.mark.parametrize("ask", ["submit", "collect"])
def test_claims_of_a_run_count_anew_when_a_driver_attends_it_again(
    pool: Pool, by: str, ask: str
) -> None:
    begin(pool)
    lose(pool)
    pool.join(by)
    if ask == "submit":
        text = plan(limits={"request:p/m": 9})
        assert pool.ask(by, "run_submit", "run", text, "{}") == ["known"]
    else:
        assert pool.ask(by, "run_collect", "run")[0] == "progress"
    assert limit(pool) == 1


def test_the_end_of_a_driver_that_another_has_replaced_changes_nothing(pool: Pool) -> None:
    begin(pool)
    pool.ask("e", "run_collect", "run")
    pool.ask("d", "leave")
    assert limit(pool) == 1
    assert pool.ask("e", "leave") == ["left"]
    assert limit(pool) == 4


def test_a_resource_that_only_an_unattended_run_claims_is_there_for_its_open_row_groups(
    pool: Pool,
) -> None:
    pool.ask("m", "claim", "request:p/m", "pool", "")
    begin(pool)
    lose(pool)
    assert work(pool) == 7
    assert row_groups(pool) == (0, 1)
    assert pool.count("parked") == 0


def test_a_claim_that_counts_goes_before_smaller_ones_that_rest(pool: Pool) -> None:
    begin(pool)
    lose(pool)
    pool.ask("m", "claim", "request:p/m", "pool", 9)
    assert limit(pool) == 9
    pool.ask("m", "claim", "request:p/m", "pool", "")
    assert limit(pool) == 1


def test_run_that_nobody_attends_works_its_open_row_groups_to_their_end_and_waits(
    pool: Pool,
) -> None:
    begin(pool, records=40, buffer_size=2, max_open=3)
    lose(pool)
    assert work(pool) == 3 * 7
    assert row_groups(pool) == (0, 3)
    pool.join("e")
    assert pool.ask("e", "run_collect", "run")[1:6] == [6, 0, 1, 0, [0, 1, 2]]


def test_no_row_group_is_admitted_once_nobody_listens_to_the_driver(pool: Pool) -> None:
    begin(pool, records=40, buffer_size=2, max_open=3)
    pool.client.sadd(DEAF_KEY, "d")
    assert work(pool) == 3 * 7
    assert row_groups(pool) == (0, 3)
    pool.client.srem(DEAF_KEY, "d")
    pool.ask("d", "run_collect", "run")
    assert row_groups(pool) == (1, 3)


def test_few_row_groups_wait_unwritten_though_their_driver_is_a_member(pool: Pool) -> None:
    begin(pool, records=40, buffer_size=2, max_open=3)
    work(pool)
    assert row_groups(pool) == (0, 4)


def test_a_refused_run_leaves_no_claim(pool: Pool) -> None:
    text = plan(limits=CLAIMED).replace(MODEL, "gpu=1,submission=1")
    refusal = pool.ask("d", "run_submit", "run", text, "{}")
    assert refusal == ["refused", "unknown_resource", "gpu"]
    assert limit(pool) == 4
    assert [name for name in pool.client.zrange(pool.keys["claims"], 0, -1) if b"run" in name] == []


@pytest.mark.parametrize("attended", [True, False])
def test_a_cancelled_run_leaves_no_claim(pool: Pool, *, attended: bool) -> None:
    begin(pool)
    if not attended:
        lose(pool)
    assert pool.ask("m", "run_cancel", "run") == ["cancelled"]
    assert limit(pool) == 4
    assert [name for name in pool.client.zrange(pool.keys["claims"], 0, -1) if b"run" in name] == []


def test_a_run_named_as_another_holder_has_claims_of_its_own(pool: Pool) -> None:
    begin(pool, run="pool")
    lose(pool)
    assert limit(pool) == 4
    pool.ask("m", "run_cancel", "pool")
    assert limit(pool) == 4


def test_the_audit_tells_a_claim_that_counts_though_nobody_attends(pool: Pool) -> None:
    begin(pool)
    claims = pool.keys["claims"]
    pool.client.zrem(claims, "!d\0run")
    pool.client.hdel(pool.keys["progress"], "run\0driver")
    (difference,) = pool.audit().differences
    assert "claims request:p/m of run: expected 1" in difference
    pool.ask("m", "run_cancel", "run")
