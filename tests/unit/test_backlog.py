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
from tests.support_scene import MODEL

CROWD = 10 * OPERATIONS_PER_CALL


def told(_outcome: Any) -> bool:
    return True


def item(tenant: str) -> RequestAdmissionItem:
    resource = RequestResourceKey(provider_model=MODEL)
    return RequestAdmissionItem(resource=resource, group=RequestGroupSpec(key=tenant))


def acquire(tenant: str) -> Pending[Any]:
    return Pending(Acquire(item(tenant), ""), told)


def recheck() -> Pending[Any]:
    return Pending(State(item("any")), told)


def backlog_of(*operations: Pending[Any]) -> Backlog:
    backlog = Backlog()
    for pending in operations:
        backlog.add(pending)
    return backlog


def calls_of(backlog: Backlog) -> Iterator[list[Pending[Any]]]:
    while backlog:
        yield backlog.take()


def words(call: list[Pending[Any]]) -> list[str]:
    return [str(pending.args[0]) for pending in call]


def test_a_release_waits_behind_no_acquire() -> None:
    release = Pending(Cancel("mine"), told)
    backlog = backlog_of(*(acquire("crowd") for _ in range(CROWD)), release)
    assert backlog.take()[0] is release


def test_another_tenant_waits_behind_no_crowd() -> None:
    others = [acquire("small") for _ in range(10)]
    backlog = backlog_of(*(acquire("crowd") for _ in range(CROWD)), *others)
    call = backlog.take()
    assert len(call) == OPERATIONS_PER_CALL
    assert [pending for pending in call if pending.group == "small"] == others


def test_groups_take_turns_and_each_keeps_the_order_of_its_callers() -> None:
    asked = {tenant: [acquire(tenant) for _ in range(100)] for tenant in ("a", "b", "c")}
    backlog = backlog_of(*(pending for group in asked.values() for pending in group))
    taken = [pending for call in calls_of(backlog) for pending in call]
    assert {name: [p for p in taken if p.group == name] for name in asked} == asked
    assert [len(list(run)) for _, run in groupby(taken, lambda one: one.group)] == [1] * 300


def test_rechecks_find_a_few_places_in_any_call_and_all_that_others_leave() -> None:
    rechecks = [recheck() for _ in range(100)]
    backlog = backlog_of(*rechecks, *(acquire("crowd") for _ in range(2 * OPERATIONS_PER_CALL)))
    counts = [Counter(words(call)) for call in calls_of(backlog)]
    full = {"acquire": OPERATIONS_PER_CALL - RECHECKS_PER_CALL, "state": RECHECKS_PER_CALL}
    assert counts[:2] == [full, full]
    assert [count["acquire"] for count in counts[2:]] == [2 * RECHECKS_PER_CALL, 0]
    assert sum(count["state"] for count in counts) == len(rechecks)


def test_what_is_kept_keeps_its_order() -> None:
    asked = [acquire("a"), recheck(), acquire("b"), Pending(Cancel("c"), told)]
    backlog = backlog_of(*asked)
    backlog.keep(lambda pending: pending is not asked[0])
    assert backlog.take() == [asked[3], asked[2], asked[1]]
    assert not backlog
