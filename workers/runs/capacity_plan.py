"""Makes the capacity plan of a workflow, also from a server's state.

Rules: design 02, *Capacity plan*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from forebay.contracts.capacity import (
    AsyncCapacityPlan,
    CapacitySource,
    CapacityValue,
    ConfiguredCapacity,
    ObservedMaxima,
    RuntimeCapacity,
    StaticCap,
    first_of,
    known,
    lowered,
    missing,
)
from forebay.contracts.identity import RequestDomain, RequestResourceKey, request_resource
from forebay.contracts.snapshots import GlobalSnapshot
from forebay.contracts.workflow import ModelSpec, Workflow
from forebay.contracts.workflow_columns import EmbeddingColumn
from forebay.coordinator.requests.resolver import RequestResourceResolver

T = TypeVar("T")

NO_SERVER: Final = "no server was asked; name one with --url"
NOT_USED: Final = "nobody has used this window on the server yet"
NO_RUN: Final = "no run was watched; the report that forebay run writes at its end has them"


def capacity_plan(
    workflow: Workflow,
    *,
    shards: Mapping[str, GlobalSnapshot] | None = None,
    pool_limits: Mapping[str, int] | None = None,
) -> AsyncCapacityPlan:
    """Return the plan of a workflow.

    Args:
        workflow: as loaded from its file, whose fields that the file leaves out are not set.
        shards: its models' shards by ``provider/model``; None where no server was asked.
        pool_limits: of the task pool; None where no server was asked.
    """
    resources = _resources(workflow)
    return AsyncCapacityPlan(
        configured=_configured(workflow, resources, shards, pool_limits),
        runtime_snapshot=_runtime(resources, shards),
        observed_maxima=nothing_observed(),
    )


def nothing_observed() -> ObservedMaxima:
    """Return the maxima where no run was looked at."""
    reasons = dict.fromkeys(ObservedMaxima.model_fields, NO_RUN)
    reasons["pool_use"] = "connections are not counted: no pool size bounds calls"
    return ObservedMaxima.model_validate(
        {
            name: {"source": CapacitySource.RUNTIME_SNAPSHOT, "missing_reason": reason}
            for name, reason in reasons.items()
        }
    )


def _resources(workflow: Workflow) -> dict[str, RequestResourceKey]:
    resolver = RequestResourceResolver()
    found = {}
    for column in workflow.columns:
        alias = getattr(column.spec, "model", None)
        if alias is not None:
            is_embedding = isinstance(column.spec, EmbeddingColumn)
            kind = RequestDomain.EMBEDDING if is_embedding else RequestDomain.CHAT
            model = workflow.models[alias]
            found[column.outputs[0]] = resolver.resolve(model.provider, model.model, kind)
    return found


def _setting(workflow: Workflow, name: str) -> CapacityValue[T]:
    """Return a setting of the file, or its default."""
    value = getattr(workflow, name)
    default: CapacityValue[T] = known(value, CapacitySource.DEFAULT)
    if name in workflow.model_fields_set:
        return known(value, CapacitySource.RUN_CONFIG)
    return first_of([missing("the file does not say", CapacitySource.RUN_CONFIG), default])


def _configured(
    workflow: Workflow,
    resources: Mapping[str, RequestResourceKey],
    shards: Mapping[str, GlobalSnapshot] | None,
    pool_limits: Mapping[str, int] | None,
) -> ConfiguredCapacity:
    caps = _static_caps(workflow, shards)
    models = _first_aliases(workflow)
    return ConfiguredCapacity(
        buffer_size=_setting(workflow, "buffer_size"),
        row_group_admission=_setting(workflow, "row_group_admission"),
        max_concurrent_row_groups=_setting(workflow, "max_concurrent_row_groups"),
        max_admitted_rows=_setting(workflow, "max_admitted_rows"),
        submission_capacity=_pool_limit(pool_limits, "submission"),
        task_resource_limits={
            request_resource(resource.provider_model): caps[str(resource.provider_model)].cap
            for resource in resources.values()
        },
        request_resources={name: str(resource) for name, resource in resources.items()},
        static_caps=caps,
        initial_limits={
            str(resource): _initial(workflow, str(resource.provider_model))
            for resource in resources.values()
        },
        request_admission_config={
            name: known(
                model.tuning.rule if model.tuning else "steady",
                CapacitySource.RUN_CONFIG if model.tuning else CapacitySource.DEFAULT,
            )
            for name, model in models.items()
        },
        quotas={name: _quotas(model) for name, model in models.items()},
        transport_pool_limits=missing(
            "unbounded: the number of connections is no capacity control",
            CapacitySource.ADAPTER_CONFIG,
        ),
    )


def _first_aliases(workflow: Workflow) -> dict[str, ModelSpec]:
    """Return one alias of each ``provider/model``, with the window settings of any."""
    resolver = RequestResourceResolver()
    found: dict[str, ModelSpec] = {}
    for model in workflow.models.values():
        name = str(resolver.resolve(model.provider, model.model).provider_model)
        before = found.get(name)
        found[name] = (
            model
            if before is None
            else before.model_copy(
                update={
                    field: getattr(before, field) or getattr(model, field)
                    for field in ("tuning", "initial_limit", "quotas")
                }
            )
        )
    return found


def _static_caps(
    workflow: Workflow, shards: Mapping[str, GlobalSnapshot] | None
) -> dict[str, StaticCap]:
    resolver = RequestResourceResolver()
    raw: dict[str, dict[str, int]] = {}
    for alias, model in workflow.models.items():
        name = str(resolver.resolve(model.provider, model.model).provider_model)
        raw.setdefault(name, {})[alias] = model.max_parallel_requests
    return {
        name: StaticCap(
            cap=lowered(known(min(caps.values()), CapacitySource.RUN_CONFIG), _bound(name, shards)),
            aliases=tuple(sorted(caps)),
            raw_caps=caps,
        )
        for name, caps in raw.items()
    }


def _bound(name: str, shards: Mapping[str, GlobalSnapshot] | None) -> CapacityValue[int]:
    """Return the cap that the fleet or an operator has given a provider's model."""
    source = CapacitySource.RUNTIME_SNAPSHOT
    if shards is None:
        return missing(NO_SERVER, source)
    shard = shards[name]
    caps = [cap for cap in (shard.static_cap, shard.override_cap) if cap]
    return known(min(caps), source) if caps else missing(NOT_USED, source)


def _initial(workflow: Workflow, name: str) -> CapacityValue[int]:
    model = _first_aliases(workflow)[name]
    if model.initial_limit is not None:
        return known(model.initial_limit, CapacitySource.RUN_CONFIG)
    return missing(
        "the file does not say: a new window is born by its rule, one in use stays as it is",
        CapacitySource.RUN_CONFIG,
    )


def _quotas(model: ModelSpec) -> CapacityValue[dict[str, int]]:
    given = model.quotas.model_dump(exclude_none=True) if model.quotas else {}
    limits = {name: value for name, value in given.items() if isinstance(value, int)}
    if limits:
        return known(limits, CapacitySource.RUN_CONFIG)
    return missing(
        "the file does not say: what the fleet registered, or headers tell, holds",
        CapacitySource.RUN_CONFIG,
    )


def _pool_limit(limits: Mapping[str, int] | None, name: str) -> CapacityValue[int]:
    source = CapacitySource.RUNTIME_SNAPSHOT
    if limits is None:
        return missing(NO_SERVER, source)
    if name not in limits:
        return missing("the pool has no worker that says it", source)
    return known(limits[name], source)


def _runtime(
    resources: Mapping[str, RequestResourceKey], shards: Mapping[str, GlobalSnapshot] | None
) -> RuntimeCapacity:
    source = CapacitySource.RUNTIME_SNAPSHOT
    limits: dict[str, CapacityValue[int]] = {}
    maxima: dict[str, CapacityValue[int]] = {}
    blocked: dict[str, CapacityValue[float]] = {}
    in_flight: dict[str, CapacityValue[int]] = {}
    for resource in resources.values():
        name, model = str(resource), str(resource.provider_model)
        shard = None if shards is None else shards[model]
        window = None if shard is None else shard.domains[resource.domain]
        if shard is None or window is None or not window.is_used:
            reason = NO_SERVER if shard is None else NOT_USED
            limits[name], maxima[name] = missing(reason, source), missing(reason, source)
            blocked[name] = missing(reason, source)
        else:
            limits[name] = known(window.current_limit, source)
            maxima[name] = known(window.effective_max, source)
            blocked[name] = (
                missing("it does not cool down", source)
                if window.blocked_until is None
                else known(window.blocked_until, source)
            )
        in_flight[model] = (
            missing(NO_SERVER, source)
            if shard is None
            else known(shard.aggregate_in_flight, source)
        )
    return RuntimeCapacity(
        current_limit=limits,
        effective_max=maxima,
        blocked_until=blocked,
        aggregate_in_flight=in_flight,
    )
