"""What a member serves is held up by nothing that it does not serve (design 04, *Functions*)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.pool_under_clock import GPU, Pool, honest_pool, policies, submission, tasks_of
from tests.contract.shard_under_clock import SERVERS


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.open("m", "old", "new", gpu=1)
        pool.ask("old", "serve", "older")
        pool.ask("new", "serve", "older", "newer")
        yield pool


def submit(pool: Pool, *functions: str, group: str = "g", **terms: object) -> None:
    """Submit tasks that are called by their group and a number, each of its function."""
    operations = [
        submission(f"{group}{n}", group, function=function, **terms)
        for n, function in enumerate(functions)
    ]
    pool.ask_all("m", *operations)


@policies
def test_first_task_that_a_member_does_not_serve_holds_up_none_that_it_serves(
    pool: Pool, policy: str
) -> None:
    pool.configure(policy)
    submit(pool, "newer", "newer", "older", "newer", "older")

    assert tasks_of(pool.admit(9, by="old")) == ["g2", "g4"]
    assert tasks_of(pool.admit(9, by="new")) == ["g0", "g1", "g3"]


def test_first_tasks_that_a_member_serves_go_before_those_behind_others(pool: Pool) -> None:
    submit(pool, "newer", "older", group="a")
    submit(pool, "older", "older", group="b")

    assert tasks_of(pool.admit(9, by="old")) == ["b0", "b1", "a1"]


def test_task_behind_takes_its_groups_turn(pool: Pool) -> None:
    submit(pool, "newer", "older", group="a")
    submit(pool, "newer", group="b")
    assert tasks_of(pool.admit(1, by="old")) == ["a1"]

    assert tasks_of(pool.admit(9, by="new")) == ["b0", "a0"]


def test_task_behind_that_does_not_fit_stays(pool: Pool) -> None:
    submit(pool, "newer", "older", asks=GPU)
    submit(pool, "older", group="h", asks=GPU)
    assert tasks_of(pool.admit(1, by="old")) == ["h0"]

    assert pool.admit(9, by="old") == []


def test_group_at_its_limit_is_held_back_behind_its_first_task_as_well(pool: Pool) -> None:
    submit(pool, "older", "newer", "older", limit=1)
    assert tasks_of(pool.admit(1, by="old")) == ["g0"]
    submit(pool, "newer", group="h")

    assert pool.admit(9, by="old") == ["g2~2"]  # who presses wants nothing that it could take
    assert pool.audit().differences == ()


def test_member_is_woken_for_what_it_serves_behind_a_first_task(pool: Pool) -> None:
    pool.ask_for(9, "old")
    pool.listen_to_all()
    submit(pool, "newer", "older")

    assert "old" in pool.woken()
    assert tasks_of(pool.admit(9, by="old")) == ["g1"]


def test_task_behind_whose_payload_has_expired_is_told_so(pool: Pool) -> None:
    submit(pool, "newer", "older")
    pool.client.delete("arq:job:g1")

    assert pool.ask_for(9, "old").expired == ["g1"]
    assert tasks_of(pool.admit(9, by="new")) == ["g0"]
