"""Operations of the next call: releases first, each group in turn, rechecks beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from forebay import RequestGroupSpec, RequestResourceKey
from forebay.contracts.requests import RequestAdmissionItem
from forebay.coordinator.requests.operations import Acquire, Cancel, State
from forebay.coordinator.shard.backlog import (
    OPERATIONS_PER_CALL,
    RECHECKS_PER_CALL,
    Backlog,
    Pending,
)
from forebay.coordinator.shard.operation import Operation, ignore_outcome
from tests.support_scene import MODEL

CROWD = 10 * OPERATIONS_PER_CALL


def item(tenant: str) -> RequestAdmissionItem:
    resource = RequestResourceKey(provider_model=MODEL)
    return RequestAdmissionItem(resource=resource, group=RequestGroupSpec(key=tenant))


def pending(operation: Operation[Any]) -> Pending:
    return Pending(operation=operation, make=None, on_outcome=ignore_outcome, since=0.0)


def acquire(tenant: str) -> Pending:
    return pending(Acquire(item(tenant), ""))


def recheck() -> Pending:
    return pending(State(item("any")))


def group_of(one: Pending) -> str | None:
    assert one.operation is not None
    return one.operation.group_key


def backlog_of(*operations: Pending) -> Backlog:
    backlog = Backlog()
    for operation in operations:
        backlog.add(operation)
    return backlog


def calls_of(backlog: Backlog) -> Iterator[list[Pending]]:
    while backlog.count:
        yield backlog.take()


def words(call: list[Pending]) -> list[str]:
    return [type(one.operation).__name__ for one in call]


def test_a_release_waits_behind_no_acquire() -> None:
    release = pending(Cancel("mine"))
    backlog = backlog_of(*(acquire("crowd") for _ in range(CROWD)), release)
    assert backlog.take()[0] is release


def test_another_tenant_waits_behind_no_crowd() -> None:
    others = [acquire("small") for _ in range(10)]
    backlog = backlog_of(*(acquire("crowd") for _ in range(CROWD)), *others)
    call = backlog.take()
    assert len(call) == OPERATIONS_PER_CALL
    assert [one for one in call if group_of(one) == "small"] == others


def test_groups_take_turns_and_each_keeps_the_order_of_its_callers() -> None:
    asked = {tenant: [acquire(tenant) for _ in range(100)] for tenant in ("a", "b", "c")}
    backlog = backlog_of(*(one for group in asked.values() for one in group))
    taken = [one for call in calls_of(backlog) for one in call]
    assert {name: [p for p in taken if group_of(p) == name] for name in asked} == asked
    assert [len(list(run)) for _, run in groupby(taken, group_of)] == [1] * 300


def test_rechecks_find_a_few_places_in_any_call_and_all_that_others_leave() -> None:
    rechecks = [recheck() for _ in range(100)]
    backlog = backlog_of(*rechecks, *(acquire("crowd") for _ in range(2 * OPERATIONS_PER_CALL)))
    counts = [Counter(words(call)) for call in calls_of(backlog)]
    full = {"Acquire": OPERATIONS_PER_CALL - RECHECKS_PER_CALL, "State": RECHECKS_PER_CALL}
    assert counts[:2] == [full, full]
    assert [count["Acquire"] for count in counts[2:]] == [2 * RECHECKS_PER_CALL, 0]
    assert sum(count["State"] for count in counts) == len(rechecks)


def test_what_is_kept_keeps_its_order() -> None:
    asked = [acquire("a"), recheck(), acquire("b"), pending(Cancel("c"))]
    backlog = backlog_of(*asked)
    backlog.keep(lambda one: one is not asked[0])
    assert backlog.take() == [asked[3], asked[2], asked[1]]
    assert backlog.count == 0
