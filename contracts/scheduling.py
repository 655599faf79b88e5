"""The metadata that a generator declares for the task queue (design 02, *Metadata*)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from forebay.contracts.checks import check_cap, check_name, check_type
from forebay.contracts.errors import ConfigurationError, SchedulingMetadataError
from forebay.contracts.identity import RequestResourceKey, TaskGroupKind, TaskGroupSpec
from forebay.contracts.settings import LARGEST_CAP
from forebay.contracts.tasks import SchedulerResourceRequest

_IDENTITY_PARTS: Final = {
    TaskGroupKind.LOCAL: ("resource name",),
    TaskGroupKind.MODEL: ("provider", "canonical model", "generation kind"),
    TaskGroupKind.CUSTOM_MODEL: ("namespace", "resource", "version"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingMetadata:
    """A generator's resource and its weight in the task queue.

    It says nothing of queue depth, limits or pressure. The same generator must declare the same
    each time it is asked, in every process. The default suits a generator that says nothing.

    Attributes:
        kind: what the generator uses; the plain word is taken too.
        identity: names from broad to specific, the first of them the kind itself.
        weight: a positive integer; for a model the effective static cap of its endpoint.

    Raises:
        SchedulingMetadataError: with code ``unknown_kind``, ``bad_identity`` or ``bad_weight``.
    """

    kind: TaskGroupKind = TaskGroupKind.LOCAL
    identity: tuple[str, ...] = ("local", "default")
    weight: int = 1

    def __post_init__(self) -> None:
        try:
            kind = TaskGroupKind(self.kind)
        except ValueError as error:
            known = ", ".join(TaskGroupKind)
            raise SchedulingMetadataError(
                "unknown_kind", f"scheduling kind {self.kind!r} is unknown; use one of {known}."
            ) from error
        object.__setattr__(self, "kind", kind)
        _check_identity(kind, self.identity)
        if isinstance(self.weight, bool) or not isinstance(self.weight, int) or self.weight < 1:
            raise SchedulingMetadataError(
                "bad_weight",
                f"scheduling weight {self.weight!r} of {'/'.join(self.identity)} is not a"
                " positive integer; use 1 where nothing else is known.",
            )


def _check_identity(kind: TaskGroupKind, identity: tuple[str, ...]) -> None:
    parts = _IDENTITY_PARTS[kind]
    shape = f"({', '.join((repr(kind.value), *parts))})"
    if (
        not isinstance(identity, tuple)
        or len(identity) != len(parts) + 1
        or identity[0] != kind.value
    ):
        raise SchedulingMetadataError(
            "bad_identity", f"scheduling identity {identity!r} must be the tuple {shape}."
        )
    try:
        for part, name in zip(parts, identity[1:], strict=True):
            check_name(part, name)
    except ConfigurationError as error:
        raise SchedulingMetadataError(
            "bad_identity", f"scheduling identity must be the tuple {shape}: {error}"
        ) from error


class DeclaresScheduling(Protocol):
    """Protocol of a generator that declares its scheduling to the task queue."""

    def get_scheduling_metadata(self) -> SchedulingMetadata:
        """Return the generator's metadata; equal at each call.

        Raises:
            SchedulingMetadataError: it cannot say; with a ``fallback`` that is used instead.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEndpoint:
    """A provider/model that a generator calls, under one of its aliases.

    Attributes:
        resource: its canonical key, from the `RequestResourceResolver`.
        static_cap: requests at once under this alias; of several aliases the smallest counts.
        alias: what the user calls it; for diagnosis only.

    Raises:
        ConfigurationError: no such key, or a cap out of range.
    """

    resource: RequestResourceKey
    static_cap: int = 1
    alias: str = ""

    def __post_init__(self) -> None:
        check_type("resource of an endpoint", self.resource, RequestResourceKey)
        check_cap(f"static_cap of {self.resource}", self.static_cap, LARGEST_CAP)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedTaskScheduling:
    """Group and resources that the resolver derives from a generator's metadata.

    Attributes:
        group: fair-queue group with weight and admitted limit.
        resource_request: ledger amounts.
        request_resource: the provider/model domain, where there is one and no more.
        diagnostics: what the resolver had to assume: ``assumed`` a kind, a ``fallback`` by the code
            of the error and its ``reason``; and the ``aliases`` of what is called.
    """

    group: TaskGroupSpec
    resource_request: SchedulerResourceRequest
    request_resource: RequestResourceKey | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
