"""Cells that wait for a provider's cooldown, on fakeredis and on a real server (design 05)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.pool_under_clock import MODEL, ONE, OTHER, Pool, honest_pool, task_of, tasks_of
from tests.contract.run_plans import column, values_of
from tests.contract.shard_under_clock import SECOND_US, SERVERS

A, B = "request:p/m", "request:p/other"
LIFE_US = 3600 * SECOND_US


def two_columns(records: int = 40, buffer_size: int = 2, max_open: int = 2, **other: Any) -> str:
    """A root makes `seed`; `a` asks A and `b` asks B, each of the seed alone."""
    columns = [
        column("seed", "g", [], [2, 3], ONE),
        column("a", "r", ["seed"], [], MODEL),
        column("b", "r", ["seed"], [], OTHER),
    ]
    return plan_of(columns, records, buffer_size, max_open, **other)


def one_after_another(records: int = 40, buffer_size: int = 2, max_open: int = 2) -> str:
    """A root makes `seed`; `a` asks A of the seed, `b` asks B of what A said."""
    columns = [
        column("seed", "g", [], [2], ONE),
        column("a", "r", ["seed"], [3], MODEL),
        column("b", "r", ["a"], [], OTHER),
    ]
    return plan_of(columns, records, buffer_size, max_open)


def plan_of(
    columns: list[dict[str, Any]], records: int, buffer_size: int, max_open: int, **other: Any
) -> str:
    for one in columns:
        one["fn"] = "forebay_cell"
    sizes = {"records": records, "buffer_size": buffer_size, "max_open": max_open}
    row_groups = -(-records // buffer_size)
    return json.dumps(sizes | {"row_groups": row_groups, "limits": {}, "columns": columns} | other)


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", "d", **{A: 50, B: 50})
        pool.beat("m", LIFE_US)
        pool.beat("d", LIFE_US)
        pool.ask("m", "serve", "forebay_cell")
        yield pool


def begin(pool: Pool, text: str) -> None:
    assert pool.ask("d", "run_submit", "run", text, "{}") == ["accepted"]


def refuse(pool: Pool, lease: str, seconds: float = 20.0, resource: str = A) -> None:
    """End a task whose provider said to come again later."""
    assert pool.ask("m", "retry", lease, int(seconds * SECOND_US), 1, resource) == ["released"]


def name_of(lease: str) -> str:
    return task_of(lease).split(":")[1]


def work(pool: Pool, *, refused: str = "") -> dict[str, int]:
    """Work until nothing may go, refusing one column; return the admissions by column."""
    admitted: dict[str, int] = {}
    while leases := pool.admit(20):
        for lease in leases:
            admitted[name_of(lease)] = admitted.get(name_of(lease), 0) + 1
            if name_of(lease) == refused:
                refuse(pool, lease)
            else:
                assert pool.finish(lease, *values_of(lease), result=b"") == "released"
    return admitted


def progress(pool: Pool) -> list[Any]:
    """done, dropped, open, written, ready to write, cooling"""
    return pool.ask("d", "run_collect", "run")[1:7]


def test_a_refused_cell_waits_with_all_of_its_resource(pool: Pool) -> None:
    begin(pool, two_columns(records=4, buffer_size=4))
    work_seed(pool)
    (first,) = [lease for lease in pool.admit(2) if name_of(lease) == "a"]
    refuse(pool, first)

    assert {name_of(one) for one in pool.admit(9)} == {"b"}
    assert pool.ask_for(9).reasons == {"cooldown": 1}
    pool.pass_time(19.9)
    assert pool.admit(9) == []
    pool.pass_time(0.2)
    assert tasks_of(pool.admit(9)) == [f"run:a:r{number}" for number in range(4)]


def work_seed(pool: Pool) -> None:
    (seed,) = pool.admit(1)
    assert pool.finish(seed, *values_of(seed, buffer_size=4), result=b"") == "released"


def test_a_deferral_gives_its_try_back_as_often_as_it_comes(pool: Pool) -> None:
    begin(pool, two_columns(records=1, buffer_size=1, max_open=1))
    (seed,) = pool.admit(1)
    pool.finish(seed, "0", "seed", "1", result=b"")
    for _ in range(25):
        (terms,) = (one for one in pool.ask_for(9).leases if ":a:" in one[1])
        assert terms[6] == "1", "each is its first try"
        refuse(pool, terms[0])
        pool.pass_time(20.1)


def test_row_groups_that_wait_for_a_cooldown_hold_up_no_other(pool: Pool) -> None:
    begin(pool, two_columns())
    admitted = work(pool, refused="a")

    assert admitted["b"] == 40, "each record of the run"
    assert admitted["seed"] == 20
    done, dropped, still_open, written, ready, cooling = progress(pool)
    assert (done, dropped, still_open, written, ready) == (0, 0, 20, 0, [])
    assert [(resource, times) for resource, _until, times in cooling] == [(A, 1)]
    assert pool.audit().ok


def test_what_waits_comes_again_after_the_cooldown_and_the_run_ends(pool: Pool) -> None:
    begin(pool, two_columns())
    work(pool, refused="a")
    pool.pass_time(20.1)
    assert work(pool) == {"a": 40}

    assert progress(pool)[:4] == [40, 0, 0, 0]
    assert progress(pool)[5] == [], "nothing cools once a cell was made"
    assert pool.audit().ok


def test_nothing_more_is_admitted_beside_row_groups_that_wait_no_more(pool: Pool) -> None:
    begin(pool, two_columns(records=80))
    opened = work(pool, refused="a")["seed"]
    assert opened == 40
    begun = two_columns(records=80, max_rows=20)
    pool.ask("m", "run_cancel", "run")
    begin(pool, begun)
    pool.pass_time(20.1)
    assert work(pool, refused="a")["seed"] == 10, "as many as max_rows allow"
    pool.pass_time(20.1)
    leases = pool.admit(40)
    assert {name_of(lease) for lease in leases} == {"a"}
    for lease in leases[:2]:
        pool.finish(lease, *values_of(lease), result=b"")
    assert progress(pool)[2] == 9


def test_no_row_group_is_opened_whose_cells_all_need_what_cools(pool: Pool) -> None:
    begin(pool, one_after_another())
    assert work(pool, refused="a") == {"seed": 2, "a": 4}
    assert progress(pool)[2] == 2


def test_a_row_group_with_a_cell_that_may_go_counts(pool: Pool) -> None:
    begin(pool, two_columns())
    for seed in pool.admit(2):
        pool.finish(seed, *values_of(seed), result=b"")
    leases = pool.admit(20)
    assert sorted(map(name_of, leases)) == ["a"] * 4 + ["b"] * 4
    refuse(pool, next(lease for lease in leases if name_of(lease) == "a"))
    assert progress(pool)[2] == 2, "each of the two has cells that ask B"
    first, second, *_others = [lease for lease in leases if name_of(lease) == "b"]
    pool.finish(first, *values_of(first), result=b"")
    assert progress(pool)[2] == 2
    pool.finish(second, *values_of(second), result=b"")
    assert progress(pool)[2] == 3, "one waits, whatever of it runs"


def test_a_cooldown_is_extended_and_never_shortened(pool: Pool) -> None:
    begin(pool, two_columns(records=2))
    (seed,) = pool.admit(1)
    pool.finish(seed, *values_of(seed), result=b"")
    first, second = [lease for lease in pool.admit(9) if name_of(lease) == "a"]
    refuse(pool, first, 20)
    refuse(pool, second, 5)
    pool.pass_time(6)
    assert pool.admit(9) == []
    pool.pass_time(15)
    assert sorted(map(name_of, pool.admit(9))) == ["a", "a"]


def test_cooldowns_in_a_row_are_counted_until_a_cell_is_made(pool: Pool) -> None:
    begin(pool, two_columns(records=2))
    (seed,) = pool.admit(1)
    pool.finish(seed, *values_of(seed), result=b"")
    for _ in range(3):
        for lease in [lease for lease in pool.admit(9) if name_of(lease) == "a"]:
            refuse(pool, lease)
        (told,) = progress(pool)[5]
        pool.pass_time(20.1)
    assert told[2] == 3
    (lease, *_rest) = pool.admit(9)
    pool.finish(lease, *values_of(lease), result=b"")
    (lease,) = pool.admit(9) or _rest
    refuse(pool, lease)
    assert progress(pool)[5][0][2] == 1


def test_tasks_of_no_run_wait_for_no_cooldown_of_runs(pool: Pool) -> None:
    begin(pool, two_columns())
    work(pool, refused="a")
    pool.submit("job", asks=MODEL)
    assert tasks_of(pool.admit(1)) == ["job"]


def test_the_end_of_a_cooldown_is_when_to_look_again(pool: Pool) -> None:
    begin(pool, one_after_another())
    work(pool, refused="a")
    now = int(pool.client.get("test:clock"))
    pool.ask_for(0)
    assert now < pool.next_wake_us <= now + 20 * SECOND_US


@pytest.mark.parametrize("end", ["cancel", "write"])
def test_a_run_whose_row_groups_waited_leaves_nothing(pool: Pool, end: str) -> None:
    begin(pool, two_columns())
    work(pool, refused="a")
    if end == "cancel":
        pool.ask("m", "run_cancel", "run")
    else:
        pool.pass_time(20.1)
        work(pool)
        while ready := progress(pool)[4]:
            for row_group in ready:
                pool.ask("d", "run_written", "run", row_group)
            if not pool.client.exists(pool.keys["runs"]):
                break
    for kind in ("runs", "progress", "cells", "row_groups", "checkpoints", "tasks"):
        assert not pool.client.exists(pool.keys[kind]), kind
    assert pool.audit().ok


def test_the_audit_tells_a_wrong_count_of_a_row_groups_tasks(pool: Pool) -> None:
    begin(pool, two_columns())
    work(pool, refused="a")
    pool.client.hincrby(pool.keys["row_groups"], "run\x000\x00a", 1)
    (difference,) = pool.audit().differences
    assert "row_groups run 0 a: expected 2, found 3" in difference
    pool.client.hincrby(pool.keys["row_groups"], "run\x000\x00a", -1)
