"""Names of the plan that later work uses stay, though little reads them yet (design 02)."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from forebay.contracts.events import RequestEventContext, RuntimeCorrelation
from forebay.contracts.requests import (
    RequestAdmissionController,
    RequestAdmissionItem,
    RequestDenialReason,
)
from forebay.contracts.snapshots import RequestPressure
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.coordinator.tasks.queue import FairTaskQueue


def names_of(protocol: type) -> set[str]:
    return {name for name in vars(protocol) if not name.startswith("_")}


def test_the_protocol_of_request_admission_is_whole_and_the_controller_has_it() -> None:
    names = names_of(RequestAdmissionController)
    assert names == {"acquire", "acquire_sync", "pressure", "release", "try_acquire"}
    has_pressure = {"pressure"}  # set by its constructor
    assert names - has_pressure <= set(dir(AdaptiveRequestAdmissionController))


def test_pressure_is_read_by_the_four_names_of_the_design() -> None:
    names = {"global_snapshot", "global_snapshots", "snapshot", "snapshots"}
    assert names_of(RequestPressure) == names
    assert names <= set(dir(RequestPressureSnapshotProvider))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (RequestAdmissionItem, {"event_context"}),
        (
            RequestEventContext,
            {"captured_correlation", "task_execution_id", "request_attempt_id"},
        ),
        (
            RuntimeCorrelation,
            {
                "run_id",
                "row_group",
                "task_column",
                "task_type",
                "scheduling_group_kind",
                "scheduling_group_identity_hash",
                "task_execution_id",
            },
        ),
    ],
)
def test_a_value_has_the_fields_of_the_design(kind: Any, names: set[str]) -> None:
    assert names <= {field.name for field in fields(kind)}


def test_tasks_are_admitted_finished_and_explained_by_the_names_of_the_design() -> None:
    assert {"admit", "finish", "view", "explain_blocked"} <= set(dir(TaskAdmissionController))
    assert {"enqueue", "discard", "view"} <= set(dir(FairTaskQueue))


def test_a_wait_can_be_denied_for_its_cancellation() -> None:
    assert RequestDenialReason("cancellation") is RequestDenialReason.CANCELLATION
