"""Forebay: many worker processes share the capacity of model providers through Redis.

Two lines hold a provider's limit over the whole fleet, once this process has said what it is::

    chat = forebay.RequestResourceKey(
        provider_model=forebay.ProviderModelKey(provider_name="openai", model_id="gpt-5")
    )

    async with forebay.connect("redis://localhost") as requests:
        await requests.register(chat.provider_model, "mine", max_parallel_requests=8)
        async with requests.attempt(forebay.RequestAdmissionItem(resource=chat)):
            ...  # one provider call; its exception, if any, moves the limit

The same for synchronous programs and their threads, here with a decorator::

    with forebay.connect("redis://localhost") as requests:
        requests.register(chat.provider_model, "mine", max_parallel_requests=8)
        answer = requests.limited(chat)(call)("a prompt")
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as type checkers read it; to import it takes longer than all else here
if TYPE_CHECKING:
    from forebay.connecting import Connection, LeaseLost, connect
    from forebay.contracts.errors import (
        ConfigurationError,
        CoordinatorError,
        CoordinatorFull,
        CoordinatorUnavailable,
        ForebayError,
        JobUnreadable,
        MembershipLost,
        RunRefused,
        TaskFailed,
        WorkflowError,
    )
    from forebay.contracts.events import RequestEventContext
    from forebay.contracts.identity import (
        ProviderModelKey,
        RequestDomain,
        RequestGroupSpec,
        RequestResourceKey,
        TaskGroupKey,
        TaskGroupKind,
        TaskGroupSpec,
    )
    from forebay.contracts.outcomes import (
        SUCCESS,
        ClassifyException,
        RateLimitScope,
        ReleaseReason,
        ReleaseResult,
        RequestOutcomeKind,
        RequestReleaseOutcome,
        TokenUsage,
    )
    from forebay.contracts.quotas import QuotaBudget, QuotaReading
    from forebay.contracts.requests import (
        RequestAdmissionDecision,
        RequestAdmissionDenied,
        RequestAdmissionError,
        RequestAdmissionItem,
        RequestAdmissionLease,
        RequestDenialReason,
    )
    from forebay.contracts.settings import (
        MemberSettings,
        RequestAdmissionConfig,
        RequestAdmissionTuningConfig,
        RequestQuotas,
    )
    from forebay.contracts.task_policies import (
        BoundedBorrowTaskAdmissionPolicyConfig,
        DebtCeiling,
        TaskAdmissionConfig,
    )
    from forebay.contracts.tasks import SchedulerResourceRequest, TaskAdmissionError
    from forebay.coordinator.requests.attempts import RequestAttempt
    from forebay.coordinator.requests.blocking import BlockingRequestAdmissionController
    from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
    from forebay.transports import HttpResolver, RequestView, asking_as, http_client, transport
    from forebay.workers.arq.open_worker import open_worker
    from forebay.workers.arq.pool import JobPool, create_pool
    from forebay.workers.arq.settings import settings_of
    from forebay.workers.arq.worker import ForebayWorker
    from forebay.workers.executor import ModelRequestExecutor
    from forebay.workers.model_request import ModelRequest
    from forebay.workers.providers.classification import Classifier, DefaultClassifier
    from forebay.workers.providers.token_estimate import (
        CharacterEstimator,
        TiktokenEstimator,
        TokenEstimator,
        best_estimator,
    )
    from forebay.workers.retries import RetryBudget, RetryPolicy
    from forebay.workers.runs.allowlist import Allowlist

__version__ = "0.1.0"

__all__ = [
    "SUCCESS",
    "AdaptiveRequestAdmissionController",
    "Allowlist",
    "BlockingRequestAdmissionController",
    "BoundedBorrowTaskAdmissionPolicyConfig",
    "CharacterEstimator",
    "Classifier",
    "ClassifyException",
    "ConfigurationError",
    "Connection",
    "CoordinatorError",
    "CoordinatorFull",
    "CoordinatorUnavailable",
    "DebtCeiling",
    "DefaultClassifier",
    "ForebayError",
    "ForebayWorker",
    "HttpResolver",
    "JobPool",
    "JobUnreadable",
    "LeaseLost",
    "MemberSettings",
    "MembershipLost",
    "ModelRequest",
    "ModelRequestExecutor",
    "ProviderModelKey",
    "QuotaBudget",
    "QuotaReading",
    "RateLimitScope",
    "ReleaseReason",
    "ReleaseResult",
    "RequestAdmissionConfig",
    "RequestAdmissionDecision",
    "RequestAdmissionDenied",
    "RequestAdmissionError",
    "RequestAdmissionItem",
    "RequestAdmissionLease",
    "RequestAdmissionTuningConfig",
    "RequestAttempt",
    "RequestDenialReason",
    "RequestDomain",
    "RequestEventContext",
    "RequestGroupSpec",
    "RequestOutcomeKind",
    "RequestQuotas",
    "RequestReleaseOutcome",
    "RequestResourceKey",
    "RequestView",
    "RetryBudget",
    "RetryPolicy",
    "RunRefused",
    "SchedulerResourceRequest",
    "TaskAdmissionConfig",
    "TaskAdmissionError",
    "TaskFailed",
    "TaskGroupKey",
    "TaskGroupKind",
    "TaskGroupSpec",
    "TiktokenEstimator",
    "TokenEstimator",
    "TokenUsage",
    "WorkflowError",
    "__version__",
    "asking_as",
    "best_estimator",
    "connect",
    "create_pool",
    "http_client",
    "open_worker",
    "settings_of",
    "transport",
]

_EXPORTS = {
    "forebay.contracts.errors": (
        "ConfigurationError",
        "CoordinatorError",
        "CoordinatorFull",
        "CoordinatorUnavailable",
        "ForebayError",
        "JobUnreadable",
        "MembershipLost",
        "RunRefused",
        "TaskFailed",
        "WorkflowError",
    ),
    "forebay.contracts.events": ("RequestEventContext",),
    "forebay.contracts.identity": (
        "ProviderModelKey",
        "RequestDomain",
        "RequestGroupSpec",
        "RequestResourceKey",
        "TaskGroupKey",
        "TaskGroupKind",
        "TaskGroupSpec",
    ),
    "forebay.contracts.outcomes": (
        "SUCCESS",
        "ClassifyException",
        "RateLimitScope",
        "ReleaseReason",
        "ReleaseResult",
        "RequestOutcomeKind",
        "RequestReleaseOutcome",
        "TokenUsage",
    ),
    "forebay.contracts.quotas": (
        "QuotaBudget",
        "QuotaReading",
    ),
    "forebay.contracts.requests": (
        "RequestAdmissionDecision",
        "RequestAdmissionDenied",
        "RequestAdmissionError",
        "RequestAdmissionItem",
        "RequestAdmissionLease",
        "RequestDenialReason",
    ),
    "forebay.contracts.settings": (
        "MemberSettings",
        "RequestAdmissionConfig",
        "RequestAdmissionTuningConfig",
        "RequestQuotas",
    ),
    "forebay.contracts.task_policies": (
        "BoundedBorrowTaskAdmissionPolicyConfig",
        "DebtCeiling",
        "TaskAdmissionConfig",
    ),
    "forebay.contracts.tasks": (
        "SchedulerResourceRequest",
        "TaskAdmissionError",
    ),
    "forebay.coordinator.requests.attempts": ("RequestAttempt",),
    "forebay.coordinator.requests.blocking": ("BlockingRequestAdmissionController",),
    "forebay.coordinator.requests.controller": ("AdaptiveRequestAdmissionController",),
    "forebay.connecting": (
        "Connection",
        "LeaseLost",
        "connect",
    ),
    "forebay.transports": (
        "HttpResolver",
        "RequestView",
        "asking_as",
        "http_client",
        "transport",
    ),
    "forebay.workers.runs.allowlist": ("Allowlist",),
    "forebay.workers.arq.pool": (
        "JobPool",
        "create_pool",
    ),
    "forebay.workers.arq.settings": ("settings_of",),
    "forebay.workers.arq.open_worker": ("open_worker",),
    "forebay.workers.arq.worker": ("ForebayWorker",),
    "forebay.workers.providers.classification": (
        "Classifier",
        "DefaultClassifier",
    ),
    "forebay.workers.executor": ("ModelRequestExecutor",),
    "forebay.workers.model_request": ("ModelRequest",),
    "forebay.workers.retries": (
        "RetryBudget",
        "RetryPolicy",
    ),
    "forebay.workers.providers.token_estimate": (
        "CharacterEstimator",
        "TiktokenEstimator",
        "TokenEstimator",
        "best_estimator",
    ),
}
"""Module -> the public names defined there, each imported when it is first used (PEP 562)."""
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}


if not TYPE_CHECKING:  # which would take any name at all for an attribute of type Any

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used, and keep it."""
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOME[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Return the names of the module, public ones imported or not."""
    return sorted({*globals(), *__all__})
