"""Anthropic's profile: input and output tokens have budgets of their own."""

from __future__ import annotations

from typing import Final

from forebay.contracts.identity import RequestDomain
from forebay.workers.providers.facts import (
    Body,
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

_SDK: Final = Source("PyPI anthropic 2.14.0: anthropic/resources, anthropic/types")
_IMAGES: Final = Source("huggingface.co/datasets/JOHNISKING/image-token-cost")
_DOCUMENTS: Final = Source(
    "huggingface.co/datasets/JOHNISKING/pdf-token-cost: 2,347 tokens a page;"
    " docs.rs/agix-base: document_token_estimate: about 50 kB a page"
)
_LIMITS: Final = Source("docs.anthropic.com/es/api/rate-limits")
_ERRORS: Final = Source("www.developersdigest.tech/errors/api/anthropic-api")

CALLS: Final = (
    Endpoint(path=r"^(?!.*/threads/).*/messages", domain=RequestDomain.CHAT, source=_SDK),
    Endpoint(path=r"/complete", domain=RequestDomain.CHAT, source=_SDK),
)
BOOKKEEPING: Final = (
    Endpoint(path=r"/messages/count_tokens", domain=None, source=_SDK),
    Endpoint(path=r"/messages/batches(?:/.*)?", domain=None, source=_SDK, method=""),
)

BODY: Final = Body(
    models=("model",),
    prompts=("system", "messages", "tools", "prompt", "output_format"),
    bounds=("max_tokens", "max_tokens_to_sample"),
    parts=(
        Part(named="image", tokens=1_446, source=_IMAGES),
        Part(named="document", per_kilobyte=35.0, source=_DOCUMENTS),
    ),
    source=_SDK,
)

USAGE: Final = Usage(
    places=("usage", "message.usage"),
    inputs=("input_tokens",),
    more_inputs=("cache_creation_input_tokens",),
    outputs=("output_tokens",),
    source=_LIMITS,
)

REFUSALS: Final = Refusals(
    places=("error",),
    codes=("type",),
    overload=frozenset({"overloaded_error", "rate_limit_error"}),
    overload_statuses=frozenset({429, 529}),
    account=frozenset({"billing_error", "credit_balance_too_low", "enforced_spend_limit_reached"}),
    request=frozenset({"request_too_large"}),
    source=_ERRORS,
)

STREAMS: Final = Streams(last=("message_stop",), failed=("error",), source=_SDK)

PROFILE: Final = ProviderProfile(
    name="anthropic",
    title="Anthropic",
    hosts=("api.anthropic.com", "claude.googleapis.com", "aws-external-anthropic.*.api.aws"),
    endpoints=(
        *CALLS,
        *BOOKKEEPING,
        Endpoint(path=r"/models", domain=RequestDomain.HEALTHCHECK, source=_SDK, method="GET"),
        Endpoint(
            path=r"/(?:files|models|organizations|skills)(?:/.*)?",
            domain=None,
            source=_SDK,
            method="",
        ),
    ),
    body=BODY,
    usage=USAGE,
    refusals=REFUSALS,
    waits=Waits(
        headers=(("retry-after", Form.SECONDS),),
        resets=(
            (Unit.REQUESTS, Period.MINUTE, "anthropic-ratelimit-requests-reset", Form.RFC3339),
            (
                Unit.INPUT_TOKENS,
                Period.MINUTE,
                "anthropic-ratelimit-input-tokens-reset",
                Form.RFC3339,
            ),
            (
                Unit.OUTPUT_TOKENS,
                Period.MINUTE,
                "anthropic-ratelimit-output-tokens-reset",
                Form.RFC3339,
            ),
            (Unit.TOKENS, None, "anthropic-ratelimit-tokens-reset", Form.RFC3339),
        ),
        source=_LIMITS,
    ),
    streams=STREAMS,
    notes=(
        "`anthropic-ratelimit-tokens-*` tell the most restrictive of the token limits.",
        "What is read from the cache counts towards no limit; what is written to it is input.",
    ),
)
