"""Batches behind cells, and cells that are skipped, on fakeredis and on a real server.

Rules: design 05.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.contract.pool_under_clock import ONE, Pool, honest_pool, task_of, tasks_of
from tests.contract.run_plans import column, values_of
from tests.contract.shard_under_clock import SERVERS


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", "d")
        yield pool


def begin(pool: Pool, columns: list[dict[str, object]], records: int, buffer_size: int) -> None:
    sizes = {"records": records, "buffer_size": buffer_size, "max_open": 2, "limits": {}}
    sizes |= {"row_groups": -(-records // buffer_size), "skips": True}
    text = json.dumps(sizes | {"columns": columns})
    assert pool.ask("d", "run_submit", "run", text, "{}") == ["accepted"]


def batch_behind_cells(pool: Pool, records: int = 4) -> None:
    """`whole` needs `cell` of a whole row group; `last` needs what it makes."""
    columns = [
        column("seed", "g", [], [2], ONE),
        column("cell", "r", ["seed"], [3], ONE),
        column("whole", "g", ["cell"], [4], ONE),
        column("last", "r", ["whole"], [], ONE),
    ]
    begin(pool, columns, records, 2)
    work(pool)


def work(pool: Pool, slots: int = 99, values: dict[str, str] | None = None) -> list[str]:
    """Admit and finish; return the tasks."""
    leases = pool.admit(slots)
    for lease in leases:
        cells = values_of(lease)
        name = task_of(lease).split(":")[1]
        cells[2::3] = [(values or {}).get(name, value) for value in cells[2::3]]
        assert pool.finish(lease, *cells, result=b"") == "released"
    return sorted(tasks_of(leases))


def progress(pool: Pool) -> list[object]:
    """done, dropped, open, written, ready to write"""
    return pool.ask("d", "run_collect", "run")[1:6]


def test_a_batch_that_waits_while_no_cell_is_there_is_no_damage(pool: Pool) -> None:
    columns = [column("seed", "g", [], [2], ONE), column("whole", "g", ["seed"], [], ONE)]
    begin(pool, columns, 4, 2)
    assert pool.ask("d", "sweep")[0] == "swept"
    work(pool)
    assert pool.ask("d", "sweep")[0] == "swept"


def test_batch_begins_when_the_last_cell_of_its_row_group_is_there(pool: Pool) -> None:
    batch_behind_cells(pool)
    leases = {task_of(lease): lease for lease in pool.admit(4)}
    for number in (0, 2, 3):
        lease = leases.pop(f"run:cell:r{number}")
        pool.finish(lease, *values_of(lease), result=b"")

    assert work(pool) == ["run:whole:g1"]
    assert work(pool) == ["run:last:r2", "run:last:r3"]
    (last,) = leases.values()
    pool.finish(last, *values_of(last), result=b"")
    assert work(pool) == ["run:whole:g0"]


def test_batch_waits_for_no_dropped_record_and_makes_nothing_of_it(pool: Pool) -> None:
    batch_behind_cells(pool, records=2)
    one, two = sorted(pool.admit(2))
    pool.finish(one, *values_of(one), result=b"")
    pool.ask("m", "drop", two, "no answer")

    assert work(pool) == ["run:whole:g0"]
    assert work(pool) == ["run:last:r0"]
    assert progress(pool) == [1, 1, 0, 0, [0]]


def test_batch_that_is_dropped_drops_the_records_of_its_row_group(pool: Pool) -> None:
    batch_behind_cells(pool)
    work(pool)
    one, two = sorted(pool.admit(2))
    pool.ask("m", "drop", one, "no answer")
    pool.finish(two, *values_of(two), result=b"")

    assert work(pool) == ["run:last:r2", "run:last:r3"]
    assert progress(pool) == [2, 2, 0, 0, [0, 1]]


def test_batch_that_waits_for_a_slot_ends_with_its_row_group(pool: Pool) -> None:
    columns = [
        column("seed", "g", [], [2, 3], ONE),
        column("whole", "g", ["seed"], [], ONE),
        column("cell", "r", ["seed"], [], ONE),
    ]
    begin(pool, columns, 2, 2)
    work(pool, 1)
    cells = [lease for lease in pool.admit(3) if ":cell:" in lease]
    (whole,) = pool.ask_for(0).leases or [None]
    assert whole is None
    for lease in cells:
        pool.ask("m", "drop", lease, "no answer")

    assert progress(pool)[:2] == [0, 2]
    assert pool.client.hkeys(pool.keys["row_groups"]) == []


def skipping(pool: Pool, *, keeps: bool = False) -> None:
    """`maybe` is skipped where `when` is true; `after` needs `maybe`."""
    columns = [
        column("seed", "g", [], [2, 3], ONE),
        column("when", "r", ["seed"], [3], ONE),
        column("maybe", "r", ["seed", "when"], [4], ONE) | {"skip": "when"},
        column("after", "r", ["maybe"], [], ONE) | {"keeps": keeps},
    ]
    begin(pool, columns, 1, 1)
    assert work(pool) == ["run:seed:g0"]


def value(pool: Pool, name: str) -> bytes | None:
    found: bytes | None = pool.client.hget(pool.keys["cells"], "run\0" + f"0\0{name}")
    return found


def test_cell_is_skipped_without_a_task_and_so_is_what_needs_it(pool: Pool) -> None:
    skipping(pool)
    assert work(pool, values={"when": "true"}) == ["run:when:r0"]

    assert pool.admit(9) == []
    assert progress(pool) == [1, 0, 0, 0, [0]]
    assert [json.loads(value(pool, name) or "") for name in ("maybe", "after")] == [None, None]


def test_cell_that_does_not_propagate_skips_is_made_behind_a_skipped_one(pool: Pool) -> None:
    skipping(pool, keeps=True)
    work(pool, values={"when": "true"})

    assert work(pool) == ["run:after:r0"]
    assert progress(pool)[:2] == [1, 0]


@pytest.mark.parametrize("text", ["false", "null", '"true"', "1"])
def test_only_true_skips_a_cell(pool: Pool, text: str) -> None:
    skipping(pool)
    work(pool, values={"when": text})

    assert work(pool) == ["run:maybe:r0"]
    assert work(pool) == ["run:after:r0"]


def test_null_that_a_generator_made_skips_nothing(pool: Pool) -> None:
    skipping(pool)
    work(pool, values={"when": "false"})
    work(pool, values={"maybe": "null"})

    assert work(pool) == ["run:after:r0"]


def finish(pool: Pool, lease: str, value: str | None = None) -> None:
    cells = values_of(lease)
    cells[2::3] = [value or text for text in cells[2::3]]
    assert pool.finish(lease, *cells, result=b"") == "released"


def test_cells_that_one_condition_skips_are_each_counted_once(pool: Pool) -> None:
    """`second` needs `first`, and `when` skips both while `other` still runs."""
    columns = [
        column("seed", "g", [], [2, 3, 4, 5], ONE),
        column("when", "r", ["seed"], [3, 4], ONE),
        column("first", "r", ["seed", "when"], [4], ONE) | {"skip": "when"},
        column("second", "r", ["first", "when"], [], ONE) | {"skip": "when"},
        column("other", "r", ["seed"], [], ONE),
    ]
    begin(pool, columns, 2, 2)
    work(pool)
    leases = {task_of(lease): lease for lease in pool.admit(9)}
    for number in (0, 1):
        finish(pool, leases[f"run:when:r{number}"], "true")
    assert progress(pool)[0] == 0, "other is missing"
    for number in (0, 1):
        finish(pool, leases[f"run:other:r{number}"])
    assert progress(pool) == [2, 0, 0, 0, [0]]


def test_a_batch_behind_a_condition_and_what_it_skips_waits_for_every_record(pool: Pool) -> None:
    columns = [
        column("seed", "g", [], [2, 3], ONE),
        column("when", "r", ["seed"], [3, 4], ONE),
        column("maybe", "r", ["seed", "when"], [4], ONE) | {"skip": "when"},
        column("whole", "g", ["when", "maybe"], [], ONE),
    ]
    begin(pool, columns, 2, 2)
    work(pool)
    first, second = pool.admit(9)
    finish(pool, first, "true")
    assert work(pool) == [], "a record has no condition yet"
    finish(pool, second, "true")
    assert work(pool) == ["run:whole:g0"]
    assert progress(pool) == [2, 0, 0, 0, [0]]
