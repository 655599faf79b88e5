"""``TaskSchedulingResolver``: from a generator's metadata to group and resources.

Rules: design 02; design 04.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from forebay.contracts.checks import MAX_NAME_BYTES, MAX_WEIGHT, MIN_WEIGHT, check_cap, shown
from forebay.contracts.errors import SchedulingMetadataError
from forebay.contracts.identity import (
    SUBMISSION,
    RequestResourceKey,
    TaskGroupKey,
    TaskGroupKind,
    TaskGroupSpec,
    request_resource,
)
from forebay.contracts.scheduling import (
    DeclaresScheduling,
    ModelEndpoint,
    ResolvedTaskScheduling,
    SchedulingMetadata,
)
from forebay.contracts.tasks import SchedulerResourceRequest

ADMITTED_PER_WEIGHT: Final = 2
MOST_ADMITTED: Final = 256
LARGEST_FACTOR: Final = 1_000_000


class TaskSchedulingResolver:
    """Resolves the metadata of one run's or tenant's generators, each once.

    Args:
        tenant: who submits; a part of every group, so that tenants never share one.
        tenant_weight: multiplies the weights of the tenant's groups.
        admitted_per_weight: a group with models may have this many tasks per unit of its weight
            admitted while others press,
        most_admitted: but no more than this.

    Raises:
        ConfigurationError: a number out of range.
    """

    def __init__(
        self,
        tenant: str = "default",
        tenant_weight: float = 1.0,
        *,
        admitted_per_weight: int = ADMITTED_PER_WEIGHT,
        most_admitted: int = MOST_ADMITTED,
    ) -> None:
        self._tenant = tenant
        self._tenant_weight = tenant_weight
        self._per_weight = check_cap("admitted_per_weight", admitted_per_weight, LARGEST_FACTOR)
        self._most_admitted = check_cap("most_admitted", most_admitted, LARGEST_FACTOR)
        self._resolved: dict[
            tuple[str, ...],
            tuple[SchedulingMetadata, frozenset[ModelEndpoint], ResolvedTaskScheduling],
        ] = {}

    def resolve(
        self,
        generator: DeclaresScheduling,
        outputs: tuple[str, ...],
        endpoints: Sequence[ModelEndpoint] = (),
    ) -> ResolvedTaskScheduling:
        """Return group and resources of a generator's tasks.

        A generator that declares nothing of its own is taken for what its endpoints make it: a
        ``model`` if all its aliases are one endpoint, a ``custom_model`` if they are several.

        Args:
            generator: asked for its metadata; where it raises an error with a ``fallback``, that
                is taken and told in the diagnostics.
            outputs: its output columns: two columns over one model are two groups.
            endpoints: what it calls, by any aliases, in any order.

        Raises:
            SchedulingMetadataError: ``bad_metadata``, ``not_deterministic``,
                ``local_with_endpoint``, ``other_endpoint``, or what the generator raises itself.
                Nothing may be scheduled.
        """
        metadata, diagnostics = self._ask(generator, outputs)
        called = frozenset(endpoints)
        known = self._resolved.get(outputs)
        if known is None:
            resolved = self._resolve(metadata, outputs, called, diagnostics)
            self._resolved[outputs] = (metadata, called, resolved)
            return resolved
        if known[:2] != (metadata, called):
            raise _not_deterministic(outputs, known[0], metadata)
        return known[2]

    def _ask(
        self, generator: DeclaresScheduling, outputs: tuple[str, ...]
    ) -> tuple[SchedulingMetadata, dict[str, Any]]:
        diagnostics: dict[str, Any] = {}
        try:
            metadata = generator.get_scheduling_metadata()
            again = generator.get_scheduling_metadata()
        except SchedulingMetadataError as error:
            if not isinstance(error.fallback, SchedulingMetadata):
                raise
            metadata = again = error.fallback
            diagnostics = {"fallback": error.code, "reason": str(error), **error.diagnostics}
        if not isinstance(metadata, SchedulingMetadata):
            raise SchedulingMetadataError(
                "bad_metadata",
                f"the generator of {', '.join(outputs)} declares {shown(metadata)}, expected a"
                " SchedulingMetadata; return one from get_scheduling_metadata.",
            )
        if metadata != again:
            raise _not_deterministic(outputs, metadata, again)
        return metadata, diagnostics

    def _resolve(
        self,
        metadata: SchedulingMetadata,
        outputs: tuple[str, ...],
        called: frozenset[ModelEndpoint],
        diagnostics: dict[str, Any],
    ) -> ResolvedTaskScheduling:
        caps: dict[RequestResourceKey, int] = {}
        for endpoint in called:
            cap = caps.get(endpoint.resource, endpoint.static_cap)
            caps[endpoint.resource] = min(cap, endpoint.static_cap)
        resources = sorted(caps, key=str)
        if aliases := sorted(endpoint.alias for endpoint in called if endpoint.alias):
            diagnostics["aliases"] = aliases
        if resources and metadata == SchedulingMetadata():
            metadata = _derived(resources, min(caps.values()))
            diagnostics["assumed"] = str(metadata.kind)
        _check_agrees(metadata, outputs, resources)
        amounts = {SUBMISSION: 1}
        amounts.update((request_resource(resource.provider_model), 1) for resource in resources)
        limit = None
        if metadata.kind is not TaskGroupKind.LOCAL:
            limit = max(1, min(self._most_admitted, self._per_weight * metadata.weight))
        weight = metadata.weight * self._tenant_weight
        return ResolvedTaskScheduling(
            group=TaskGroupSpec(
                key=TaskGroupKey(
                    kind=metadata.kind, identity=(*metadata.identity[1:], self._tenant, *outputs)
                ),
                weight=min(MAX_WEIGHT, max(MIN_WEIGHT, weight)),
                admitted_limit=limit,
            ),
            resource_request=SchedulerResourceRequest(amounts=amounts),
            request_resource=resources[0] if len(resources) == 1 else None,
            diagnostics=diagnostics,
        )


def _derived(resources: Sequence[RequestResourceKey], cap: int) -> SchedulingMetadata:
    """Return the metadata of a generator that declares none, from its endpoints in any order."""
    if len(resources) == 1:
        key = resources[0].provider_model
        identity = ("model", key.provider_name, key.model_id, str(resources[0].domain))
        return SchedulingMetadata(kind=TaskGroupKind.MODEL, identity=identity, weight=cap)
    name = "+".join(str(resource) for resource in resources)
    if len(name.encode()) > MAX_NAME_BYTES:
        name = hashlib.sha256(name.encode()).hexdigest()
    return SchedulingMetadata(
        kind=TaskGroupKind.CUSTOM_MODEL,
        identity=("custom_model", "endpoints", name, "1"),
        weight=cap,
    )


def _check_agrees(
    metadata: SchedulingMetadata, outputs: tuple[str, ...], resources: Sequence[RequestResourceKey]
) -> None:
    """Refuse a declaration that its endpoints contradict."""
    called = ", ".join(str(resource) for resource in resources)
    if metadata.kind is TaskGroupKind.LOCAL and resources:
        raise SchedulingMetadataError(
            "local_with_endpoint",
            f"the generator of {', '.join(outputs)} is declared local but calls {called}; declare"
            " it as model or custom_model.",
        )
    if metadata.kind is TaskGroupKind.MODEL and resources:
        declared = [part.lower() for part in metadata.identity[1:2]] + [*metadata.identity[2:3]]
        keys = [[r.provider_model.provider_name, r.provider_model.model_id] for r in resources]
        if any(key != declared for key in keys):
            raise SchedulingMetadataError(
                "other_endpoint",
                f"the generator of {', '.join(outputs)} is declared as model"
                f" {'/'.join(declared)} but calls {called}; declare what it calls, or"
                " custom_model.",
            )


def _not_deterministic(
    outputs: tuple[str, ...], first: SchedulingMetadata, then: SchedulingMetadata
) -> SchedulingMetadataError:
    return SchedulingMetadataError(
        "not_deterministic",
        f"the generator of {', '.join(outputs)} declares another identity, weight or endpoint each"
        " time it is asked; make get_scheduling_metadata return the same for the same generator.",
        diagnostics={"declared": ["/".join(first.identity), "/".join(then.identity)]},
    )
