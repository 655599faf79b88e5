"""Forebay: many worker processes share the capacity of model providers through Redis.

Two lines hold a provider's limit over the whole fleet::

    async with forebay.connect("redis://localhost") as requests:
        lease = await requests.acquire(forebay.RequestAdmissionItem(resource=resource))
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from contracts.errors import (
    ConfigurationError,
    CoordinatorError,
    CoordinatorFull,
    CoordinatorUnavailable,
    ForebayError,
    MembershipLost,
    RequestAdmissionError,
    TaskAdmissionError,
    TaskFailed,
    WorkflowError,
)
from contracts.identity import (
    ProviderModelKey,
    RequestDomain,
    RequestGroupSpec,
    RequestResourceKey,
)
from contracts.requests import (
    SUCCESS,
    ReleaseReason,
    ReleaseResult,
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
    RequestOutcomeKind,
    RequestReleaseOutcome,
)
from contracts.settings import (
    MemberSettings,
    RequestAdmissionConfig,
    RequestAdmissionTuningConfig,
)
from coordinator.coordinator import Coordinator
from coordinator.requests.controller import AdaptiveRequestAdmissionController


@asynccontextmanager
async def connect(
    url: str = "embedded://", settings: MemberSettings | None = None
) -> AsyncIterator[AdaptiveRequestAdmissionController]:
    """Connect this process to a server and give it request admission.

    Args:
        url: ``embedded://``, ``redis://``, ``rediss://`` or ``unix://``.
        settings: TTL and deadlines; the defaults are safe.

    Yields:
        The controller: ``register`` a provider/model, then ``acquire`` and ``release``.

    Raises:
        ConfigurationError, CoordinatorError: the server cannot be used.
    """
    coordinator = await Coordinator.open(url, settings)
    controller = AdaptiveRequestAdmissionController(coordinator)
    try:
        yield controller
    finally:
        await controller.close()
        await coordinator.close()


__all__ = [
    "SUCCESS",
    "AdaptiveRequestAdmissionController",
    "ConfigurationError",
    "CoordinatorError",
    "CoordinatorFull",
    "CoordinatorUnavailable",
    "ForebayError",
    "MemberSettings",
    "MembershipLost",
    "ProviderModelKey",
    "ReleaseReason",
    "ReleaseResult",
    "RequestAdmissionConfig",
    "RequestAdmissionDenied",
    "RequestAdmissionError",
    "RequestAdmissionItem",
    "RequestAdmissionLease",
    "RequestAdmissionTuningConfig",
    "RequestDenialReason",
    "RequestDomain",
    "RequestGroupSpec",
    "RequestOutcomeKind",
    "RequestReleaseOutcome",
    "RequestResourceKey",
    "TaskAdmissionError",
    "TaskFailed",
    "WorkflowError",
    "connect",
]
