"""How leases of tasks end, who is woken, and arq's keys, on both servers (design 04; design 10)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.contract.pool_under_clock import (
    START_MS,
    Pool,
    demand,
    honest_pool,
    tasks_of,
)
from tests.contract.shard_under_clock import SECOND_US, SERVERS, START_US


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    yield from honest_pool(request)


# -- how a lease ends


def test_tasks_of_a_dead_member_return_to_the_head_of_their_groups(pool: Pool) -> None:
    pool.open("m")
    for i in range(4):
        pool.submit(f"t{i}")
    lost = pool.admit(2)
    pool.pass_time(16)
    pool.join("n")
    answer = pool.ask_for(9, "n")

    assert [(lease[1], lease[6]) for lease in answer.leases] == [
        ("t0", "1"),  # a loss is no try
        ("t2", "1"),
        ("t3", "1"),
    ]
    assert answer.reasons == {"suspect": 1}  # of those that were lost a member runs one at a time
    assert pool.client.hget(pool.keys["ledger"], "submission") == b"3"
    assert pool.finish(lost[0], by="n") == "stale_lease"


def test_finish_with_a_lost_lease_writes_nothing(pool: Pool) -> None:
    pool.open("m")
    pool.submit("t")
    (lease,) = pool.admit(1)
    pool.pass_time(16)
    pool.join("n")
    pool.admit(1, by="n")
    with pytest.raises(redis.ResponseError, match="NOMEMBER"):
        pool.finish(lease)
    pool.join("again")

    assert pool.finish(lease, by="again") == "stale_lease"
    assert pool.arq("t") == {"job", "in-progress", "queue"}


def test_second_finish_is_a_duplicate_and_an_invented_lease_is_unknown(pool: Pool) -> None:
    pool.open("m")
    pool.submit("t")
    (lease,) = pool.admit(1)

    assert pool.finish(lease) == "released"
    assert pool.finish(lease, result=b"other") == "duplicate"
    assert pool.client.get("arq:result:t") == b"done"
    assert pool.finish("t~99") == "unknown_lease"


def test_retry_comes_back_at_its_time_and_not_before(pool: Pool) -> None:
    pool.open("m")
    pool.submit("t")
    (lease,) = pool.admit(1)
    assert pool.ask("m", "retry", lease, 5 * SECOND_US, 0) == ["released"]
    assert pool.next_wake_us == START_US + 5 * SECOND_US
    pool.pass_time(4.999999)
    assert pool.admit(1) == []
    pool.pass_time(0.000001)

    assert tasks_of(pool.admit(1)) == ["t"]


def test_delayed_task_waits_and_its_group_takes_the_limit_that_it_brings(pool: Pool) -> None:
    pool.open("m")
    pool.submit("a", limit=5)
    pool.admit(1)
    pool.submit("b", limit=5)
    pool.submit("c", limit=1, delay_us=SECOND_US)

    assert pool.count("delayed") == 1
    assert pool.audit().differences == ()
    pool.pass_time(1)
    assert tasks_of(pool.admit(5)) == ["b", "c"]


def test_leaving_gives_tasks_back_at_once(pool: Pool) -> None:
    pool.open("m", "n")
    pool.submit("t")
    pool.admit(1)
    assert pool.ask("m", "leave") == ["left"]

    assert "in-progress" not in pool.arq("t")
    assert tasks_of(pool.admit(1, by="n")) == ["t"]


@pytest.mark.parametrize(
    "operation",
    [demand(2), ("serve", "f"), ("run_submit", "r", "{}", "{}"), ("run_collect", "r")],
    ids=lambda operation: operation[0],
)
def test_a_member_that_has_left_is_given_nothing_later_in_its_batch(
    pool: Pool, operation: tuple[Any, ...]
) -> None:
    pool.open("m", "n")
    pool.submit("t")
    assert pool.ask_all("m", ("leave",), operation) == [["left"], ["error", "NOMEMBER", "m"]]

    assert pool.audit().differences == ()
    assert tasks_of(pool.admit(1, by="n")) == ["t"]


# -- who is woken


def test_idle_member_is_woken_by_a_submit(pool: Pool) -> None:
    pool.open("m", "idle")
    pool.listen("idle")
    pool.admit(1, by="idle")
    pool.submit("t")

    assert pool.heard() == [[["work"]]]


def test_idle_member_is_woken_by_a_finish_that_makes_room(pool: Pool) -> None:
    pool.open("m", "idle", submission=1)
    pool.listen("idle")
    pool.submit("a")
    (lease,) = pool.admit(1)
    pool.submit("b")
    pool.admit(1, by="idle")
    assert pool.heard() == []
    pool.finish(lease)

    assert len(pool.heard()) == 1


def test_idle_member_is_woken_by_a_raised_limit(pool: Pool) -> None:
    pool.open("m", "idle", submission=1)
    pool.listen("idle")
    for task_id in ("a", "b"):
        pool.submit(task_id)
    pool.admit(1)
    pool.admit(1, by="idle")
    assert pool.heard() == []
    pool.ask("m", "claim", "submission", "pool", 2)

    assert len(pool.heard()) == 1


def test_idle_members_are_told_when_the_first_delayed_task_is_due(pool: Pool) -> None:
    pool.open("m", "idle")
    pool.listen_to_all()
    pool.admit(2, by="idle")
    pool.submit("first", delay_us=5 * SECOND_US)
    assert pool.told() == {"idle": [["due", START_US + 5 * SECOND_US]]}
    pool.submit("second", delay_us=6 * SECOND_US)
    pool.submit("third", delay_us=4 * SECOND_US, by="idle")  # it reads when in its reply
    assert pool.told() == {}
    assert pool.next_wake_us == START_US + 4 * SECOND_US


# -- arq's keys over a job's life


def test_arqs_keys_follow_a_jobs_life(pool: Pool) -> None:
    pool.open("m")
    pool.submit("t")
    assert pool.arq("t") == {"job", "queue"}
    assert pool.client.zscore(pool.keys["queue"], "t") == START_MS
    assert pool.client.ttl("arq:job:t") == -1

    (lease,) = pool.admit(1)
    assert pool.arq("t") == {"job", "queue", "in-progress"}

    pool.ask("m", "retry", lease, SECOND_US, 0)
    assert pool.arq("t") == {"job", "queue"}
    assert pool.client.zscore(pool.keys["queue"], "t") == START_MS + 1000

    pool.pass_time(1)
    (lease,) = pool.admit(1)
    pool.client.zadd("arq:abort", {"t": 1})
    pool.finish(lease)
    assert pool.arq("t") == {"result"}
    assert 0 < pool.client.pttl("arq:result:t") <= 5000
    assert not pool.client.exists("arq:abort")


@pytest.mark.parametrize(("counts", "next_try", "losses"), [(0, "2", 0), (1, "1", 0), (2, "1", 1)])
def test_task_that_is_put_back_counts_a_try_nothing_or_a_loss(
    pool: Pool, counts: int, next_try: str, losses: int
) -> None:
    pool.open("m")
    pool.submit("t")
    (lease,) = pool.admit(1)
    pool.ask("m", "retry", lease, 0, counts)
    assert pool.count("suspect_tasks") == losses
    (again,) = pool.ask_for().leases

    assert again[6] == next_try


def test_task_that_is_put_back_as_lost_too_often_is_told_with_its_members(pool: Pool) -> None:
    pool.open("m")
    pool.submit("t")
    for _ in range(3):
        (lease,) = pool.admit(1)
        pool.ask("m", "retry", lease, 0, 2)
    answer = pool.ask_for()

    assert (answer.leases, answer.lost) == ([], [["t", "m,m,m"]])
    assert pool.ask("m", "fail_lost", "t", b"", "") == ["discarded"]


def test_cron_job_keeps_its_mark_and_is_not_submitted_again(pool: Pool) -> None:
    pool.open("m")
    pool.submit("t")
    (lease,) = pool.admit(1)
    pool.ask("m", "finish", lease, b"", "", 60_000)

    assert pool.arq("t") == {"in-progress"}
    assert pool.submit("t") == ["known"]
