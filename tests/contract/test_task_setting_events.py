"""Design 07: what members and operators set of a pool is an event that names who, from and to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from forebay.contracts.identity import TaskGroupKind
from forebay.contracts.task_policies import (
    BoundedBorrowTaskAdmissionPolicyConfig,
    DebtCeiling,
    TaskAdmissionConfig,
)
from forebay.coordinator.tasks.registering import Configure
from tests.contract.pool_under_clock import LIMITS, Pool, honest_pool
from tests.contract.run_plans import plan
from tests.contract.shard_under_clock import SERVERS


@pytest.fixture(params=SERVERS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    for pool in honest_pool(request):
        pool.join("m", "n")
        yield pool


def told(pool: Pool, kind: str) -> list[tuple[str, ...]]:
    """Return the fields of the events of a kind, in order."""
    place = {"sequence", "at_us", "kind"}
    return [
        tuple(value for name, value in event.items() if name not in place)
        for event in pool.events()
        if event["kind"] == kind
    ]


def configure(pool: Pool, config: TaskAdmissionConfig) -> None:
    name, _count, *args = Configure(config).encode()
    pool.ask("m", str(name), *args)


# -- limits


def test_changed_claim_is_told_although_the_limit_stays(pool: Pool) -> None:
    for member, holder, limit in (
        ("m", "pool", 4),
        ("n", "run", 9),
        ("n", "run", 9),
        ("n", "run", 6),
    ):
        assert pool.ask(member, "claim", "gpu", holder, limit) == ["claimed", 4]
    assert told(pool, "resource_limit_claimed") == [
        ("gpu", "pool", "", "4", "m"),
        ("gpu", "run", "", "9", "n"),
        ("gpu", "run", "9", "6", "n"),
    ]
    assert told(pool, "resource_limit_changed") == [("gpu", "0", "4")]


def test_claim_that_is_taken_back_is_told_with_the_limit_that_follows(pool: Pool) -> None:
    for holder, limit in (("pool", 4), ("run", 2), ("run", ""), ("run", ""), ("pool", "")):
        pool.ask("m", "claim", "gpu", holder, limit)
    assert told(pool, "resource_limit_claimed")[2:] == [
        ("gpu", "run", "2", "", "m"),
        ("gpu", "pool", "4", "", "m"),
    ]
    moves = [("gpu", "0", "4"), ("gpu", "4", "2"), ("gpu", "2", "4"), ("gpu", "4", "0")]
    assert told(pool, "resource_limit_changed") == moves


def test_limit_of_tasks_as_such_is_told_from_what_an_unclaimed_pool_has(pool: Pool) -> None:
    pool.ask("m", "claim", "submission", "pool", 7)
    pool.ask("m", "claim", "submission", "pool", "")
    moves = [("submission", "10000", "7"), ("submission", "7", "10000")]
    assert told(pool, "resource_limit_changed") == moves


def test_claims_that_end_with_their_run_are_told(pool: Pool) -> None:
    for resource, limit in LIMITS.items():
        pool.ask("m", "claim", resource, "pool", limit)
    text = plan(limits={"gpu": 2})
    assert pool.ask("m", "run_submit", "run", text, "{}") == ["accepted"]
    pool.ask("n", "run_cancel", "run")
    assert told(pool, "resource_limit_claimed")[-1] == ("gpu", "run:run", "2", "", "n")


# -- policy and settings


def borrowing(**fields: Any) -> TaskAdmissionConfig:
    return TaskAdmissionConfig(borrow=BoundedBorrowTaskAdmissionPolicyConfig(**fields))


CEILING = DebtCeiling(kind=TaskGroupKind.LOCAL, identity=("a",), resource="gpu", units=3)
CHANGES: list[tuple[TaskAdmissionConfig, list[tuple[str, ...]]]] = [
    (TaskAdmissionConfig(events="full"), [("events", "transitions", "full")]),
    (
        TaskAdmissionConfig(reserve_after_seconds=2.5),
        [("reserve_after_us", "5000000", "2500000")],
    ),
    (
        borrowing(),
        [
            ("ceiling_reserve", "", "0"),
            ("policy", "strict", "borrow"),
            ("share_rounding", "", "up"),
        ],
    ),
    (
        borrowing(share_rounding="down", ceilings=(CEILING,), default_ceiling=2),
        [
            ("ceiling", "", "2"),
            ("ceiling:local/a gpu", "", "3"),
            ("ceiling_reserve", "", "0"),
            ("policy", "strict", "borrow"),
            ("share_rounding", "", "down"),
        ],
    ),
]


@pytest.mark.parametrize(("config", "changes"), CHANGES)
def test_each_changed_setting_is_told_once_and_again_when_it_goes(
    pool: Pool, config: TaskAdmissionConfig, changes: list[tuple[str, ...]]
) -> None:
    configure(pool, TaskAdmissionConfig())
    assert told(pool, "pool_setting_changed") == []
    for _ in range(2):
        configure(pool, config)
    assert told(pool, "pool_setting_changed") == [(*change, "m") for change in changes]
    configure(pool, TaskAdmissionConfig())
    back = [(name, to, origin, "m") for name, origin, to in changes]
    assert told(pool, "pool_setting_changed")[len(changes) :] == back


def test_change_of_one_ceiling_is_told_alone(pool: Pool) -> None:
    configure(pool, borrowing(default_ceiling=2))
    before = len(told(pool, "pool_setting_changed"))
    configure(pool, borrowing(default_ceiling=5))
    assert told(pool, "pool_setting_changed")[before:] == [("ceiling", "2", "5", "m")]
