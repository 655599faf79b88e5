"""Why a task, group, run or pool does not move: each sentence where it is true, and where not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from forebay.contracts.explanations import Explanation, Reason
from forebay.contracts.tasks import TaskAdmissionBlockSummary
from forebay.coordinator.explaining import in_pool
from forebay.coordinator.tasks.blocking import decode_facts
from forebay.coordinator.tasks.explaining import summary
from tests.contract.pool_under_clock import GPU, MODEL, ONE, THREE_GPUS, Pool, honest_pool
from tests.contract.run_plans import column, values_of
from tests.contract.shard_under_clock import SECOND_US, SERVERS, START_US

A, B = "local/a", "local/b"
GPU_SETTER = "operator"
MANY = 60
MAY_GO = ["in_line", "may_start"]


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """A pool with member m, which serves nothing, and worker w, which serves f and lives long."""
    for pool in honest_pool(request):
        pool.open("m", "w", gpu=4)
        for member in ("m", "w"):
            pool.beat(member, 3600 * SECOND_US)
        pool.ask("w", "serve", "f")
        assert pool.ask_for(1, "w").leases == []
        yield pool


def explained(pool: Pool, name: str) -> list[Explanation]:
    capture = json.loads(pool.run("tasks/explain", 100, name))
    return in_pool(decode_facts("main", capture), name)


def reasons(pool: Pool, name: str) -> dict[str, Reason]:
    """Return what the one explanation of a name says, by code."""
    (one,) = explained(pool, name)
    assert all(reason.says.endswith(".") for reason in one.reasons)
    assert one == Explanation.model_validate_json(one.model_dump_json())
    return {reason.code: reason for reason in one.reasons}


def codes(pool: Pool, name: str) -> list[str]:
    return list(reasons(pool, name))


def blocked(pool: Pool) -> TaskAdmissionBlockSummary:
    return summary(decode_facts("main", json.loads(pool.run("tasks/explain", 100))))


def let_fill(pool: Pool, count: int, group: str = A, asks: str = GPU, **terms: Any) -> list[str]:
    """Let the worker take tasks of a group; return their leases."""
    for i in range(count):
        pool.submit(f"{group}-{i}", group, asks, function="f", **terms)
    leases = pool.admit(count, by="w")
    assert len(leases) == count
    return leases


# -- where a task is


def test_an_unknown_name_has_no_explanation(pool: Pool) -> None:
    assert explained(pool, "t") == []


def test_a_running_task_names_its_member_and_how_long_it_has_run(pool: Pool) -> None:
    (lease,) = let_fill(pool, 1)
    pool.pass_time(3)
    found = reasons(pool, f"{A}-0")
    assert list(found) == ["running"]
    assert found["running"].holders == ("w",)
    assert f"w has had its lease {lease} for 3.0 s" in found["running"].says
    pool.finish(lease, by="w")
    assert codes(pool, f"{A}-0") == ["finished"]


def test_a_task_of_a_dead_member_goes_back_and_says_with_whom_it_was_lost(pool: Pool) -> None:
    pool.join("dies")
    pool.submit("t", A)
    assert len(pool.admit(1, by="dies")) == 1
    pool.pass_time(16)
    assert codes(pool, "t") == ["member_overdue"]
    pool.ask_for(0)
    found = reasons(pool, "t")
    assert list(found) == ["suspect"]
    assert found["suspect"].holders == ("dies",)
    assert (blocked(pool).queued_count, blocked(pool).reasons) == (1, {"suspect": 1})


def test_a_delayed_task_says_when_its_time_comes(pool: Pool) -> None:
    pool.submit("t", A, delay_us=90 * SECOND_US)
    found = reasons(pool, "t")["delayed"]
    assert "in 90 s" in found.says
    assert found.until == pytest.approx(START_US / 1e6 + 90)
    pool.pass_time(91)
    pool.ask_for(0)
    assert codes(pool, "t") == MAY_GO


def test_a_task_above_a_lowered_limit_says_who_set_it(pool: Pool) -> None:
    pool.submit("t", A, THREE_GPUS)
    assert codes(pool, "t") == MAY_GO
    pool.ask("m", "claim", "gpu", GPU_SETTER, 2)
    found = reasons(pool, "t")["never_fits"]
    assert "asks for 3 of gpu, and the limit is 2 (set by operator)" in found.says
    assert found.resource == "gpu"
    assert blocked(pool).reasons == {"never_fits": 1}


def test_a_task_that_no_worker_serves_names_its_function(pool: Pool) -> None:
    pool.submit("t", A, function="g")
    found = reasons(pool, "t")["not_served"]
    assert "serves 'g': 1 worker of this pool serves f alone" in found.says
    pool.submit("u", A, function="g")
    assert blocked(pool).reasons == {"not_served": 2}
    pool.ask("w", "serve", "f", "g")
    assert codes(pool, "t") == MAY_GO


def test_a_task_without_any_worker_says_so(pool: Pool) -> None:
    pool.ask("w", "leave")
    pool.submit("t", A, function="f")
    found = reasons(pool, "t")
    assert list(found) == ["no_worker"]
    assert "none of this pool serves 'f', or any other" in found["no_worker"].says


# -- what holds back who stands in line


def test_place_in_line_counts_the_group_and_the_groups(pool: Pool) -> None:
    pool.submit("a0", A, function="f")
    pool.submit("b0", B, function="f")
    pool.submit("b1", B, function="f")
    assert "the 1st of 1 task in line of group local/a, which stands 1st of 2 groups" in (
        reasons(pool, "a0")["in_line"].says
    )
    assert "the 2nd of 2 tasks in line of group local/b, which stands 2nd of 2 groups" in (
        reasons(pool, "b1")["in_line"].says
    )


def test_a_resource_without_room_names_its_oldest_leases(pool: Pool) -> None:
    leases = let_fill(pool, 4)
    pool.pass_time(7)
    pool.submit("t", B, GPU, function="f")
    pool.submit("u", B, GPU, function="f")
    found = reasons(pool, "t")
    assert list(found) == ["in_line", "no_capacity"]
    assert found["no_capacity"].resource == "gpu"
    assert set(found["no_capacity"].holders) < set(leases)
    assert "It asks for 1 of gpu; 4 of its limit 4 (set by pool)" in found["no_capacity"].says
    assert "on w for 7.0 s" in found["no_capacity"].says
    assert "Task t, the first of its group, asks for 1 of gpu" in (
        reasons(pool, "u")["no_capacity"].says
    )
    assert (blocked(pool).reasons, blocked(pool).diagnostics["tasks_by_resource"]) == (
        {"no_capacity": 2},
        {"gpu": 2},
    )
    pool.finish(leases[0], by="w")
    assert "no_capacity" not in codes(pool, "t")


def test_what_is_kept_for_a_large_task_names_that_task(pool: Pool) -> None:
    leases = let_fill(pool, 4)
    pool.submit("large", B, THREE_GPUS, function="f")
    pool.ask_for(1, "w")
    pool.pass_time(6)
    pool.finish(leases[0], by="w")
    pool.submit("small", A, GPU, function="f")
    found = reasons(pool, "small")["reserved"]
    assert (found.resource, found.holders) == ("gpu", ("large",))
    assert "no_capacity" in codes(pool, "large")
    assert "reserved" not in codes(pool, "large")


def test_a_group_at_its_limit_names_the_group_that_it_yields_to(pool: Pool) -> None:
    let_fill(pool, 1, limit=1)
    pool.submit("a1", A, GPU, function="f", limit=1)
    assert "group_cap" not in codes(pool, "a1")
    pool.submit("b0", B, GPU, function="f", limit=1)
    found = reasons(pool, "a1")["group_cap"]
    assert found.holders == (B,)
    assert "admitted limit 1" in found.says
    assert "group_cap" not in codes(pool, "b0")


def test_a_group_that_borrowed_says_what_it_owes(pool: Pool) -> None:
    pool.configure("borrow")
    leases = let_fill(pool, 3, limit=9)
    pool.submit("a3", A, GPU, function="f", limit=9)
    pool.submit("b0", B, GPU, function="f", limit=9)
    found = reasons(pool, "a3")["borrow_debt"]
    assert "owes 1 of gpu" in found.says
    assert "borrow_debt" not in codes(pool, "b0")
    assert blocked(pool).reasons == {"borrow_debt": 1}
    pool.finish(leases[0], by="w")
    assert "borrow_debt" not in codes(pool, "a3")


def test_busy_slots_are_named_with_their_workers_and_a_free_one_ends_it(pool: Pool) -> None:
    (lease,) = let_fill(pool, 1, asks=ONE)
    pool.submit("t", B, function="f")
    found = reasons(pool, "t")
    assert list(found) == ["in_line", "all_slots_busy"]
    assert found["all_slots_busy"].holders == ("w",)
    pool.discard("t")
    pool.finish(lease, by="w")
    pool.ask_for(1, "w")
    pool.submit("t", B, function="f")
    assert codes(pool, "t") == MAY_GO


def test_a_paused_pool_says_so_for_its_tasks_and_itself(pool: Pool) -> None:
    pool.submit("t", A, function="f")
    pool.ask("m", "set_state", "paused")
    assert codes(pool, "t") == ["in_line", "paused"]
    assert codes(pool, "main") == ["paused"]
    assert blocked(pool).reasons == {"paused": 1}
    pool.ask("m", "set_state", "")
    assert codes(pool, "t") == MAY_GO
    assert blocked(pool).reasons == {}


def test_what_holds_the_whole_pool_is_said_once(pool: Pool) -> None:
    pool.submit("t", A, function="f")
    pool.submit("u", B, function="f")
    pool.ask("m", "set_state", "paused")
    (one,) = explained(pool, "main")
    assert [reason.says.split(":")[0] for reason in one.reasons][1:] == ["The pool is paused"]


def test_a_task_beside_the_line_says_that_its_pool_is_paused(pool: Pool) -> None:
    pool.join("dies")
    pool.submit("lost", A)
    assert len(pool.admit(1, by="dies")) == 1
    pool.pass_time(16)
    pool.ask_for(0)
    pool.submit("later", A, delay_us=90 * SECOND_US)
    pool.submit("unserved", A, function="g")
    pool.submit("large", A, THREE_GPUS)
    pool.ask("m", "claim", "gpu", GPU_SETTER, 2)
    pool.ask("m", "set_state", "paused")
    expected = {
        "lost": "suspect",
        "later": "delayed",
        "unserved": "not_served",
        "large": "never_fits",
    }
    for name, code in expected.items():
        assert codes(pool, name) == [code, "paused"], name


def test_a_group_is_explained_by_its_first_task(pool: Pool) -> None:
    let_fill(pool, 4)
    pool.submit("t", A, GPU, function="f", weight=2)
    found = reasons(pool, A)
    assert list(found) == ["in_line", "no_capacity"]
    assert "Group local/a has weight 2, runs 4 tasks and has 1 in line" in found["in_line"].says
    pool.discard("t")
    assert codes(pool, A) == ["not_in_line"]


def test_a_group_whose_tasks_all_wait_beside_the_line_says_what_for(pool: Pool) -> None:
    for name in ("large", "larger"):
        pool.submit(name, A, THREE_GPUS)
    pool.submit("later", A, delay_us=90 * SECOND_US)
    pool.submit("unserved", A, function="g")
    pool.ask("m", "claim", "gpu", GPU_SETTER, 2)
    found = reasons(pool, A)
    assert list(found) == ["not_in_line", "delayed", "never_fits", "not_served"]
    assert found["never_fits"].says.startswith("2 tasks wait for a higher limit of a resource;")
    assert found["delayed"].says.startswith("1 task waits for a later time; see forebay explain")
    pool.ask("m", "set_state", "paused")
    assert codes(pool, A)[-1] == "paused"


def test_a_run_of_a_paused_pool_says_so_once(made: Pool) -> None:
    make_seed(made)
    made.ask("m", "set_state", "paused")
    (one,) = explained(made, "run")
    assert [reason.code for reason in one.reasons].count("paused") == 1


def test_looking_changes_nothing(pool: Pool) -> None:
    let_fill(pool, 2)
    pool.submit("t", A, GPU, function="f")
    before = pool.stored()
    for name in ("t", A, "main", "nothing"):
        explained(pool, name)
    assert pool.stored() == before


# -- runs


def begin(pool: Pool) -> None:
    columns = [column("seed", "g", [], [2], ONE), column("left", "r", ["seed"], [], MODEL)]
    for one in columns:
        one |= {"group": f"local/{one['name']}", "fn": "forebay_cell"}
    sizes = {"records": MANY, "buffer_size": MANY, "max_open": 1, "row_groups": 1, "limits": {}}
    pool.join("d", ttl_us=3600 * SECOND_US)
    text = json.dumps(sizes | {"columns": columns})
    assert pool.ask("d", "run_submit", "run", text, "{}") == ["accepted"]


@pytest.fixture
def made(pool: Pool) -> Iterator[Pool]:
    """A pool with a run whose worker w makes cells."""
    pool.ask("w", "serve", "f", "forebay_cell")
    begin(pool)
    yield pool
    pool.ask("d", "run_cancel", "run")


def make_seed(pool: Pool) -> list[str]:
    """Make the root; return the leases of the cells that it let go."""
    (root,) = pool.admit(1, by="w")
    assert pool.finish(root, *values_of(root, buffer_size=MANY), by="w", result=b"") == "released"
    return pool.admit(4, by="w")


def test_a_run_tells_its_progress_and_what_its_groups_wait_for(made: Pool) -> None:
    found = reasons(made, "run")
    assert "0 of 60 records are done, 0 dropped, 60 left" in found["progress"].says
    assert "unattended" not in found
    assert len(make_seed(made)) == 4
    found = reasons(made, "run")
    assert found["tasks"].says == "In group local/left: 4 run, 56 wait."
    assert found["no_capacity"].resource == "request:p/m"


def test_a_cell_that_waits_for_a_cooldown_says_until_when(made: Pool) -> None:
    lease = make_seed(made)[0]
    made.ask("w", "retry", lease, 20 * SECOND_US, 1, "request:p/m")
    found = reasons(made, "local/left")["cooldown"]
    assert (found.resource, found.until) == ("request:p/m", pytest.approx(START_US / 1e6 + 20))
    made.pass_time(21)
    made.ask_for(0, "w")
    assert "cooldown" not in codes(made, "local/left")


def test_a_run_that_nobody_drives_says_how_to_go_on(made: Pool) -> None:
    assert made.ask("d", "leave") == ["left"]
    assert "forebay resume run" in reasons(made, "run")["unattended"].says
    made.join("d")
    made.ask("d", "run_collect", "run")
    assert "unattended" not in reasons(made, "run")


def test_a_run_that_stopped_itself_names_column_and_cause(made: Pool) -> None:
    for lease in make_seed(made):
        made.ask("w", "drop", lease, "401 from p/m", "p/m", "401")
    while "stopped" not in (found := reasons(made, "run")):
        for lease in made.admit(4, by="w"):
            made.ask("w", "drop", lease, "401 from p/m", "p/m", "401")
    says = found["stopped"].says
    assert (
        "20 of the last 20 finished cells of column 'left' failed, the last one with: 401" in says
    )


def test_a_run_that_every_worker_refuses_says_why(made: Pool) -> None:
    assert "refused" not in reasons(made, "run")
    assert made.ask("w", "run_refuse", "run", "it asks for KEY") == ["refused"]
    assert "it asks for KEY" in reasons(made, "run")["refused"].says
