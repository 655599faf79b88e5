"""OpenAI's profile; its shapes are also those of the providers that are compatible with OpenAI."""

from __future__ import annotations

from typing import Final

from forebay.contracts.identity import RequestDomain
from forebay.workers.providers.facts import (
    UNVERIFIED,
    Body,
    Endpoint,
    Form,
    Part,
    ProviderProfile,
    Refusals,
    Source,
    Streams,
    Unit,
    Usage,
    Waits,
)

_SDK: Final = Source("PyPI openai 3.57.0: openai/resources, openai/types")
_IMAGES: Final = Source("huggingface.co/datasets/JOHNISKING/image-token-cost")
_WAITS: Final = Source(
    "developers.openai.com/api/docs/guides/rate-limits; of gateways in its dialect:"
    " github.com/PostHog/posthog/pull/82310, github.com/sekine-1113/Negotole/issues/61"
)

CALLS: Final = (
    Endpoint(path=r"/chat/completions", domain=RequestDomain.CHAT, source=_SDK),
    Endpoint(path=r"/responses", domain=RequestDomain.CHAT, source=_SDK),
    Endpoint(path=r"/responses/compact", domain=RequestDomain.CHAT, source=_SDK),
    Endpoint(path=r"/completions", domain=RequestDomain.CHAT, source=_SDK),
    Endpoint(path=r"/embeddings", domain=RequestDomain.EMBEDDING, source=_SDK),
    Endpoint(path=r"/images/[^/]+", domain=RequestDomain.IMAGE, source=_SDK),
    Endpoint(path=r"/audio/[^/]+", domain=RequestDomain.CHAT, source=_SDK),
    Endpoint(path=r"/videos(?:/[^/]+/remix)?", domain=RequestDomain.IMAGE, source=_SDK),
    Endpoint(path=r"/moderations", domain=RequestDomain.CHAT, source=_SDK),
    Endpoint(path=r"/models", domain=RequestDomain.HEALTHCHECK, source=_SDK, method="GET"),
    Endpoint(path=r"/healthz?", domain=RequestDomain.HEALTHCHECK, source=_SDK, method="GET"),
)
"""Calls of models, alike at all compatible providers."""

BOOKKEEPING: Final = (
    Endpoint(
        path=r"/(?:assistants|batches|containers|conversations|evals|files|fine_tuning|models|"
        r"organization|threads|uploads|vector_stores|webhooks)(?:/.*)?",
        domain=None,
        source=_SDK,
        method="",
    ),
    Endpoint(path=r"/chat/completions(?:/.*)?", domain=None, source=_SDK, method="GET"),
    Endpoint(path=r"/responses/.*", domain=None, source=_SDK, method=""),
    Endpoint(path=r"/videos(?:/.*)?", domain=None, source=_SDK, method="GET"),
    Endpoint(path=r".*", domain=None, source=_SDK, method="DELETE"),
)
"""Calls that read, store or delete things and run no model."""

BODY: Final = Body(
    models=("model",),
    prompts=(
        "messages",
        "input",
        "prompt",
        "instructions",
        "tools",
        "functions",
        "response_format",
        "text",
    ),
    bounds=("max_completion_tokens", "max_tokens", "max_output_tokens"),
    answers=("n",),
    parts=(
        Part(named="image_url", tokens=1_229, source=_IMAGES),
        Part(named="input_image", tokens=1_229, source=_IMAGES),
        Part(named="input_audio", per_kilobyte=1.0, source=UNVERIFIED),
        Part(named="file", per_kilobyte=15.0, source=UNVERIFIED),
        Part(named="input_file", per_kilobyte=15.0, source=UNVERIFIED),
    ),
    source=_SDK,
)

USAGE: Final = Usage(
    places=("usage", "response.usage"),
    inputs=("prompt_tokens", "input_tokens"),
    outputs=("completion_tokens", "output_tokens"),
    source=_SDK,
)

REFUSALS: Final = Refusals(
    places=("error", "response.error"),
    codes=("code", "type"),
    overload=frozenset(
        {
            "429",
            "503",
            "529",
            "engine_overloaded",
            "rate_limit_error",
            "rate_limit_exceeded",
            "server_is_overloaded",
            "server_overloaded",
            "slow_down",
            "too_many_requests",
        }
    ),
    overload_statuses=frozenset({429, 503}),
    account=frozenset(
        {
            "access_terminated",
            "account_deactivated",
            "billing_hard_limit_reached",
            "billing_not_active",
            "insufficient_quota",
        }
    ),
    request=frozenset(
        {
            "content_filter",
            "content_policy_violation",
            "context_length_exceeded",
            "cyber_policy_violation",
            "image_content_policy_violation",
            "invalid_api_key",
            "invalid_image",
            "invalid_prompt",
            "moderation_blocked",
            "model_not_found",
            "request_too_large",
            "string_above_max_length",
        }
    ),
    source=Source(
        "PyPI openai 3.57.0: openai/types/responses/response_error.py; guides/error-codes"
    ),
)

WAITS: Final = Waits(
    headers=(("retry-after-ms", Form.MILLISECONDS), ("retry-after", Form.SECONDS)),
    fields=(
        ("error.retry_after", Form.SECONDS),
        ("retry_after", Form.SECONDS),
        ("retryAfter", Form.SECONDS),
    ),
    resets=(
        (Unit.REQUESTS, None, "x-ratelimit-reset-requests", Form.DURATION),
        (Unit.TOKENS, None, "x-ratelimit-reset-tokens", Form.DURATION),
        (Unit.TOKENS, None, "x-ratelimit-reset-project-tokens", Form.DURATION),
    ),
    source=_WAITS,
)

STREAMS: Final = Streams(
    last=("response.completed", "response.incomplete"),
    failed=("error", "response.failed"),
    failed_choice=("error",),
    source=_SDK,
)

PROFILE: Final = ProviderProfile(
    name="openai",
    title="OpenAI",
    hosts=("api.openai.com", "*.api.openai.com"),
    endpoints=CALLS + BOOKKEEPING,
    body=BODY,
    usage=USAGE,
    refusals=REFUSALS,
    waits=WAITS,
    streams=STREAMS,
    notes=(
        "Cached input counts towards tokens per minute, and is part of `prompt_tokens`.",
        "Reasoning tokens are part of `completion_tokens` and `output_tokens`.",
        'A 429 "Request too large ... Limit 30000, Requested 40000" is about the request alone.',
    ),
)
