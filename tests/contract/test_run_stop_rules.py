"""A run of which too many cells fail stops itself, and goes on later, on both kinds of server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from forebay.coordinator.runs.looking import problem_of
from tests.contract.pool_under_clock import Pool, honest_pool, task_of
from tests.contract.run_plans import plan, values_of
from tests.contract.shard_under_clock import SERVERS

MANY = 60
WHY = "401 from beta/b-big"


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", "d", **{"submission": 900, "request:p/m": MANY})
        submit(pool)
        (root,) = pool.admit(1)
        pool.finish(root, *values_of(root, buffer_size=MANY), result=b"")
        yield pool
        pool.ask("d", "run_cancel", "run")


def submit(pool: Pool, answer: str = "accepted", run: str = "run", **other: Any) -> None:
    text = plan(records=MANY, buffer_size=MANY, **other)
    assert pool.ask("d", "run_submit", run, text, "{}") == [answer]


def of_column(pool: Pool, name: str) -> list[str]:
    leases = [lease for lease in pool.admit(99) if task_of(lease).split(":")[1] == name]
    assert len(leases) >= 21
    return leases


def fail(pool: Pool, leases: list[str]) -> None:
    for lease in leases:
        assert pool.ask("m", "drop", lease, WHY, "beta/b-big", "401") == ["released"]


def make(pool: Pool, leases: list[str]) -> None:
    for lease in leases:
        assert pool.finish(lease, *values_of(lease), result=b"") == "released"


def stop(pool: Pool, run: str = "run") -> Any:
    """What the driver is told: column, failed, finished, reason, tasks that run; or None."""
    return pool.ask("d", "run_collect", run)[8]


def test_a_window_of_failures_stops_the_run_and_tells_its_driver(pool: Pool) -> None:
    leases = of_column(pool, "left")
    fail(pool, leases[:19])
    assert stop(pool) is None
    pool.listen("d")
    fail(pool, leases[19:20])
    assert [["row_group"]] in pool.heard()
    assert stop(pool)[:4] == ["left", 20, 20, WHY]
    assert [event["column"] for event in pool.events() if event["kind"] == "run_stopped"] == [
        "left"
    ]
    told = problem_of(
        {"refused": None, "stopped": pool.client.hget(pool.keys["progress"], "run\0stopped")}
    )
    assert (
        told
        == f"20 of the last 20 finished cells of column 'left' failed, the last one with: {WHY}"
    )


@pytest.mark.parametrize(("made", "is_stopped"), [(10, False), (9, True)])
def test_as_many_failures_as_allowed_keep_the_run_going(
    pool: Pool, made: int, is_stopped: bool
) -> None:
    leases = of_column(pool, "left")
    make(pool, leases[:made])
    fail(pool, leases[made:20])
    assert (stop(pool) is not None) == is_stopped


def test_old_cells_do_not_hide_that_all_new_ones_fail(pool: Pool) -> None:
    leases = pool.admit(999)
    left = [lease for lease in leases if task_of(lease).split(":")[1] == "left"]
    make(pool, left[:30])
    fail(pool, left[30:55])
    assert stop(pool)[0] == "left"


def test_failures_are_counted_for_each_column(pool: Pool) -> None:
    leases = pool.admit(99)
    for name in ("left", "right"):
        fail(pool, [lease for lease in leases if task_of(lease).split(":")[1] == name][:15])
    assert stop(pool) is None


def test_the_plan_says_how_many_may_fail(pool: Pool) -> None:
    submit(pool, run="other", max_error_rate=1)
    submit(pool, run="third", min_error_window=3)
    for lease in [one for one in pool.admit(999) if one.startswith(("other:seed", "third:seed"))]:
        make_seed(pool, lease)
    leases = pool.admit(999)
    for run, is_stopped in (("other", False), ("third", True)):
        fail(pool, [one for one in leases if one.startswith(f"{run}:right")][:25])
        assert (stop(pool, run) is not None) == is_stopped
        pool.ask("d", "run_cancel", run)


def make_seed(pool: Pool, lease: str) -> None:
    assert pool.finish(lease, *values_of(lease, buffer_size=MANY), result=b"") == "released"


def test_a_stopped_run_starts_no_task_and_keeps_what_running_ones_make(pool: Pool) -> None:
    leases = of_column(pool, "left")
    fail(pool, leases[:20])
    assert pool.admit(999) == []
    running = stop(pool)[4]
    pool.listen("d")
    make(pool, leases[20:21])
    assert [["row_group"]] in pool.heard(), "the driver waits for the running ones"
    assert stop(pool)[4] == running - 1
    assert pool.ask("m", "retry", leases[21], 0, 0, "", WHY, "", "") == ["released"]
    assert pool.admit(999) == []
    assert pool.audit().differences == ()


def test_a_stopped_run_goes_on_with_what_its_failing_column_dropped(pool: Pool) -> None:
    leases = of_column(pool, "left")
    fail(pool, leases[:20])
    make(pool, leases[20:21])
    submit(pool, "known")
    assert stop(pool) is None
    assert pool.ask("d", "run_collect", "run")[1:3] == [0, 0]
    assert pool.audit().differences == ()
    make(pool, [lease.decode() for lease in pool.client.hkeys(pool.keys["leases"])])
    while leases := pool.admit(999):
        make(pool, leases)
    assert pool.ask("d", "run_collect", "run")[1:3] == [MANY, 0]


def test_a_stopped_run_leaves_nothing_once_it_is_cancelled(pool: Pool) -> None:
    fail(pool, of_column(pool, "left"))
    assert pool.ask("d", "run_cancel", "run") == ["cancelled"]
    assert not pool.client.exists(pool.keys["progress"])
    assert pool.ask("d", "run_collect", "run") == ["unknown"]


def test_a_root_that_fails_fails_as_many_cells_as_its_row_group_has(pool: Pool) -> None:
    submit(pool, run="other")
    (root,) = [lease for lease in pool.admit(999) if lease.startswith("other:seed")]
    fail(pool, [root])
    assert stop(pool, "other")[:3] == ["seed", MANY, MANY]
    pool.ask("d", "run_cancel", "other")


def test_failures_are_told_by_model_and_status(pool: Pool) -> None:
    leases = of_column(pool, "left")
    fail(pool, leases[:2])
    for lease in leases[2:5]:
        pool.ask("m", "retry", lease, 0, 0, "", "no answer", "beta/b-big", "timeout")
    pool.ask("m", "drop", leases[5], "template_error")

    troubles = pool.ask("d", "run_collect", "run")[7]
    assert sorted(troubles) == [["beta/b-big", "401", 2], ["beta/b-big", "timeout", 3]]


def test_cells_that_fail_while_the_run_stops_seal_no_row_group(pool: Pool) -> None:
    fail(pool, of_column(pool, "left"))
    progress = pool.ask("d", "run_collect", "run")
    assert (progress[2], progress[5]) == (19, []), "the twentieth stops it and drops nothing"
    submit(pool, "known")
    assert pool.ask("d", "run_collect", "run")[2] == 0
    assert pool.audit().differences == ()
