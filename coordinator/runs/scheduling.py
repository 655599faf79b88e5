"""From a workflow's columns to groups and resources of their tasks (spec 02, 04)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from contracts.identity import SUBMISSION, TaskGroupKind, request_resource
from contracts.runs import RunSpec
from contracts.scheduling import SchedulingMetadata
from contracts.tasks import ResolvedTaskScheduling
from contracts.workflow import PlannedColumn, Workflow
from coordinator.requests.resolver import RequestResourceResolver
from coordinator.tasks.resolver import TaskSchedulingResolver

MetadataOf = Callable[[PlannedColumn, Workflow], SchedulingMetadata]


def resolve_columns(run: RunSpec, metadata_of: MetadataOf) -> list[ResolvedTaskScheduling]:
    """Return group and resources of each column's tasks, in the order of the workflow.

    A local column takes the largest weight of the run: its tasks go whenever model tasks have no
    capacity, and with a small weight each would move the pool's virtual time by many turns of a
    model group, so that tenants' weights would fade to equal turns (docs/adr/0003).

    Args:
        run: whose tasks they are.
        metadata_of: what a column's generator declares about itself.
    """
    requests = RequestResourceResolver()
    tasks = TaskSchedulingResolver(run.tenant, run.weight)
    declared = [metadata_of(column, run.workflow) for column in run.workflow.columns]
    heaviest = max(metadata.weight for metadata in declared)
    resolved = []
    for column, metadata in zip(run.workflow.columns, declared, strict=True):
        if metadata.kind is TaskGroupKind.LOCAL:
            metadata = replace(metadata, weight=heaviest)  # noqa: PLW2901 - the effective one
        alias = getattr(column.spec, "model", None)
        model = None if alias is None else run.workflow.models[alias]
        resource = None if model is None else requests.resolve(model.provider, model.model)
        resolved.append(tasks.resolve(metadata, column.outputs, resource))
    return resolved


def resource_limits(run: RunSpec, submission_capacity: int) -> dict[str, int]:
    """Return the limits a run brings along: the static cap of each of its provider/models."""
    requests = RequestResourceResolver()
    limits = {SUBMISSION: submission_capacity}
    for alias, model in run.workflow.models.items():
        resource = requests.resolve(model.provider, model.model)
        limits[request_resource(resource.provider_model)] = run.workflow.static_cap(alias)
    return limits
