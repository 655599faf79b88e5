"""Lone tasks that are pushed to idle members, each rule on both servers (design 04, ADR 0010)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.pool_under_clock import MODEL, Pool, honest_pool, submission, tasks_of
from tests.contract.run_plans import plan
from tests.contract.shard_under_clock import SERVERS, TTL_US

WORK = [["work"]]
LONGEST = 65_536
"""Bytes of a payload that still travels with its notice."""


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", "w")
        pool.listen_to_all()
        yield pool


def ask(pool: Pool, seen: object = 0, *, slots: int = 1, by: str = "w") -> tuple[list[Any], ...]:
    """Ask as one that takes pushes; return what was granted and what is told again."""
    answer = pool.ask_for(slots, by, seen=seen)
    return [lease[1] for lease in answer.leases], [
        (number, lease[1]) for number, lease in answer.pushed
    ]


def pushed(pool: Pool, by: str = "w") -> list[tuple[int, str]]:
    """Return number and task of what was pushed to a member by channel."""
    return [(terms[0], terms[1][1]) for word, *terms in pool.told().get(by, []) if word == "task"]


def idle(pool: Pool) -> dict[str, int]:
    """Return how many free slots members are thought to have."""
    found = pool.client.zrange(pool.keys["idle"], 0, -1, withscores=True)
    return {name.decode(): int(slots) for name, slots in found}


# -- what is told


def test_lone_task_is_granted_and_told_with_its_payload(pool: Pool) -> None:
    ask(pool, slots=3)
    pool.submit("t", "g", MODEL)
    ((word, number, lease, payload),) = pool.told()["w"]

    assert (word, number, payload) == ("task", 1, "payload of t")
    assert lease[:4] == ["t~1", "t", "g", MODEL]
    assert lease[6:9] == ["1", "0", "0"]
    assert pool.client.hget(pool.keys["leases"], "t~1").startswith(b"w|t|g|")
    assert pool.arq("t") == {"job", "in-progress", "queue"}
    assert 0 < pool.client.pttl("arq:in-progress:t") <= 60_000
    assert idle(pool) == {"w": 2}
    assert pool.finish(lease[0], by="w") == "released"


def test_pushed_task_is_told_once(pool: Pool) -> None:
    ask(pool, slots=2)
    pool.submit("a")
    assert pushed(pool) == [(1, "a")]
    pool.admit(0)
    assert pool.told() == {}

    assert ask(pool, seen=1) == ([], [])
    pool.submit("b")
    assert pushed(pool) == [(2, "b")]


def test_missed_push_is_told_again_until_it_was_seen(pool: Pool) -> None:
    ask(pool, slots=2)
    pool.submit("a")
    pool.submit("b")
    assert pushed(pool) == [(1, "a"), (2, "b")]

    assert ask(pool, seen=0, slots=2) == ([], [(1, "a"), (2, "b")])
    assert pool.payloads == [b"payload of a", b"payload of b"]
    assert ask(pool, seen=1, slots=2) == ([], [(2, "b")])
    assert ask(pool, seen=2) == ([], [])
    assert pool.count("running") == 2


def test_missed_push_takes_its_slot(pool: Pool) -> None:
    ask(pool)
    pool.submit("a")
    pool.submit_many("b", 2)

    assert ask(pool, seen=0, slots=2) == (["b0"], [(1, "a")])
    assert idle(pool) == {}


def test_missed_push_that_was_taken_away_is_told_no_more(pool: Pool) -> None:
    ask(pool, slots=2)
    for task_id in ("a", "b"):
        pool.submit(task_id)
    pool.finish("a~1", by="w")

    assert ask(pool, seen=0, slots=2) == ([], [(2, "b")])


def test_caller_is_told_of_its_own_push_in_its_reply(pool: Pool) -> None:
    ask(pool)
    pool.submit("t", by="w")

    assert [(word, terms[0], terms[1][1]) for word, *terms in pool.notices] == [("task", 1, "t")]
    assert pool.told() == {}


def test_slot_that_comes_free_is_pushed_to_at_once(pool: Pool) -> None:
    ask(pool)
    pool.submit("a")
    pool.submit("b")
    assert (pushed(pool), idle(pool)) == ([(1, "a")], {"w": 0})
    pool.finish("a~1", by="w")

    assert [(word, terms[0], terms[1][1]) for word, *terms in pool.notices] == [("task", 2, "b")]


# -- to whom


def test_member_that_takes_no_pushes_is_told_of_work(pool: Pool) -> None:
    pool.admit(1, by="w")
    pool.submit("t")

    assert pool.told() == {"w": WORK}
    assert (pool.count("running"), idle(pool)) == (0, {})


def test_member_with_the_most_free_slots_is_told(pool: Pool) -> None:
    pool.join("v", "x")
    ask(pool, slots=2)
    ask(pool, slots=3, by="v")
    pool.admit(1, by="x")
    pool.submit("t")

    assert pool.told().keys() == {"v"}


def test_member_whose_slots_are_all_taken_is_told_nothing(pool: Pool) -> None:
    ask(pool)
    pool.submit("a")
    pool.told()
    pool.submit("b")

    assert (pool.told(), pool.count("queued")) == ({}, 1)


def test_member_that_asks_for_nothing_is_idle_no_more(pool: Pool) -> None:
    ask(pool)
    ask(pool, slots=0)
    pool.submit("t")

    assert (pool.told(), pool.count("queued")) == ({}, 1)


def test_task_that_was_pushed_to_a_member_that_died_goes_to_another(pool: Pool) -> None:
    ask(pool, slots=2)
    pool.submit("t")
    assert pushed(pool) == [(1, "t")]
    pool.pass_time(TTL_US / 2e6)
    pool.join("v")
    pool.beat("m")
    ask(pool, by="v")
    pool.pass_time(TTL_US / 2e6)
    pool.admit(0)

    assert pool.told()["v"] == [["work"]]  # it may have ended its process, unseen: it is a suspect
    assert (pool.count("suspect_tasks"), pool.count("lost")) == (1, 1)
    (lease,) = pool.ask_for(1, "v", seen=0).leases
    assert (lease[1], lease[6]) == ("t", "1")
    assert pool.client.hkeys(pool.keys["pushes"]) == [b"v"]


# -- what is told as work instead


def test_two_ready_tasks_are_told_as_work(pool: Pool) -> None:
    ask(pool, slots=5)
    pool.ask_all("m", submission("a"), submission("b"))

    assert pool.told() == {"w": WORK}
    assert (pool.count("running"), idle(pool)) == (0, {})
    assert ask(pool, slots=5) == (["a", "b"], [])


def test_any_task_is_told_as_work_while_somebody_has_asked_for_an_abort(pool: Pool) -> None:
    ask(pool)
    pool.client.zadd("arq:abort", {"another": 1})
    pool.submit("t")

    assert (pool.told(), pool.count("running")) == ({"w": WORK}, 0)


def test_task_whose_payload_has_expired_is_told_as_work(pool: Pool) -> None:
    pool.submit("t")
    pool.client.delete("arq:job:t")
    pool.ask("m", "set_state", "paused")
    ask(pool)
    pool.ask("m", "set_state", "")

    assert pool.told()["w"][-1:] == WORK
    assert pool.ask_for(1, "w", seen=0).expired == ["t"]


@pytest.mark.parametrize("why", ["paused", "no room", "reserved"])
def test_task_that_cannot_go_is_told_to_nobody(pool: Pool, why: str) -> None:
    pool.submit_many("busy", 3, MODEL)
    pool.admit(3)
    if why == "paused":
        pool.ask("m", "set_state", "paused")
    if why == "reserved":
        pool.submit("large", "large", "request:p/m=2,submission=1")
        pool.pass_time(5)
    ask(pool)
    pool.submit("t", asks="request:p/m=2,submission=1" if why == "no room" else MODEL)

    assert pool.woken() == []
    assert idle(pool) == {"w": 1}


# -- payloads that cannot stand in a message


@pytest.mark.parametrize(
    ("payload", "travels"),
    [
        pytest.param("é".encode(), False, id="not ASCII"),
        pytest.param(b"\xff\x00", False, id="no text"),
        pytest.param(b'"\\\n\x00\x7f', True, id="what JSON escapes"),
        pytest.param(b"x" * LONGEST, True, id="as long as may be"),
        pytest.param(b"x" * (LONGEST + 1), False, id="too long"),
    ],
)
def test_payload_that_cannot_stand_in_a_message_is_left_to_be_fetched(
    pool: Pool, payload: bytes, *, travels: bool
) -> None:
    ask(pool)
    pool.submit("t", payload=payload)
    ((_word, _number, lease, told),) = pool.told()["w"]

    assert told == (payload.decode() if travels else None)
    assert lease[8] == "0"
    assert pool.client.get("arq:job:t") == payload


def test_missed_push_comes_with_its_payload_whatever_that_holds(pool: Pool) -> None:
    ask(pool)
    pool.submit("t", payload="é".encode())

    assert ask(pool, seen=0) == ([], [(1, "t")])
    assert pool.payloads == ["é".encode()]


def test_cell_of_a_run_is_pushed_by_its_place(pool: Pool) -> None:
    ask(pool)
    pool.ask("m", "run_submit", "run", plan(), "{}")
    ((_word, number, lease, payload),) = pool.told()["w"]

    assert (number, lease[1], lease[9:], payload) == (1, "run:seed:g0", ["run", "1", "0"], None)


# -- numbers


def test_numbers_begin_anew_with_each_member(pool: Pool) -> None:
    ask(pool)
    pool.submit("a")
    assert pushed(pool) == [(1, "a")]
    pool.join("v")
    ask(pool, by="v")
    pool.submit("b")

    assert pushed(pool, "v") == [(1, "b")]


def test_member_that_has_seen_more_than_the_server_remembers_is_told_of_what_follows(
    pool: Pool,
) -> None:
    """A replica that missed writes took over: numbers go on where the member stands."""
    assert ask(pool, seen=7) == ([], [])
    pool.submit("t")

    assert pushed(pool) == [(8, "t")]
    assert ask(pool, seen=7) == ([], [(8, "t")])


def test_aborted_task_is_told_so_when_it_is_told_again(pool: Pool) -> None:
    ask(pool)
    pool.submit("t")
    pool.client.zadd("arq:abort", {"t": 1})
    answer = pool.ask_for(1, "w", seen=0)

    assert [(lease[1], lease[7]) for _number, lease in answer.pushed] == [("t", "1")]
    assert not pool.client.exists("arq:abort")


def test_order_is_the_same_as_if_the_member_had_asked(pool: Pool) -> None:
    """A pushed task is a turn of its group."""
    ask(pool, slots=2)
    pool.submit("a0", "a", weight=0.5)
    pool.told()
    ask(pool, seen=1, slots=0)
    pool.submit("a1", "a")
    pool.submit("b0", "b")

    assert tasks_of(pool.admit(2)) == ["b0", "a1"]
