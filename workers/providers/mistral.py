"""Mistral's profile."""

from __future__ import annotations

from typing import Final

from forebay.contracts.identity import RequestDomain
from forebay.workers.providers import openai
from forebay.workers.providers.facts import (
    Endpoint,
    Form,
    ProviderProfile,
    Refusals,
    Source,
    Waits,
)

_ERRORS: Final = Source("docs.mistral.ai/fr/resources/error-glossary")
_SDK: Final = Source("PyPI mistralai 3.7.0")
_LIMITS: Final = Source("docs.mistral.ai/deployment/ai-studio/tier")

PROFILE: Final = ProviderProfile(
    name="mistral",
    title="Mistral",
    hosts=("api.mistral.ai", "codestral.mistral.ai"),
    endpoints=(
        *openai.CALLS,
        Endpoint(path=r"/fim/completions", domain=RequestDomain.CHAT, source=_SDK),
        Endpoint(path=r"/agents/completions", domain=RequestDomain.CHAT, source=_SDK),
        Endpoint(path=r"/chat/moderations", domain=RequestDomain.CHAT, source=_SDK),
        Endpoint(
            path=r"/(?:chat/)?classifications|/conversations(?:/[^/]+)?",
            domain=RequestDomain.CHAT,
            source=_SDK,
        ),
        Endpoint(path=r"/ocr", domain=RequestDomain.CHAT, source=_SDK),
        *openai.BOOKKEEPING,
    ),
    body=openai.BODY,
    usage=openai.USAGE,
    refusals=Refusals(
        places=("", "error"),
        codes=("code", "type"),
        overload=frozenset({"rate_limit_error", "rate_limited", "service_tier_capacity_exceeded"})
        | {"3505"},
        overload_statuses=frozenset({429, 503}),
        source=_ERRORS,
    ),
    waits=Waits(
        headers=(("retry-after", Form.SECONDS),),
        source=_ERRORS,
    ),
    streams=openai.STREAMS,
    notes=(
        "Limits: requests per second, tokens per minute, tokens per month, per organization ("
        + _LIMITS.page
        + ").",
    ),
)
