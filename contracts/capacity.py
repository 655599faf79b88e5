"""The capacity plan of a workflow: each bound with its source (design 02, *Capacity plan*).

The plan decides nothing. A value that is not known has a reason in its place.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Generic, Literal, TypeVar

from pydantic import model_validator

from forebay.contracts.snapshots import Snapshot

T = TypeVar("T")


class CapacitySource(StrEnum):
    """The source of a value of a capacity plan."""

    DEFAULT = "default"
    RUN_CONFIG = "run_config"
    DATASET_BUILDER = "dataset_builder"
    MODEL_METADATA = "model_metadata"
    ENGINE_INTERNAL_CONFIG = "engine_internal_config"
    ADAPTER_CONFIG = "adapter_config"
    ENVIRONMENT = "environment"
    RUNTIME_SNAPSHOT = "runtime_snapshot"
    BENCHMARK_OVERRIDE = "benchmark_override"


PRECEDENCE: tuple[CapacitySource, ...] = (
    CapacitySource.BENCHMARK_OVERRIDE,
    CapacitySource.ENVIRONMENT,
    CapacitySource.RUN_CONFIG,
    CapacitySource.DATASET_BUILDER,
    CapacitySource.MODEL_METADATA,
    CapacitySource.ADAPTER_CONFIG,
    CapacitySource.ENGINE_INTERNAL_CONFIG,
    CapacitySource.DEFAULT,
)
"""The sources that configure a value; the first one with a value counts. A server's present state
(``runtime_snapshot``) is no configuration: its cap can only lower the static cap (`lowered`)."""


class CapacityValue(Snapshot, Generic[T]):
    """A value of a capacity plan, with its source.

    Attributes:
        value: None where it is not known.
        source: where the value comes from; of a missing value, where it would come from.
        fallback_from: the source that was passed over, as it has no value or a higher cap.
        missing_reason: why there is no value; None exactly where there is one.
    """

    value: T | None = None
    source: CapacitySource
    fallback_from: CapacitySource | None = None
    missing_reason: str | None = None

    @model_validator(mode="after")
    def _is_known_or_says_why(self) -> CapacityValue[T]:
        if (self.value is None) != (self.missing_reason is not None):
            raise ValueError("a capacity value has either a value or a missing_reason")
        return self


def known(value: T, source: CapacitySource) -> CapacityValue[T]:
    """Return a known value with its source."""
    return CapacityValue(value=value, source=source)


def missing(reason: str, source: CapacitySource) -> CapacityValue[T]:
    """Return a missing value with the reason."""
    return CapacityValue(source=source, missing_reason=reason)


def first_of(values: Iterable[CapacityValue[T]]) -> CapacityValue[T]:
    """Return the first known value in the order of `PRECEDENCE`.

    ``fallback_from`` names the highest source where that one has no value.
    """
    ordered = sorted(values, key=lambda one: PRECEDENCE.index(one.source))
    found = next((one for one in ordered if one.value is not None), None)
    if found is None:
        return ordered[0]
    if found is ordered[0]:
        return found
    return found.model_copy(update={"fallback_from": ordered[0].source})


def lowered(cap: CapacityValue[int], bound: CapacityValue[int]) -> CapacityValue[int]:
    """Return the smaller of a static cap and a bound of admission, never more than the cap."""
    if cap.value is None or bound.value is None or bound.value >= cap.value:
        return cap
    return bound.model_copy(update={"fallback_from": cap.source})


class StaticCap(Snapshot):
    """The static cap of a provider's model.

    Attributes:
        cap: the smallest cap of the aliases, or a lower bound of admission.
        aliases: the names under which the workflow uses the model.
        raw_caps: the cap of each alias.
        merge_rule: how several caps become one.
    """

    cap: CapacityValue[int]
    aliases: tuple[str, ...]
    raw_caps: dict[str, int]
    merge_rule: Literal["min_same_endpoint"] = "min_same_endpoint"


class ConfiguredCapacity(Snapshot):
    """The configured bounds of a run.

    Attributes:
        buffer_size: records in a row group.
        row_group_admission: ``fixed`` or ``additive``.
        max_concurrent_row_groups: row groups open at a time.
        max_admitted_rows: most records on the server.
        submission_capacity: tasks that may run at once in the pool.
        task_resource_limits: limit of each scheduler resource that the run uses.
        request_resources: of each column, the window that its calls need.
        static_caps: by ``provider/model``.
        initial_limits: where each domain's window is born.
        request_admission_config: rule of the window, by ``provider/model``.
        quotas: by ``provider/model``.
        transport_pool_limits: connections to a provider.
    """

    buffer_size: CapacityValue[int]
    row_group_admission: CapacityValue[str]
    max_concurrent_row_groups: CapacityValue[int]
    max_admitted_rows: CapacityValue[int]
    submission_capacity: CapacityValue[int]
    task_resource_limits: dict[str, CapacityValue[int]]
    request_resources: dict[str, str]
    static_caps: dict[str, StaticCap]
    initial_limits: dict[str, CapacityValue[int]]
    request_admission_config: dict[str, CapacityValue[str]]
    quotas: dict[str, CapacityValue[dict[str, int]]]
    transport_pool_limits: CapacityValue[int]


class RuntimeCapacity(Snapshot):
    """The windows and blocks on the server at this instant, by domain or ``provider/model``."""

    current_limit: dict[str, CapacityValue[int]]
    effective_max: dict[str, CapacityValue[int]]
    blocked_until: dict[str, CapacityValue[float]]
    aggregate_in_flight: dict[str, CapacityValue[int]]


class ObservedMaxima(Snapshot):
    """The highest values among the snapshots that were taken during a run."""

    row_groups_in_flight: CapacityValue[int]
    queued_by_group: CapacityValue[dict[str, int]]
    task_leases_by_resource: CapacityValue[dict[str, int]]
    waiters_by_resource: CapacityValue[dict[str, int]]
    in_flight_by_resource: CapacityValue[dict[str, int]]
    aggregate_in_flight: CapacityValue[dict[str, int]]
    current_limits: CapacityValue[dict[str, int]]
    pool_use: CapacityValue[int]


class AsyncCapacityPlan(Snapshot):
    """A run's configured bounds, the server's present state, and the observed maxima.

    Rules: design 02, *Capacity plan*.
    """

    configured: ConfiguredCapacity
    runtime_snapshot: RuntimeCapacity
    observed_maxima: ObservedMaxima
