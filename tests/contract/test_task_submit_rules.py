"""What is taken into a pool's queue and what is not, on both servers.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.pool_under_clock import GPU, MODEL, ONE, Pool, honest_pool, submission, tasks_of
from tests.contract.run_plans import plan
from tests.contract.shard_under_clock import SECOND_US, SERVERS, START_US

LATER_US = START_US + SECOND_US


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", gpu=2)
        yield pool


# -- what is refused


@pytest.mark.parametrize(
    ("terms", "refusal"),
    [
        ({"asks": "tpu=1,submission=1"}, ["unknown_resource", "tpu"]),
        ({"asks": "gpu=3,submission=1"}, ["never_fits", "gpu"]),
        ({"asks": "gpu=2,submission=101"}, ["never_fits", "submission"]),
        ({"not_before_us": LATER_US, "asks": "gpu=3,submission=1"}, ["never_fits", "gpu"]),
    ],
)
def test_refused_task_leaves_nothing_behind(
    pool: Pool, terms: dict[str, Any], refusal: list[str]
) -> None:
    pool.ask("m", "serve", "present")
    pool.submit("first", limit=3)
    before = pool.stored()

    assert pool.submit("t", weight=5, limit=1, **terms) == ["refused", *refusal]
    assert pool.arq("t") == set()
    assert pool.stored() == before


@pytest.mark.parametrize("asks", ["gpu=2,submission=1", "gpu=1,submission=100"])
def test_task_that_asks_for_a_whole_limit_is_taken(pool: Pool, asks: str) -> None:
    assert pool.submit("t", asks=asks) == ["accepted"]
    assert tasks_of(pool.admit(1)) == ["t"]


def test_refusal_of_one_task_refuses_no_other_of_its_call(pool: Pool) -> None:
    asks = {"a": GPU, "b": "gpu=9,submission=1", "c": GPU}
    results = pool.ask_all("m", *(submission(name, asks=asks[name]) for name in asks))

    assert results == [["accepted"], ["refused", "never_fits", "gpu"], ["accepted"]]
    assert tasks_of(pool.admit(9)) == ["a", "c"]


# -- functions that somebody runs


def test_task_of_a_function_that_nobody_serves_waits_and_is_said_to(pool: Pool) -> None:
    assert pool.submit("t", function="f") == ["accepted", "not_served"]
    pool.submit("u", "other")
    assert tasks_of(pool.admit(9)) == ["u"]
    assert pool.reasons() == {"not_served": 1}


def test_function_is_served_as_long_as_one_live_member_serves_it(pool: Pool) -> None:
    pool.join("n", "o")
    pool.ask("m", "serve", "other")
    for member in ("n", "o", "o"):
        pool.ask(member, "serve", "f", "g")
    pool.ask("n", "leave")
    assert pool.submit("a", function="f") == ["accepted"]
    pool.pass_time(10)
    pool.beat("m")
    pool.pass_time(6)

    assert pool.submit("b", function="f") == ["accepted", "not_served"]
    assert pool.submit("c", function="other") == ["accepted"]
    assert pool.submit("d") == ["accepted"]
    assert pool.client.hgetall(pool.keys["functions"]) == {b"other": b"1"}


# -- what is known


@pytest.mark.parametrize("place", ["ready", "delayed", "parked", "running", "result", "mark"])
def test_known_task_is_accepted_and_stays_as_it_is(pool: Pool, place: str) -> None:
    pool.submit("t", asks=GPU, limit=3, delay_us=SECOND_US if place == "delayed" else 0)
    if place == "parked":
        pool.ask("m", "claim", "gpu", "pool", "")
    if place in {"running", "result", "mark"}:
        (lease,) = pool.admit(1)
    if place == "result":
        pool.finish(lease, result=f"...{pool.keys['queue']}...".encode())
    if place == "mark":
        pool.ask("m", "finish", lease, b"", "", 60_000)
    payload, before = pool.client.get("arq:job:t"), pool.stored()

    assert pool.submit("t", "elsewhere", weight=7, limit=1, payload=b"other") == ["known"]
    assert pool.client.get("arq:job:t") == payload
    assert pool.stored() == before


@pytest.mark.parametrize("kind", ["job", "in-progress", "result"])
@pytest.mark.parametrize("stored", ["another's", "of another type"])
def test_id_that_another_pool_or_program_holds_is_told_and_stays_as_it_is(
    pool: Pool, kind: str, stored: str
) -> None:
    if stored == "another's":
        pool.client.set(f"arq:{kind}:t", "fb:{pool:other}:queue 123")
    else:
        pool.client.rpush(f"arq:{kind}:t", "x")
    before = pool.stored()

    assert pool.submit("t", not_before_us=START_US + SECOND_US) == ["known", "elsewhere"]
    assert pool.stored() == before
    assert pool.arq("t") == {kind}
    pool.client.delete(f"arq:{kind}:t")


@pytest.mark.parametrize(
    ("later_us", "answer"),
    [(0, "known"), (499, "known"), (1000, "accepted"), (2_000_000, "accepted"), (-1000, "known")],
)
def test_mark_of_a_cron_jobs_instant_refuses_no_later_one(
    pool: Pool, later_us: int, answer: str
) -> None:
    instant_us = START_US - 60 * SECOND_US
    pool.submit("t", not_before_us=instant_us)
    pool.ask("m", "finish", pool.admit(1)[0], b"", "", 60_000)

    assert pool.submit("t", not_before_us=instant_us + later_us) == [answer]


def test_mark_of_a_cron_job_refuses_who_names_no_instant(pool: Pool) -> None:
    pool.submit("t", not_before_us=START_US)
    pool.ask("m", "finish", pool.admit(1)[0], b"", "", 60_000)

    assert pool.submit("t") == ["known"]


def test_task_whose_result_has_expired_is_new(pool: Pool) -> None:
    pool.submit("t")
    pool.finish(pool.admit(1)[0])
    pool.client.delete("arq:result:t")

    assert pool.submit("t") == ["accepted"]


def test_discarded_task_comes_again_with_its_new_payload_and_terms(pool: Pool) -> None:
    pool.submit("t", asks=MODEL, payload=b"old")
    pool.discard("t")
    assert pool.submit("t", "h", payload=b"new") == ["accepted"]
    answer = pool.ask_for()

    assert [(lease[1], lease[2], lease[3]) for lease in answer.leases] == [("t", "h", ONE)]
    assert pool.payloads == [b"new"]


def test_wish_to_abort_an_earlier_task_does_not_hit_a_new_one_of_its_id(pool: Pool) -> None:
    pool.client.zadd("arq:abort", {"t": 1, "another": 1})
    pool.submit("t")
    answer = pool.ask_for()

    assert [lease[7] for lease in answer.leases] == ["0"]
    assert pool.client.zrange("arq:abort", 0, -1) == [b"another"]


def test_discarded_task_that_comes_again_is_new_at_the_tail(pool: Pool) -> None:
    for task_id in ("a", "b"):
        pool.submit(task_id)
    assert pool.discard("a") == ["discarded"]
    assert pool.arq("a") == set()
    assert pool.discard("a") == ["unknown"]
    pool.submit("a")

    assert tasks_of(pool.admit(5)) == ["b", "a"]


# -- payloads that expire


def test_payload_lives_as_long_as_was_asked_for(pool: Pool) -> None:
    pool.submit("t", ttl_ms=60_000)

    assert 0 < pool.client.pttl("arq:job:t") <= 60_000


def test_task_whose_payload_expired_takes_no_slot_and_no_turn(pool: Pool) -> None:
    pool.submit_many("a", 3, GPU, limit=2)
    pool.client.delete("arq:job:a0", "arq:job:a1")
    answer = pool.ask_for(1)

    assert (answer.expired, [lease[1] for lease in answer.leases]) == (["a0", "a1"], ["a2"])
    assert pool.arq("a0") == {"queue"}
    assert pool.ask("m", "expire", "a0", b"told", "") == ["discarded"]
    assert pool.arq("a0") == {"result"}
    assert pool.client.hget(pool.keys["ledger"], "gpu") == b"1"
    assert pool.capture()["groups"][0]["running"] == 1
    pool.submit("b0", "b")
    assert pool.ask_for(1).expired == []
    pool.pass_time(60)
    pool.open("n")
    assert pool.ask_for(2, "n").expired == ["a1"]  # nobody has ended it


# -- delayed tasks


def test_delayed_task_takes_the_place_of_its_arrival(pool: Pool) -> None:
    pool.submit("a", delay_us=2 * SECOND_US)
    pool.submit("b", delay_us=SECOND_US)
    pool.submit("c")
    assert pool.next_wake_us == START_US + SECOND_US
    pool.pass_time(1)
    pool.admit(0)
    assert pool.next_wake_us == START_US + 2 * SECOND_US
    pool.pass_time(1)

    assert tasks_of(pool.admit(9)) == ["a", "b", "c"]


@pytest.mark.parametrize("late_seconds", [0, 0.5, 3])
def test_task_starts_at_its_instant_however_late_its_submit_arrives(
    pool: Pool, late_seconds: float
) -> None:
    pool.pass_time(late_seconds)
    pool.submit("t", not_before_us=LATER_US)

    assert pool.client.zscore(pool.keys["queue"], "t") == round(LATER_US / 1000)
    assert tasks_of(pool.admit(9)) == (["t"] if late_seconds > 1 else [])
    pool.pass_time(max(0, 1 - late_seconds))
    assert tasks_of(pool.admit(9)) == ([] if late_seconds > 1 else ["t"])


@pytest.mark.parametrize("instant_us", [0, -62_135_596_800_000_000, START_US - 1_000_600])
def test_past_instant_keeps_its_score_and_its_task_is_ready(pool: Pool, instant_us: int) -> None:
    pool.submit("t", not_before_us=instant_us)
    (lease,) = pool.ask_for(1).leases

    assert pool.client.zscore(pool.keys["queue"], "t") == round(instant_us / 1000)
    assert lease[5] == str(round(instant_us / 1000))


def test_instant_of_the_year_9999_is_kept(pool: Pool) -> None:
    last_us = 253_402_300_799_999_000
    pool.submit("t", not_before_us=last_us)

    assert pool.client.zscore(pool.keys["queue"], "t") == last_us / 1000
    assert pool.admit(1) == []
    assert pool.count("delayed") == 1


def test_instants_are_those_of_a_clock_that_stepped_back(pool: Pool) -> None:
    pool.admit(0)
    pool.pass_time(-3600)
    now_us = START_US - 3600 * SECOND_US
    pool.submit("soon", not_before_us=now_us + 5 * SECOND_US)
    pool.submit("ready")
    scores = {name: pool.client.zscore(pool.keys["queue"], name) for name in ("soon", "ready")}

    assert scores == {"soon": round(now_us / 1000) + 5000, "ready": now_us // 1000}
    assert tasks_of(pool.admit(9)) == ["ready"]
    pool.pass_time(5)
    assert tasks_of(pool.admit(9)) == ["soon"]


def test_more_due_tasks_than_one_call_moves_come_with_the_next(pool: Pool) -> None:
    pool.submit_many("t", 70, delay_us=SECOND_US)
    pool.pass_time(1)
    queued = []
    for _ in range(2):
        pool.admit(0)
        queued.append(pool.count("queued"))

    assert queued == [64, 70]


def test_group_keeps_its_turns_while_its_only_task_is_delayed(pool: Pool) -> None:
    pool.submit("a0", "a", weight=0.001)
    pool.finish(pool.admit(1)[0])
    pool.submit("a1", "a", delay_us=2 * 3600 * SECOND_US)
    pool.beat("m", ttl_us=3 * 3600 * SECOND_US)
    pool.pass_time(2 * 3600)
    pool.submit("b0", "b")

    assert tasks_of(pool.admit(9)) == ["b0", "a1"]


# -- discarding


@pytest.mark.parametrize("place", ["first", "behind", "delayed", "parked"])
def test_waiting_task_is_discarded_wherever_it_is(pool: Pool, place: str) -> None:
    pool.submit("before" if place == "behind" else "other", "h" if place == "first" else "g")
    pool.submit("t", asks=GPU, delay_us=SECOND_US if place == "delayed" else 0)
    pool.submit("after")
    if place == "parked":
        pool.ask("m", "claim", "gpu", "pool", "")

    assert pool.discard("t") == ["discarded"]
    assert pool.arq("t") == set()
    assert (pool.count("queued"), pool.count("delayed"), pool.count("parked")) == (2, 0, 0)
    pool.pass_time(1)
    assert "t" not in tasks_of(pool.admit(9))


def test_discarded_task_may_leave_a_result_for_a_while(pool: Pool) -> None:
    pool.submit("t")
    pool.ask("m", "discard", "t", b"aborted", 5000)

    assert pool.arq("t") == {"result"}
    assert pool.client.get("arq:result:t") == b"aborted"
    assert 0 < pool.client.pttl("arq:result:t") <= 5000


def test_running_task_cannot_be_discarded(pool: Pool) -> None:
    pool.submit("t")
    (lease,) = pool.admit(1)

    assert pool.ask("m", "discard", "t", b"aborted", "") == ["unknown"]
    assert pool.finish(lease) == "released"
    assert pool.client.get("arq:result:t") == b"done"


# -- several pools on one server


def test_pools_share_no_queue_no_ledger_and_no_order(pool: Pool) -> None:
    other = Pool(pool.client, "other")
    other.open("m", submission=1)
    for one in (pool, other):
        for i in range(2):
            one.submit(f"{one.keys['meta']} {i}")

    assert (len(other.admit(9)), len(pool.admit(9))) == (1, 2)
    assert (other.reasons(), pool.reasons()) == ({"no_capacity": 1}, {})
    other.ask("m", "set_state", "paused")
    pool.submit("t")
    assert tasks_of(pool.admit(9)) == ["t"]
    assert other.audit().differences == ()
    other.close()


# -- runs


def test_run_is_refused_by_a_draining_pool_with_nothing_queued(pool: Pool) -> None:
    pool.ask("m", "set_state", "draining")

    assert pool.ask("m", "run_submit", "run", plan(), "{}") == ["refused", "shutdown", ""]
    assert (pool.count("queued"), pool.client.exists(pool.keys["runs"])) == (0, 0)
    pool.ask("m", "set_state", "")
    assert pool.ask("m", "run_submit", "run", plan(), "{}") == ["accepted"]
