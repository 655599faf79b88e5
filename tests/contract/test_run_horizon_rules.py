"""How many row groups of a run may be open, on fakeredis and on a real server.

Rules: design 05, *Row groups*.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.pool_under_clock import Pool, honest_pool, tasks_of
from tests.contract.run_plans import plan, values_of
from tests.contract.shard_under_clock import SECOND_US, SERVERS

LIFE_US = 3600 * SECOND_US


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", "d")
        pool.beat("m", LIFE_US)
        pool.beat("d", LIFE_US)
        assert pool.ask("m", "serve", "forebay_cell") == ["served"]
        yield pool


def begin(pool: Pool, **sizes: Any) -> None:
    text = plan(records=20, buffer_size=2, **sizes).replace(
        '"signature"', '"fn": "forebay_cell", "signature"'
    )
    assert pool.ask("d", "run_submit", "run", text, "{}") == ["accepted"]


def open_now(pool: Pool) -> int:
    found = pool.ask("d", "run_collect", "run")[3]
    assert isinstance(found, int)
    return found


def finish(pool: Pool, *leases: str) -> None:
    for lease in leases:
        assert pool.finish(lease, *values_of(lease), result=b"") == "released"


def reasons(pool: Pool) -> list[str]:
    kind = "row_group_admission_blocked"
    return [event["reason"] for event in pool.events() if event["kind"] == kind]


def test_slow_root_holds_up_no_other_row_group_of_an_additive_run(pool: Pool) -> None:
    begin(pool, max_open=4, admission="additive")
    (slow,) = pool.admit(1)
    (second,) = pool.admit(1)
    assert tasks_of([slow, second]) == ["run:seed:g0", "run:seed:g1"]
    finish(pool, second)

    assert sorted(tasks_of(pool.admit(4))) == [
        "run:left:r2", "run:left:r3", "run:right:r2", "run:right:r3",
    ]  # fmt: skip


def test_additive_horizon_grows_one_row_group_for_each_ask_that_finds_nothing(pool: Pool) -> None:
    begin(pool, max_open=3, admission="additive")
    assert open_now(pool) == 1
    assert tasks_of(pool.admit(9)) == ["run:seed:g0", "run:seed:g1"]
    assert open_now(pool) == 2
    assert tasks_of(pool.admit(9)) == ["run:seed:g2"]
    assert pool.admit(9) == []

    assert open_now(pool) == 3
    kind = "row_group_admission_target_changed"
    changes = [event for event in pool.events() if event["kind"] == kind]
    assert [(event["from"], event["to"]) for event in changes] == [("1", "2"), ("2", "3")]


def test_horizon_does_not_grow_while_work_is_ready(pool: Pool) -> None:
    begin(pool, max_open=3, admission="additive")
    finish(pool, *pool.admit(1))
    pool.admit(2)
    assert open_now(pool) == 1


def test_member_that_makes_no_cells_lets_no_horizon_grow(pool: Pool) -> None:
    begin(pool, max_open=3, admission="additive")
    pool.admit(1)
    assert pool.admit(9, by="d") == []
    assert open_now(pool) == 1


@pytest.mark.parametrize("admission", ["fixed", "additive"])
def test_max_admitted_rows_bounds_the_records_on_the_server(pool: Pool, admission: str) -> None:
    begin(pool, max_open=5, max_rows=5, admission=admission)
    for _ in range(5):
        pool.admit(1)

    assert open_now(pool) == 2
    assert reasons(pool)[-1:] == ["max_admitted_rows"]


def test_first_row_group_is_admitted_though_it_is_larger_than_max_admitted_rows(pool: Pool) -> None:
    begin(pool, max_open=5, max_rows=1)
    assert open_now(pool) == 1


def test_each_change_of_what_holds_row_groups_back_is_one_event(pool: Pool) -> None:
    begin(pool, max_open=1)
    assert reasons(pool) == ["max_concurrent_row_groups"]
    for _ in range(6):
        finish(pool, *pool.admit(9))
    assert open_now(pool) == open_now(pool) == 0

    assert reasons(pool)[-1] == "unwritten"
    assert pool.ask("d", "leave") == ["left"]
    assert pool.ask("m", "run_written", "run", 0) == ["written"]
    assert reasons(pool)[-1] == "unattended"
    pool.join("d")
    assert open_now(pool) == 1
    assert reasons(pool)[-2:] == ["unattended", "max_concurrent_row_groups"]
