"""From a workflow's columns to groups and resources of their tasks (design 02; design 04)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from forebay.contracts.identity import TaskGroupKind, request_resource
from forebay.contracts.runs import RunSpec
from forebay.contracts.scheduling import DeclaresScheduling, ModelEndpoint, ResolvedTaskScheduling
from forebay.contracts.tasks import SchedulerResourceRequest
from forebay.contracts.workflow import PlannedColumn, Workflow
from forebay.coordinator.requests.resolver import RequestResourceResolver
from forebay.coordinator.tasks.resolver import TaskSchedulingResolver

GeneratorOf = Callable[[PlannedColumn, Workflow], DeclaresScheduling]


def resolve_columns(run: RunSpec, generator_of: GeneratorOf) -> list[ResolvedTaskScheduling]:
    """Return group and resources of each column's tasks, in the order of the workflow.

    A local column takes the largest weight of the run: its tasks go whenever model tasks have no
    capacity, and with a small weight each would move the pool's virtual time by many turns of a
    model group, so that tenants' weights would fade to equal turns (docs/adr/0003).

    Args:
        run: whose tasks they are.
        generator_of: makes a column's generator, which is asked what it declares.
    """
    requests = RequestResourceResolver()
    tasks = TaskSchedulingResolver(run.tenant, run.weight)
    resolved = [
        _exclusively(
            tasks.resolve(
                generator_of(column, run.workflow),
                column.outputs,
                _endpoints(run.workflow, column, requests),
            ),
            column,
        )
        for column in run.workflow.columns
    ]
    heaviest = max(scheduling.group.weight for scheduling in resolved)
    return [
        replace(scheduling, group=replace(scheduling.group, weight=heaviest))
        if scheduling.group.key.kind is TaskGroupKind.LOCAL
        else scheduling
        for scheduling in resolved
    ]


def _endpoints(
    workflow: Workflow, column: PlannedColumn, requests: RequestResourceResolver
) -> list[ModelEndpoint]:
    single = getattr(column.spec, "model", None)
    aliases = getattr(column.spec, "models", ()) if single is None else (single,)
    return [
        ModelEndpoint(
            resource=requests.resolve(
                workflow.models[alias].provider, workflow.models[alias].model, model_alias=alias
            ),
            static_cap=workflow.static_cap(alias),
            alias=alias,
        )
        for alias in aliases
    ]


def _exclusively(resolved: ResolvedTaskScheduling, column: PlannedColumn) -> ResolvedTaskScheduling:
    """Return a column's scheduling, with 1 unit of each of its exclusive resources."""
    resource = exclusive_resource(column)
    if resource is None:
        return resolved
    amounts = {**resolved.resource_request.amounts, resource: 1}
    return replace(resolved, resource_request=SchedulerResourceRequest(amounts=amounts))


def exclusive_resource(column: PlannedColumn) -> str | None:
    """Return a column's exclusive resource, of 1 unit; None where it has none.

    It is named by the code, so that runs that use the same code share it.
    """
    if not getattr(column.spec, "exclusive", False):
        return None
    return f"exclusive:{getattr(column.spec, 'function', column.outputs[0])}"


def resource_limits(run: RunSpec) -> dict[str, int]:
    """Return a run's limits: the static caps of its models, 1 for exclusive resources."""
    requests = RequestResourceResolver()
    limits = {}
    for alias, model in run.workflow.models.items():
        resource = requests.resolve(model.provider, model.model)
        limits[request_resource(resource.provider_model)] = run.workflow.static_cap(alias)
    for column in run.workflow.columns:
        if (exclusive := exclusive_resource(column)) is not None:
            limits[exclusive] = 1
    return limits
