"""A run stops where the first cells of a column all fail, on fakeredis and on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.pool_under_clock import Pool, honest_pool, task_of
from tests.contract.run_plans import plan, values_of
from tests.contract.shard_under_clock import SERVERS

MANY = 60


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", "d", **{"request:p/m": MANY})
        assert pool.ask("d", "run_submit", "run", plan(records=MANY, buffer_size=MANY), "{}") == [
            "accepted"
        ]
        (root,) = pool.admit(1)
        pool.finish(root, *values_of(root, buffer_size=MANY), result=b"")
        yield pool
        pool.ask("d", "run_cancel", "run")


def of_column(pool: Pool, name: str) -> list[str]:
    leases = [lease for lease in pool.admit(99) if task_of(lease).split(":")[1] == name]
    assert len(leases) >= 21
    return leases


def fail(pool: Pool, leases: list[str]) -> None:
    for lease in leases:
        assert pool.ask("m", "drop", lease, "401 from beta/b-big") == ["released"]


def test_twenty_failures_stop_the_run_and_tell_its_driver(pool: Pool) -> None:
    leases = of_column(pool, "left")
    fail(pool, leases[:19])
    assert pool.ask("d", "run_collect", "run")[0] == "progress"
    pool.listen("d")
    fail(pool, leases[19:20])
    assert [["row_group"]] in pool.heard()
    assert pool.ask("d", "run_collect", "run") == ["stopped", "left", "401 from beta/b-big", 20]
    assert [event["column"] for event in pool.events() if event["kind"] == "run_stopped"] == [
        "left"
    ]


def test_one_cell_that_was_made_keeps_the_run_going(pool: Pool) -> None:
    leases = of_column(pool, "left")
    fail(pool, leases[:19])
    pool.finish(leases[19], *values_of(leases[19]), result=b"")
    fail(pool, leases[20:])
    assert pool.ask("d", "run_collect", "run")[0] == "progress"


def test_failures_are_counted_for_each_column(pool: Pool) -> None:
    leases = pool.admit(99)
    for name in ("left", "right"):
        fail(pool, [lease for lease in leases if task_of(lease).split(":")[1] == name][:15])
    assert pool.ask("d", "run_collect", "run")[0] == "progress"


def test_a_stopped_run_admits_no_row_group_and_leaves_nothing_once_it_is_cancelled(
    pool: Pool,
) -> None:
    fail(pool, of_column(pool, "left"))
    assert pool.ask("d", "run_cancel", "run") == ["cancelled"]
    assert not pool.client.exists(pool.keys["progress"])
    assert pool.ask("d", "run_collect", "run") == ["unknown"]


def test_a_root_that_fails_fails_as_many_cells_as_its_row_group_has(pool: Pool) -> None:
    text = plan(records=MANY, buffer_size=MANY)
    assert pool.ask("d", "run_submit", "other", text, "{}") == ["accepted"]
    (root,) = [lease for lease in pool.admit(999) if lease.startswith("other:seed")]
    fail(pool, [root])
    assert pool.ask("d", "run_collect", "other")[:2] == ["stopped", "seed"]
    pool.ask("d", "run_cancel", "other")
