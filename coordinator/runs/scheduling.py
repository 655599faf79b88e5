"""From a workflow's columns to groups and resources of their tasks (spec 02, 04)."""

from __future__ import annotations

from collections.abc import Callable

from contracts.identity import SUBMISSION, request_resource
from contracts.runs import RunSpec
from contracts.scheduling import SchedulingMetadata
from contracts.tasks import ResolvedTaskScheduling
from contracts.workflow import PlannedColumn, Workflow
from coordinator.requests.resolver import RequestResourceResolver
from coordinator.tasks.resolver import TaskSchedulingResolver

MetadataOf = Callable[[PlannedColumn, Workflow], SchedulingMetadata]


def resolve_columns(run: RunSpec, metadata_of: MetadataOf) -> list[ResolvedTaskScheduling]:
    """Return group and resources of each column's tasks, in the order of the workflow.

    Args:
        run: whose tasks they are.
        metadata_of: what a column's generator declares about itself.
    """
    requests = RequestResourceResolver()
    tasks = TaskSchedulingResolver(run.tenant, run.weight)
    resolved = []
    for column in run.workflow.columns:
        alias = getattr(column.spec, "model", None)
        model = None if alias is None else run.workflow.models[alias]
        resource = None if model is None else requests.resolve(model.provider, model.model)
        resolved.append(
            tasks.resolve(metadata_of(column, run.workflow), column.outputs, resource)
        )
    return resolved


def resource_limits(run: RunSpec, submission_capacity: int) -> dict[str, int]:
    """Return the limits a run brings along: the static cap of each of its provider/models."""
    requests = RequestResourceResolver()
    limits = {SUBMISSION: submission_capacity}
    for alias, model in run.workflow.models.items():
        resource = requests.resolve(model.provider, model.model)
        limits[request_resource(resource.provider_model)] = run.workflow.static_cap(alias)
    return limits
