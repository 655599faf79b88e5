"""Gemini's profile (the Gemini API of Google AI Studio)."""

from __future__ import annotations

from typing import Final

from forebay.contracts.identity import RequestDomain
from forebay.workers.providers import openai
from forebay.workers.providers.facts import (
    Body,
    Budget,
    Endpoint,
    Form,
    Part,
    Period,
    ProviderProfile,
    Refusals,
    Source,
    Streams,
    Unit,
    Usage,
    Waits,
)

_API: Final = Source("PyPI google-genai 3.6.1: google/genai/models.py, types.py")
_INTERACTIONS: Final = Source("PyPI google-genai 3.6.1: google/genai/_gaos")
_IMAGES: Final = Source("huggingface.co/datasets/JOHNISKING/image-token-cost")
_LIMITS: Final = Source("www.developersdigest.tech/errors/api/gemini-api/429-quota-exceeded")
_CODES: Final = Source(
    "PyPI google-genai 3.6.1; developers.google.com/bid-manager/quotas;"
    " github.com/googleapis/googleapis: google/api/error_reason.proto"
)
_REFUSAL: Final = Source("github.com/continuedev/continue/issues/11681")

_MODEL: Final = r"/(?:models|tunedModels|endpoints)/(?P<model>[^/:]+)"

CALLS: Final = (
    Endpoint(
        path=_MODEL + r":(?:generateContent|streamGenerateContent|generateAnswer|generateText)",
        domain=RequestDomain.CHAT,
        source=_API,
    ),
    Endpoint(
        path=_MODEL + r":(?:embedContent|batchEmbedContents|embedText)",
        domain=RequestDomain.EMBEDDING,
        source=_API,
    ),
    Endpoint(
        path=_MODEL + r":(?:predict|predictLongRunning)", domain=RequestDomain.IMAGE, source=_API
    ),
    Endpoint(path=_MODEL + r":countTokens", domain=None, source=_API),
    Endpoint(path=r"/interactions", domain=RequestDomain.CHAT, source=_INTERACTIONS),
    Endpoint(path=r"/interactions/.*", domain=None, source=_INTERACTIONS, method=""),
)

BODY: Final = Body(
    models=("model",),
    prompts=(
        "contents",
        "systemInstruction",
        "system_instruction",
        "tools",
        "content",
        "requests",
        "generationConfig.responseSchema",
        "instances",
        "input",
        "response_format",
    ),
    bounds=("generationConfig.maxOutputTokens", "generation_config.max_output_tokens"),
    answers=("generationConfig.candidateCount",),
    parts=(
        Part(named="inlineData", tokens=1_090, source=_IMAGES),
        Part(named="inline_data", tokens=1_090, source=_IMAGES),
        Part(named="fileData", tokens=1_090, source=_IMAGES),
        Part(named="file_data", tokens=1_090, source=_IMAGES),
    ),
    source=_API,
)

USAGE: Final = Usage(
    places=("usageMetadata", "usage", "interaction.usage"),
    inputs=("promptTokenCount", "total_input_tokens"),
    more_inputs=("toolUsePromptTokenCount", "total_tool_use_tokens"),
    outputs=("candidatesTokenCount", "total_output_tokens"),
    more_outputs=("thoughtsTokenCount", "total_thought_tokens"),
    source=_INTERACTIONS,
)

REFUSALS: Final = Refusals(
    places=("error", "errors", "interaction.errors"),
    codes=("status", "code"),
    reasons=("details.reason", "errors.reason"),
    overload=frozenset({"resource_exhausted", "unavailable", "overloaded"})
    | {"ratelimitexceeded", "userratelimitexceeded", "rate_limit_exceeded"}
    | {"quotaexceeded", "dailylimitexceeded"},
    overload_statuses=frozenset({429, 503}),
    account=frozenset({"permission_denied", "failed_precondition"})
    | {"accessnotconfigured", "billing_disabled", "service_disabled", "consumer_suspended"},
    request=frozenset({"invalid_argument", "unauthenticated", "not_found", "out_of_range"})
    | {"api_key_invalid", "access_token_expired", "keyinvalid"},
    limits=("error.details.violations.quotaValue", "error.details.metadata.quota_limit_value"),
    budgets=(("dailylimitexceeded", Budget(Unit.REQUESTS, Period.DAY)),),
    source=_CODES,
)

WAITS: Final = Waits(
    headers=(("retry-after", Form.SECONDS),),
    fields=(("error.details.retryDelay", Form.DURATION),),
    budget_fields=(
        "error.details.violations.quotaId",
        "error.details.violations.quotaMetric",
        "error.details.metadata.quota_limit",
        "error.details.metadata.quota_metric",
    ),
    day_ends="America/Los_Angeles",
    source=_REFUSAL,
)

STREAMS: Final = Streams(
    kinds=("text/event-stream", "application/json"),
    last=("interaction.completed",),
    failed=("error",),
    source=_INTERACTIONS,
)

PROFILE: Final = ProviderProfile(
    name="gemini",
    title="Gemini API",
    hosts=("generativelanguage.googleapis.com",),
    endpoints=(
        *CALLS,
        *openai.CALLS,
        Endpoint(
            path=r"/(?:batches|cachedContents|files|corpora|operations|models|tunedModels)(?:/.*)?",
            domain=None,
            source=_API,
            method="GET",
        ),
        Endpoint(
            path=r"/(?:cachedContents|files|corpora|batches)(?:/.*)?",
            domain=None,
            source=_API,
            method="",
        ),
    ),
    body=BODY,
    usage=USAGE,
    refusals=REFUSALS,
    waits=WAITS,
    streams=STREAMS,
    notes=(
        "Budgets of a day end at midnight Pacific time (" + _LIMITS.page + ").",
        "`quotaId` names the budget, as in `GenerateRequestsPerDayPerProjectPerModel-FreeTier`.",
        "Thoughts are counted apart from the candidates, and are output.",
    ),
)
