"""Both streams joined by task: thirteen instants, and what held the task up.

Rules: design 07, *Two streams*.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from forebay.contracts.events import EventStream, EventSubject, RuntimeCorrelation, RuntimeEvent
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.runtime_view import INSTANTS, CorrelatedRuntimeView

MODEL = ProviderModelKey(provider_name="p", model_id="m")
CHAT = RequestResourceKey(provider_model=MODEL)
ORDINALS = count(1)
OF_CALLS = ("request_", "model_")


def event(kind: str, at: float, execution: str | None = "t~1", **fields: Any) -> RuntimeEvent:
    correlation = RuntimeCorrelation(run_id="r", task_execution_id=execution) if execution else None
    is_of_call = kind.startswith(OF_CALLS)
    terms: dict[str, Any] = {}
    if is_of_call:
        terms = {"request_attempt_id": "a", "request_resource_key": CHAT}
    elif kind != "admission_blocked":
        terms = {"task_id": "t", "task_execution_id": execution}
    stream = EventStream.REQUEST if is_of_call else EventStream.SCHEDULER
    subject = EventSubject(stream=stream, correlation=correlation, **terms)
    return RuntimeEvent(kind, subject, at, next(ORDINALS), **fields)


def whole_task(*, wait: float = 1.0, call: float = 1.0, **fields: Any) -> list[RuntimeEvent]:
    """Return the events of a task that is selected at 10 and makes one call."""
    ends = [10, 10, 11, 12, 12 + wait, 12 + wait, 12 + wait, 12 + wait + call]
    ends += [ends[-1], ends[-1] + 1, ends[-1] + 1]
    return [event(kind, at, **fields) for kind, at in zip(INSTANTS[2:], ends, strict=True)]


def ready(at: float) -> dict[str, str]:
    return {"kind": "ready_enqueued", "task_id": "t", "at_us": str(int(at * 1e6))}


def refusal(at: float, until: float, scope: str = "") -> dict[str, str]:
    return {
        "kind": "request_rate_limited",
        "at_us": str(int(at * 1e6)),
        "blocked_until_us": str(int(until * 1e6)),
        "domain": "chat",
        "scope": scope,
    }


def test_a_task_has_its_thirteen_instants_in_order() -> None:
    view = CorrelatedRuntimeView(reversed(whole_task()), of_pool=[ready(2), ready(8)])
    timeline = view.tasks["t~1"]

    assert tuple(timeline.instants) == INSTANTS
    assert list(timeline.instants.values()) == sorted(timeline.instants.values())
    assert (timeline.instants["dependency_ready"], timeline.instants["ready_enqueued"]) == (2, 8)
    assert (timeline.task_id, timeline.run_id) == ("t", "r")


@pytest.mark.parametrize(
    ("cause", "terms", "shard", "blocked"),
    [
        ("provider", {"call": 60.0}, [], []),
        ("request_wait", {"wait": 60.0}, [], []),
        ("cooldown", {"wait": 60.0}, [refusal(5, 65)], []),
        ("quota", {"wait": 60.0}, [refusal(5, 65, "quota")], []),
        ("request_wait", {"wait": 60.0}, [refusal(5, 30)], []),
        ("task_capacity", {}, [], ["no_capacity"]),
        ("fairness", {}, [], ["group_cap", "group_cap", "no_capacity"]),
    ],
)
def test_what_held_a_task_and_its_run_up_longest_is_named(
    cause: str, terms: dict[str, Any], shard: list[dict[str, str]], blocked: list[str]
) -> None:
    told = [event("admission_blocked", 9, None, reason_or_outcome=reason) for reason in blocked]
    enqueued = 3 if blocked else 9.5
    view = CorrelatedRuntimeView(
        [*told, *whole_task(**terms)], of_pool=[ready(enqueued)], of_providers={MODEL: shard}
    )

    assert view.tasks["t~1"].held_up_by == cause
    assert (view.held_up_by("r"), view.held_up_by("another")) == (cause, None)
    waited = view.tasks["t~1"].held_up_seconds
    of_wait = sum(waited.get(name, 0) for name in ("request_wait", "cooldown", "quota"))
    assert of_wait == pytest.approx(terms.get("wait", 1.0))


def test_a_cell_that_waited_for_other_columns_was_held_up_by_dependencies() -> None:
    correlation = RuntimeCorrelation(run_id="r", row_group=3, task_execution_id="t~1")
    admitted = {"kind": "row_group_admitted", "run_id": "r", "row_group": "3", "at_us": "1000000"}
    told = [
        one._replace(subject=replace(one.subject, correlation=correlation)) for one in whole_task()
    ]
    timeline = CorrelatedRuntimeView(told, of_pool=[admitted, ready(9)]).tasks["t~1"]

    assert (timeline.held_up_by, timeline.held_up_seconds["dependencies"]) == ("dependencies", 8)


def test_a_cell_that_is_tried_twice_waited_for_other_columns_once() -> None:
    admitted = {"kind": "row_group_admitted", "run_id": "r", "row_group": "3", "at_us": "1000000"}
    told = []
    for execution, later in (("t~1", 0.0), ("t~2", 50.0)):
        correlation = RuntimeCorrelation(run_id="r", row_group=3, task_execution_id=execution)
        told += [
            one._replace(
                captured_at=one.captured_at + later,
                subject=replace(one.subject, correlation=correlation, task_execution_id=execution),
            )
            for one in whole_task()
        ]
    view = CorrelatedRuntimeView(told, of_pool=[admitted, ready(9), ready(59)])

    assert [task.held_up_seconds.get("dependencies") for task in view.tasks.values()] == [8, None]
    assert view.held_up_seconds("r")["dependencies"] == 8


def test_attempts_outside_tasks_are_counted_and_belong_to_none() -> None:
    view = CorrelatedRuntimeView([event("request_wait_started", 1, None)])

    assert (dict(view.tasks), view.uncorrelated_count) == ({}, 1)


def test_each_layer_is_joined_without_the_other() -> None:
    of_requests = [one for one in whole_task() if one.stream is EventStream.REQUEST]
    of_tasks = [one for one in whole_task() if one.stream is EventStream.SCHEDULER]

    assert set(CorrelatedRuntimeView(of_requests).tasks["t~1"].instants) == set(INSTANTS[5:11])
    assert set(CorrelatedRuntimeView(of_tasks).tasks["t~1"].instants) == {
        *INSTANTS[2:5],
        *INSTANTS[11:],
    }
