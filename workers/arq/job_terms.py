"""The group and the resources of a job, as its caller names them.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from forebay.contracts.checks import check_name, check_type
from forebay.contracts.identity import SUBMISSION, TaskGroupKey, TaskGroupKind, TaskGroupSpec
from forebay.contracts.tasks import SchedulerResourceRequest

_ONE_SUBMISSION: Final = SchedulerResourceRequest()


def group_of(group: TaskGroupSpec | str, weight: float) -> TaskGroupSpec:
    """Return the group that a job names; a name alone is a local group of this weight."""
    if isinstance(group, TaskGroupSpec):
        return group
    key = TaskGroupKey(kind=TaskGroupKind.LOCAL, identity=(check_name("group", group),))
    return TaskGroupSpec(key=key, weight=weight)


def request_of(
    resources: SchedulerResourceRequest | Mapping[str, int] | None,
) -> SchedulerResourceRequest:
    """Return the resources of a job; one submission unless it names more."""
    if resources is None:
        return _ONE_SUBMISSION
    if isinstance(resources, SchedulerResourceRequest):
        return resources
    check_type("_resources of a job", resources, Mapping)
    return SchedulerResourceRequest(amounts={SUBMISSION: 1, **resources})
