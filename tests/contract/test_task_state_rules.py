"""Pausing, draining and what a pool writes down, each rule on both servers (design 04)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.pool_under_clock import Pool, honest_pool, tasks_of
from tests.contract.run_plans import plan
from tests.contract.shard_under_clock import SECOND_US, SERVERS, START_US

MOST_EVENTS = 8192
NODE = 100
"""Entries by which a stream may be longer than it is to be."""


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", gpu=2)
        yield pool


def set_state(pool: Pool, state: str) -> None:
    assert pool.ask("m", "set_state", state) == ["set"]


# -- pausing


def test_paused_pool_admits_nothing_and_says_so(pool: Pool) -> None:
    set_state(pool, "paused")
    pool.submit_many("a", 2)
    pool.submit_many("b", 1)
    answer = pool.ask_for(9)

    assert (answer.leases, answer.queued, answer.reasons) == ([], 3, {"paused": 3})
    assert (pool.reasons(), pool.capture()["state"]) == ({"paused": 3}, "paused")


def test_what_runs_in_a_paused_pool_goes_on(pool: Pool) -> None:
    pool.submit_many("a", 3)
    finished, retried, discarded = pool.admit(3)
    set_state(pool, "paused")
    assert pool.finish(finished) == "released"
    assert pool.ask("m", "retry", retried, 0, 0) == ["released"]
    assert pool.ask("m", "drop", discarded, "bad") == ["released"]

    assert pool.reasons() == {"paused": 1}
    assert pool.discard("a1") == ["discarded"]


def test_time_goes_on_in_a_paused_pool(pool: Pool) -> None:
    pool.join("n")
    pool.submit("held")
    pool.admit(1, by="n")
    pool.submit("delayed", delay_us=SECOND_US)
    set_state(pool, "paused")
    pool.pass_time(10)
    pool.beat("m")
    pool.pass_time(6)
    pool.admit(0)

    assert pool.reasons() == {"paused": 2}


def test_idle_member_is_told_once_a_paused_pool_opens(pool: Pool) -> None:
    pool.join("idle")
    pool.listen("idle")
    set_state(pool, "paused")
    pool.admit(1, by="idle")
    pool.submit("t")
    assert pool.woken() == []
    set_state(pool, "")

    assert pool.woken() == ["idle"]
    assert tasks_of(pool.admit(1, by="idle")) == ["t"]


# -- draining


def test_draining_pool_takes_nothing_new_and_leaves_nothing_behind(pool: Pool) -> None:
    pool.submit("known")
    set_state(pool, "draining")
    before = pool.stored()

    assert pool.submit("new") == ["refused", "shutdown", ""]
    assert pool.submit("known") == ["known"]
    assert pool.stored() == before
    assert pool.arq("new") == set()
    set_state(pool, "")
    assert pool.submit("new") == ["accepted"]


def test_draining_pool_goes_on_with_what_it_has(pool: Pool) -> None:
    for task_id, delay_us in (("a", 0), ("b", 0), ("later", SECOND_US)):
        pool.submit(task_id, delay_us=delay_us)
    set_state(pool, "draining")
    (lease,) = pool.admit(1)
    assert pool.ask("m", "retry", lease, 0, 0) == ["released"]
    pool.pass_time(1)

    assert tasks_of(pool.admit(9)) == ["a", "b", "later"]


def test_run_that_was_there_goes_on_in_a_draining_pool(pool: Pool) -> None:
    pool.ask("m", "run_submit", "run", plan(), "{}")
    set_state(pool, "draining")
    (root,) = pool.admit(1)
    assert pool.finish(root, 0, "seed", '"s"', 1, "seed", '"t"') == "released"

    assert len(pool.admit(9)) == 4


# -- what is written down


OF_THE_POOL = {
    "member_joined",
    "resource_limit_claimed",
    "resource_limit_changed",
    "pool_setting_changed",
}


def kinds(pool: Pool) -> list[str]:
    return [event["kind"] for event in pool.events() if event["kind"] not in OF_THE_POOL]


def told(pool: Pool, kind: str) -> list[dict[str, str]]:
    """Return what was written down of a kind, without place and time."""
    return [
        {name: value for name, value in event.items() if name not in {"sequence", "at_us", "kind"}}
        for event in pool.events()
        if event["kind"] == kind
    ]


def live(pool: Pool) -> None:
    """Let tasks meet every fate that there is but their member's death."""
    for task_id in ("done", "dropped", "again", "gone"):
        pool.submit(task_id)
    done, dropped, again = pool.admit(3)
    pool.submit("large", "large", "gpu=2,submission=1")
    pool.ask("m", "report", "worker_spawned", "done", done)
    pool.finish(done)
    pool.ask("m", "drop", dropped, "bad")
    pool.ask("m", "retry", again, SECOND_US, 0)
    pool.discard("gone")
    pool.ask("m", "claim", "gpu", "pool", 1)
    pool.pass_time(1)
    pool.admit(1)


def test_pool_that_is_told_to_writes_down_what_befalls_each_task(pool: Pool) -> None:
    pool.ask("m", "configure", "", 0, "full", 3)
    live(pool)

    assert [(told["kind"], told["task_id"]) for told in pool.events() if "task_id" in told] == [
        ("ready_enqueued", "done"),
        ("ready_enqueued", "dropped"),
        ("ready_enqueued", "again"),
        ("ready_enqueued", "gone"),
        ("task_lease_acquired", "done"),
        ("task_lease_acquired", "dropped"),
        ("task_lease_acquired", "again"),
        ("ready_enqueued", "large"),
        ("worker_spawned", "done"),
        ("task_lease_released", "done"),
        ("task_lease_released", "dropped"),
        ("retry_deferred", "again"),
        ("cancelled", "gone"),
        ("admission_denied", "large"),
        ("ready_enqueued", "again"),
        ("task_lease_acquired", "again"),
    ]
    assert told(pool, "worker_spawned") == [
        {"task_id": "done", "lease_id": "done~1", "member_id": "m"}
    ]
    assert told(pool, "task_lease_released") == [
        {"task_id": "done", "lease_id": "done~1", "outcome": "completed"},
        {"task_id": "dropped", "lease_id": "dropped~2", "outcome": "dropped"},
    ]
    assert told(pool, "retry_deferred") == [
        {
            "task_id": "again",
            "lease_id": "again~3",
            "available_at_us": str(START_US + SECOND_US),
        }
    ]
    assert told(pool, "admission_denied") == [{"task_id": "large", "reason": "never_fits"}]
    assert told(pool, "task_lease_acquired")[0] == {
        "task_id": "done",
        "lease_id": "done~1",
        "member_id": "m",
    }
    assert told(pool, "ready_enqueued")[4] == {
        "task_id": "large",
        "group": "large",
        "asks": "gpu=2,submission=1",
    }


def test_other_pools_write_down_nothing_of_single_tasks(pool: Pool) -> None:
    live(pool)

    assert kinds(pool) == []


def test_cell_of_a_run_is_written_down_as_any_task(pool: Pool) -> None:
    pool.ask("m", "configure", "", 0, "full", 3)
    pool.ask("m", "run_submit", "run", plan(), "{}")
    (root,) = pool.admit(1)
    pool.finish(root, 0, "seed", '"s"', 1, "seed", '"t"')

    assert kinds(pool) == [
        "run_attended",
        "row_group_admitted",
        "ready_enqueued",
        "row_group_admission_blocked",
        "task_lease_acquired",
        "task_lease_released",
        *["ready_enqueued"] * 4,
    ]


def test_lost_lease_is_written_down_by_every_pool(pool: Pool) -> None:
    pool.submit("t")
    (lease,) = pool.admit(1)
    pool.pass_time(16)
    pool.join("n")
    pool.admit(0, by="n")

    assert told(pool, "task_lease_expired") == [
        {"task_id": "t", "lease_id": lease, "member_id": "m", "reason": "member_lost"}
    ]
    (expired,) = told(pool, "member_expired")
    assert (expired["member_id"], expired["reason"]) == ("m", "member_lost")


def test_change_of_state_is_written_down_once(pool: Pool) -> None:
    for state in ("paused", "paused", "draining", ""):
        set_state(pool, state)

    assert told(pool, "pool_state_changed") == [
        {"from": "open", "to": "paused", "member_id": "m"},
        {"from": "paused", "to": "draining", "member_id": "m"},
        {"from": "draining", "to": "open", "member_id": "m"},
    ]


def test_members_are_told_how_much_is_written_down(pool: Pool) -> None:
    found = [pool.ask_for().events]
    pool.ask("m", "configure", "", 0, "full", 3)
    found.append(pool.ask_for().events)

    assert found == ["", "full"]


def test_nothing_that_is_written_down_holds_a_payload_or_a_result(pool: Pool) -> None:
    pool.ask("m", "configure", "", 0, "full", 3)
    pool.submit("t", payload=b"a secret")
    pool.finish(pool.admit(1)[0], result=b"a secret")

    assert "a secret" not in str(pool.events())


def test_stream_keeps_the_latest_events_in_the_order_of_their_numbers(pool: Pool) -> None:
    pool.ask("m", "configure", "", 0, "full", 3)
    for i in range(18):
        pool.ask_all("m", *[("report", "worker_spawned", f"t{i}", "l")] * 500)
    events = pool.events()
    numbers = [int(event["sequence"]) for event in events]

    assert MOST_EVENTS <= len(events) <= MOST_EVENTS + NODE
    assert events[-1]["task_id"] == "t17"
    assert numbers == list(range(pool.count("sequence") - len(events) + 1, numbers[-1] + 1))
