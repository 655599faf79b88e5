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

from importlib import metadata

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
from contracts.events import RequestEventContext
from contracts.identity import (
    ProviderModelKey,
    RequestDomain,
    RequestGroupSpec,
    RequestResourceKey,
    TaskGroupKey,
    TaskGroupKind,
    TaskGroupSpec,
)
from contracts.quotas import QuotaBudget, QuotaReading
from contracts.requests import (
    SUCCESS,
    ClassifyException,
    ReleaseReason,
    ReleaseResult,
    RequestAdmissionDecision,
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
    RequestOutcomeKind,
    RequestReleaseOutcome,
    TokenUsage,
)
from contracts.settings import (
    MemberSettings,
    RequestAdmissionConfig,
    RequestAdmissionTuningConfig,
    RequestQuotas,
)
from contracts.task_policies import (
    BoundedBorrowTaskAdmissionPolicyConfig,
    DebtCeiling,
    TaskAdmissionConfig,
)
from contracts.tasks import SchedulerResourceRequest
from coordinator.requests.attempts import RequestAttempt
from coordinator.requests.blocking import BlockingRequestAdmissionController
from coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.connecting import Connection, LeaseLost, connect
from forebay.transports import HttpResolver, RequestView, asking_as, http_client, transport
from workers.arq_redis import JobPool, create_pool
from workers.arq_worker import ForebayWorker, open_worker, settings_of
from workers.classification import Classifier, DefaultClassifier
from workers.executor import ModelRequest, ModelRequestExecutor
from workers.retries import RetryBudget, RetryPolicy
from workers.token_estimate import (
    CharacterEstimator,
    TiktokenEstimator,
    TokenEstimator,
    best_estimator,
)

__version__ = metadata.version("forebay")

__all__ = [
    "SUCCESS",
    "AdaptiveRequestAdmissionController",
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
    "LeaseLost",
    "MemberSettings",
    "MembershipLost",
    "ModelRequest",
    "ModelRequestExecutor",
    "ProviderModelKey",
    "QuotaBudget",
    "QuotaReading",
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
