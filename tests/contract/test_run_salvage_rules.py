"""Cells that failed and may go better, on fakeredis and on a real server.

Rules: design 05, *Failures*.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.pool_under_clock import Pool, honest_pool, task_of, tasks_of
from tests.contract.run_plans import plan, values_of
from tests.contract.shard_under_clock import SECOND_US, SERVERS


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", "d")
        pool.beat("m", 3600 * SECOND_US)
        pool.beat("d", 3600 * SECOND_US)
        yield pool


def begin(pool: Pool, **other: Any) -> None:
    """Submit a run of two row groups of two records, and make its seed."""
    assert pool.ask("d", "run_submit", "run", plan(max_open=2, **other), "{}") == ["accepted"]
    make(pool, *pool.admit(2))


def make(pool: Pool, *leases: str) -> None:
    for lease in leases:
        assert pool.finish(lease, *values_of(lease), result=b"") == "released"


def fail(pool: Pool, lease: str, seconds: float = 2.0) -> None:
    delay = round(seconds * SECOND_US)
    why = ("no answer", "p/m", "timeout")
    assert pool.ask("m", "retry", lease, delay, 0, "", *why) == ["released"]


def leases_of(pool: Pool, slots: int = 99) -> dict[str, str]:
    return {task_of(lease): lease for lease in pool.admit(slots)}


def test_failed_cell_waits_until_the_rest_of_its_row_group_is_through(pool: Pool) -> None:
    begin(pool)
    leases = leases_of(pool)
    fail(pool, leases.pop("run:left:r0"))
    pool.pass_time(30)
    make(pool, leases.pop("run:right:r0"), leases.pop("run:right:r1"), leases.pop("run:left:r1"))
    assert tasks_of(pool.admit(99)) == ["run:last:r1"]
    assert [one for one in pool.events() if one["kind"] == "salvage_redispatched"] == []
    make(pool, "run:last:r1~" + last_number(pool))

    assert tasks_of(pool.admit(99)) == ["run:left:r0"], "its backoff was over before"
    (event,) = [one for one in pool.events() if one["kind"] == "salvage_redispatched"]
    assert (event["row_group"], event["tasks"]) == ("0", "1")


def last_number(pool: Pool) -> str:
    leases = [lease.decode() for lease in pool.client.hkeys(pool.keys["leases"])]
    (number,) = [lease.partition("~")[2] for lease in leases if lease.startswith("run:last:r1")]
    return number


def test_round_keeps_the_backoff_and_counts_the_try(pool: Pool) -> None:
    begin(pool, records=1, buffer_size=1)
    leases = leases_of(pool)
    make(pool, leases["run:right:r0"])
    fail(pool, leases["run:left:r0"], 5)
    assert pool.admit(9) == []
    pool.pass_time(4.9)
    assert pool.admit(9) == []
    pool.pass_time(0.2)

    ((terms),) = pool.ask_for(9).leases
    assert (terms[1], terms[6]) == ("run:left:r0", "2")


def test_failures_of_one_row_group_hold_up_no_other(pool: Pool) -> None:
    begin(pool)
    leases = leases_of(pool)
    for name in ("run:left:r0", "run:right:r0", "run:left:r1", "run:right:r1"):
        fail(pool, leases.pop(name), 1)
    make(pool, *leases.values())
    assert sorted(tasks_of(pool.admit(99))) == ["run:last:r2", "run:last:r3"]
    pool.pass_time(1.1)

    assert len(pool.admit(99)) == 4


def test_cell_is_tried_again_after_a_minute_though_the_rest_is_not_through(pool: Pool) -> None:
    begin(pool)
    leases = leases_of(pool)
    fail(pool, leases.pop("run:left:r0"))
    pool.pass_time(61)
    assert pool.admit(9) == []
    pool.pass_time(2)

    assert tasks_of(pool.admit(9)) == ["run:left:r0"]
    make(pool, *leases.values())
    assert pool.audit().differences == ()


def test_dropped_record_takes_its_cell_out_of_the_round(pool: Pool) -> None:
    begin(pool)
    leases = leases_of(pool)
    fail(pool, leases.pop("run:left:r0"))
    pool.ask("m", "drop", leases.pop("run:right:r0"), "no")
    make(pool, *leases.values())
    make(pool, *pool.admit(99))
    pool.pass_time(120)

    assert pool.admit(9) == []
    assert pool.ask("d", "run_collect", "run")[1:6] == [3, 1, 0, 0, [0, 1]]


def test_run_that_has_no_retry_left_drops_what_fails(pool: Pool) -> None:
    begin(pool, max_retries=1)
    leases = leases_of(pool)
    fail(pool, leases["run:left:r0"])
    fail(pool, leases["run:left:r1"])

    assert pool.ask("d", "run_collect", "run")[1:3] == [0, 1]
    mark = pool.client.hget(pool.keys["cells"], "run\x001\x00!").split(b"\0")
    assert mark == [b"left", b"1", b"p/m", b"timeout", b"retry_budget_exhausted: no answer"]


def test_put_back_of_a_stopped_worker_is_no_failure_and_waits_for_no_round(pool: Pool) -> None:
    begin(pool)
    leases = leases_of(pool)
    assert pool.ask("m", "retry", leases["run:left:r0"], 0, 1, "") == ["released"]
    assert tasks_of(pool.admit(9)) == ["run:left:r0"]
