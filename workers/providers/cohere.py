"""Cohere's profile."""

from __future__ import annotations

from typing import Final

from forebay.contracts.identity import RequestDomain
from forebay.workers.providers import openai
from forebay.workers.providers.facts import (
    Body,
    Endpoint,
    Form,
    ProviderProfile,
    Refusals,
    Source,
    Streams,
    Usage,
    Waits,
)

_API: Final = Source("PyPI cohere 7.3.1: cohere/v2, cohere/types/usage.py")
_ERRORS: Final = Source("www.developersdigest.tech/errors/api/cohere-api/429-too-many-requests")
_LIMITS: Final = Source("docs.cohere.com/docs/rate-limits")

PROFILE: Final = ProviderProfile(
    name="cohere",
    title="Cohere",
    hosts=("api.cohere.com", "api.cohere.ai"),
    endpoints=(
        Endpoint(path=r"/(?:chat|generate|summarize)", domain=RequestDomain.CHAT, source=_API),
        Endpoint(path=r"/embed", domain=RequestDomain.EMBEDDING, source=_LIMITS),
        Endpoint(path=r"/(?:rerank|classify|parse)", domain=RequestDomain.CHAT, source=_LIMITS),
        *openai.CALLS,
        Endpoint(
            path=r"/(?:tokenize|detokenize|check-api-key|datasets|embed-jobs|finetuning|models|"
            r"connectors)(?:/.*)?",
            domain=None,
            source=_LIMITS,
            method="",
        ),
    ),
    body=Body(
        prompts=(
            "message",
            "messages",
            "chat_history",
            "preamble",
            "documents",
            "tools",
            "texts",
            "inputs",
            "prompt",
            "query",
            "tool_results",
            "response_format",
        ),
        bounds=("max_tokens",),
        source=_API,
    ),
    usage=Usage(
        places=(
            "usage.tokens",
            "delta.usage.tokens",
            "meta.tokens",
            "response.meta.tokens",
            "meta.billed_units",
            "usage.billed_units",
            "delta.usage.billed_units",
        ),
        inputs=("input_tokens",),
        outputs=("output_tokens",),
        source=_API,
    ),
    refusals=Refusals(
        places=("", "delta.error"),
        codes=("code", "type"),
        overload=frozenset({"too_many_requests"}),
        overload_statuses=frozenset({429, 503}),
        source=_ERRORS,
    ),
    waits=Waits(headers=(("retry-after", Form.SECONDS),), source=_ERRORS),
    streams=Streams(
        kinds=("text/event-stream", "application/stream+json", "application/x-ndjson"),
        last=("message-end", "stream-end"),
        failed_choice=("ERROR", "ERROR_LIMIT", "ERROR_TOXIC", "TIMEOUT"),
        source=_API,
    ),
    notes=(
        "A trial key's message names its budget: `limited to 1000 API calls / month`.",
        "Nothing tells when a budget is whole again.",
    ),
)
