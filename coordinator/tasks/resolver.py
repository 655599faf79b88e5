"""``TaskSchedulingResolver``: metadata of a generator to group and resources (spec 02, 04)."""

from __future__ import annotations

from typing import Final

from contracts.errors import SchedulingMetadataError
from contracts.identity import (
    SUBMISSION,
    RequestResourceKey,
    TaskGroupKey,
    TaskGroupKind,
    TaskGroupSpec,
    request_resource,
)
from contracts.scheduling import SchedulingMetadata
from contracts.tasks import ResolvedTaskScheduling, SchedulerResourceRequest

ADMITTED_PER_WEIGHT: Final = 2
MOST_ADMITTED: Final = 256


class TaskSchedulingResolver:
    """Resolves metadata for one run or tenant.

    Args:
        tenant: who submits; a part of every group, so that tenants never share one.
        tenant_weight: multiplies the weights of the tenant's groups.
    """

    def __init__(self, tenant: str, tenant_weight: float = 1.0) -> None:
        self._tenant = tenant
        self._tenant_weight = tenant_weight

    def resolve(
        self,
        metadata: SchedulingMetadata,
        outputs: tuple[str, ...],
        resource: RequestResourceKey | None = None,
    ) -> ResolvedTaskScheduling:
        """Return group and resources of a generator's tasks.

        Args:
            metadata: what the generator declares.
            outputs: its output columns: two columns over one model are two groups.
            resource: the canonical provider/model domain it calls, where it names one.

        Raises:
            SchedulingMetadataError: a local generator that names a provider.
        """
        if metadata.kind is TaskGroupKind.LOCAL and resource is not None:
            raise SchedulingMetadataError(
                "local_with_resource",
                f"the generator of {', '.join(outputs)} is local but calls {resource}; declare it"
                " as model or custom_model.",
            )
        key = TaskGroupKey(
            kind=metadata.kind, identity=(*metadata.identity[1:], self._tenant, *outputs)
        )
        amounts = {SUBMISSION: 1}
        if resource is not None:
            amounts[request_resource(resource.provider_model)] = 1
        limit = None
        if metadata.kind is not TaskGroupKind.LOCAL:
            limit = max(1, min(MOST_ADMITTED, ADMITTED_PER_WEIGHT * metadata.weight))
        return ResolvedTaskScheduling(
            group=TaskGroupSpec(
                key=key,
                weight=min(1000.0, max(0.001, metadata.weight * self._tenant_weight)),
                admitted_limit=limit,
            ),
            resource_request=SchedulerResourceRequest(amounts=amounts),
            request_resource=resource,
        )
