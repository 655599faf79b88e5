"""Rules of runs in the completion tracker, each on fakeredis and on a real server (design 05)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.contract.pool_under_clock import MODEL, Pool, honest_pool, task_of, tasks_of
from tests.contract.run_plans import plan, values_of
from tests.contract.shard_under_clock import SERVERS

RUN_KEYS: Final = ("runs", "progress", "cells", "row_groups", "checkpoints")


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", "n")
        yield pool


def begin(pool: Pool, text: str | None = None) -> None:
    assert pool.ask("m", "run_submit", "run", text or plan(), "{}") == ["accepted"]


def work(pool: Pool, slots: int = 99) -> list[str]:
    """Admit and finish; return the tasks."""
    leases = pool.admit(slots)
    for lease in leases:
        assert pool.finish(lease, *values_of(lease), result=b"") == "released"
    return sorted(tasks_of(leases))


def progress(pool: Pool) -> list[Any]:
    """done, dropped, open, written, ready to write"""
    return pool.ask("m", "run_collect", "run")[1:6]


def drain(pool: Pool) -> None:
    while work(pool):
        pass


def kept_keys(pool: Pool) -> list[str]:
    kinds = (*RUN_KEYS, "tasks", "queue", "fifo", "delayed", "leases", "held", "ready")
    return [kind for kind in kinds if pool.client.exists(pool.keys[kind])]


def test_root_then_cells_then_checkpoint_then_the_next_row_group(pool: Pool) -> None:
    begin(pool)
    assert pool.ask("m", "run_submit", "run", plan(), "{}") == ["known"]
    assert progress(pool) == [0, 0, 1, 0, []]
    assert work(pool) == ["run:seed:g0"]
    assert work(pool) == ["run:left:r0", "run:left:r1", "run:right:r0", "run:right:r1"]
    assert work(pool) == ["run:last:r0", "run:last:r1"]

    assert progress(pool) == [2, 0, 1, 0, [0]]
    assert work(pool) == ["run:seed:g1"]


def test_driver_is_told_of_a_row_group_that_is_through(pool: Pool) -> None:
    begin(pool)
    pool.ask("n", "run_collect", "run")
    pool.listen("n")
    for _ in range(3):
        work(pool)

    assert [["row_group"]] in pool.heard()


def test_cell_is_queued_once_though_two_inputs_come(pool: Pool) -> None:
    begin(pool, plan(records=1, buffer_size=1))
    (root,) = pool.admit(1)
    pool.finish(root, "0", "seed", "1", result=b"")
    left, right = sorted(pool.admit(2))
    pool.finish(left, "0", "left", "1", result=b"")
    assert pool.admit(1) == []
    pool.finish(right, "0", "right", "1", result=b"")

    assert tasks_of(pool.admit(2)) == ["run:last:r0"]


def test_no_row_group_opens_while_too_many_wait_to_be_written(pool: Pool) -> None:
    begin(pool, plan(records=6))
    drain(pool)
    assert progress(pool) == [4, 0, 0, 0, [0, 1]]
    assert pool.ask("m", "run_written", "run", 0) == ["written"]

    assert work(pool) == ["run:seed:g2"]


def test_dropped_record_discards_its_waiting_tasks_and_counts_add_up(pool: Pool) -> None:
    begin(pool)
    work(pool)
    (left,) = pool.admit(1)
    record = task_of(left).rsplit(":r", 1)[1]
    waiting = pool.count("queued")
    assert pool.ask("m", "drop", left, "no answer") == ["released"]
    assert pool.count("queued") == waiting - 1
    drain(pool)

    done, dropped, *_others = progress(pool)
    assert (done, dropped) == (3, 1)
    reason = pool.client.hget(pool.keys["cells"], f"run\0{record}\0!")
    column = task_of(left).split(":")[1]
    assert reason.split(b"\0") == [column.encode(), b"1", b"", b"", b"no answer"]


def test_task_that_outlives_its_dropped_record_adds_nothing(pool: Pool) -> None:
    begin(pool, plan(records=1, buffer_size=1))
    pool.finish(pool.admit(1)[0], "0", "seed", "1", result=b"")
    left, right = sorted(pool.admit(2))
    pool.ask("m", "drop", left, "no answer")
    assert progress(pool) == [0, 1, 0, 0, [0]]
    assert pool.finish(right, "0", "right", "1", result=b"") == "released"

    assert progress(pool) == [0, 1, 0, 0, [0]]
    assert pool.admit(1) == []
    assert pool.ask("m", "run_written", "run", 0) == ["ended"]
    assert kept_keys(pool) == []


@pytest.mark.parametrize("end", ["finish", "drop", "retry", "die"])
def test_task_that_outlives_its_written_row_group_leaves_nothing(pool: Pool, end: str) -> None:
    begin(pool, plan(records=2, buffer_size=1))
    pool.finish(pool.admit(1)[0], "0", "seed", "1", result=b"")
    left, right = sorted(pool.admit(2))
    pool.ask("m", "drop", left, "no answer")
    assert pool.ask("m", "run_written", "run", 0) == ["written"]
    if end == "finish":
        pool.finish(right, "0", "right", "1", result=b"")
    elif end == "die":
        pool.ask("m", "leave")
        pool.join("m")
    else:
        pool.ask("m", end, right, *(["late"] if end == "drop" else [0, 0]))

    assert not pool.client.exists(pool.keys["cells"])
    assert tasks_of(pool.admit(9)) == ["run:seed:g1"]


def test_cell_that_is_put_back_as_lost_too_often_drops_its_records(pool: Pool) -> None:
    begin(pool, plan(records=2))
    for _ in range(3):
        (lease,) = pool.admit(1)
        assert pool.ask("m", "retry", lease, 0, 2) == ["released"]

    assert progress(pool)[:2] == [0, 2]
    assert pool.admit(9) == []


def test_root_is_tried_again_though_a_record_of_its_number_was_dropped(pool: Pool) -> None:
    begin(pool, plan(max_open=2))
    first, second = pool.admit(2)
    pool.finish(first, *values_of(first), result=b"")
    left = next(lease for lease in pool.admit(9) if "r1" in lease)
    pool.ask("m", "drop", left, "no answer")
    assert pool.ask("m", "retry", second, 0, 0) == ["released"]

    assert "run:seed:g1" in tasks_of(pool.admit(9))


def test_cell_that_is_discarded_by_hand_drops_its_record_and_the_run_goes_on(pool: Pool) -> None:
    begin(pool)
    work(pool)
    assert pool.discard("run:left:r0") == ["discarded"]
    drain(pool)

    assert progress(pool)[:2] == [3, 1]


def test_dropped_root_drops_every_record_of_its_row_group(pool: Pool) -> None:
    begin(pool)
    pool.ask("m", "drop", pool.admit(1)[0], "no file")

    assert progress(pool) == [0, 2, 1, 0, [0]]


def test_last_written_row_group_ends_the_run_and_leaves_no_key(pool: Pool) -> None:
    begin(pool, plan(records=3))
    while work(pool):
        pass
    assert progress(pool) == [3, 0, 0, 0, [0, 1]]
    assert pool.ask("m", "run_written", "run", 0) == ["written"]
    assert pool.ask("m", "run_written", "run", 0) == ["unknown"]
    assert pool.client.hlen(pool.keys["cells"]) == 5
    assert pool.ask("m", "run_written", "run", 1) == ["ended"]

    assert kept_keys(pool) == []
    assert pool.ask("m", "run_collect", "run") == ["unknown"]


def test_cancelled_run_leaves_nothing_once_its_running_tasks_end(pool: Pool) -> None:
    begin(pool, plan(max_open=2))
    work(pool)
    one, two = pool.admit(2)
    assert pool.ask("m", "run_cancel", "run") == ["cancelled"]
    assert [kind for kind in RUN_KEYS if pool.client.exists(pool.keys[kind])] == []
    assert pool.admit(9) == []
    assert pool.finish(one, *values_of(one), result=b"") == "released"
    assert pool.ask("m", "retry", two, 0, 0) == ["released"]

    assert kept_keys(pool) == []
    assert pool.ask("m", "run_cancel", "run") == ["unknown"]


def test_run_that_is_begun_again_counts_a_task_that_still_ran(pool: Pool) -> None:
    begin(pool)
    (root,) = pool.admit(1)
    pool.ask("m", "run_cancel", "run")
    begin(pool)
    assert pool.admit(9) == []
    pool.finish(root, *values_of(root), result=b"")
    drain(pool)

    assert progress(pool)[:2] == [4, 0]


def test_run_that_asks_for_an_unknown_resource_is_refused_with_nothing_queued(pool: Pool) -> None:
    text = plan().replace(MODEL, "gpu=1,submission=1")

    assert pool.ask("m", "run_submit", "run", text, "{}") == ["refused", "unknown_resource", "gpu"]
    assert kept_keys(pool) == []


def test_run_that_asks_for_more_than_a_limit_is_refused_with_nothing_queued(pool: Pool) -> None:
    text = plan().replace(MODEL, "request:p/m=5,submission=1")
    refusal = pool.ask("m", "run_submit", "run", text, "{}")

    assert refusal == ["refused", "never_fits", "request:p/m"]
    assert kept_keys(pool) == []


# --- runs that workers may not make


def serve(pool: Pool, *members: str) -> None:
    for member in members:
        assert pool.ask(member, "serve", "forebay_cell") == ["served"]


def test_a_run_is_refused_once_every_live_member_that_makes_cells_refuses_it(pool: Pool) -> None:
    pool.open("driver")
    serve(pool, "m", "n")
    begin(pool)
    pool.ask("driver", "run_collect", "run")
    pool.listen("driver")
    assert pool.ask("m", "run_refuse", "run", "no\nvariable") == ["noted"]
    assert pool.ask("m", "run_refuse", "run", "no\nvariable") == ["noted"]
    assert pool.heard() == []
    assert pool.ask("driver", "run_collect", "run")[0] == "progress"

    assert pool.ask("n", "run_refuse", "run", 'no "file"') == ["refused"]
    assert [["row_group"]] in pool.heard()
    assert pool.ask("driver", "run_collect", "run") == ["refused", 'no "file"']
    assert pool.ask("m", "run_accept", "run") == ["refused"]


def test_a_run_that_one_member_accepted_is_refused_by_nobody(pool: Pool) -> None:
    serve(pool, "m", "n")
    begin(pool)
    assert pool.ask("m", "run_refuse", "run", "no") == ["noted"]
    assert pool.ask("n", "run_accept", "run") == ["accepted"]
    assert pool.ask("n", "run_refuse", "run", "no") == ["accepted"]
    assert progress(pool) == [0, 0, 1, 0, []]


def test_a_member_that_left_refuses_nothing_any_more_for_those_that_stay(pool: Pool) -> None:
    serve(pool, "m", "n")
    begin(pool)
    assert pool.ask("m", "run_refuse", "run", "no") == ["noted"]
    pool.ask("n", "leave")
    assert pool.ask("m", "run_refuse", "run", "no") == ["refused"]


def test_a_refused_run_leaves_nothing_when_it_is_cancelled(pool: Pool) -> None:
    serve(pool, "m")
    begin(pool)
    assert pool.ask("m", "run_refuse", "run", "no") == ["refused"]
    assert pool.ask("m", "run_cancel", "run") == ["cancelled"]
    assert kept_keys(pool) == ["held"]  # who serves what
    for operation in (("run_refuse", "run", "no"), ("run_accept", "run"), ("run_collect", "run")):
        assert pool.ask("m", *operation) == ["unknown"]
