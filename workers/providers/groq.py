"""Groq's profile."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from forebay.workers.providers import openai
from forebay.workers.providers.facts import (
    Form,
    Period,
    ProviderProfile,
    Refusals,
    Source,
    Unit,
    Waits,
)

_LIMITS: Final = Source("console.groq.com/docs/rate-limits.md")

PROFILE: Final = ProviderProfile(
    name="groq",
    title="Groq",
    hosts=("api.groq.com",),
    endpoints=openai.CALLS + openai.BOOKKEEPING,
    body=openai.BODY,
    usage=replace(
        openai.USAGE,
        places=("usage", "x_groq.usage", "response.usage"),
        free_inputs=("prompt_tokens_details.cached_tokens",),
        source=_LIMITS,
    ),
    refusals=Refusals(
        places=("error", "x_groq.error"),
        codes=("code", "type"),
        overload=frozenset({"rate_limit_exceeded", "capacity_exceeded", "498"}),
        overload_statuses=frozenset({429, 498, 503}),
        request=frozenset({"json_validate_failed", "tool_use_failed"}),
        source=Source("www.developersdigest.tech/errors/api/groq-api"),
    ),
    waits=Waits(
        headers=(("retry-after", Form.SECONDS),),
        resets=(
            (Unit.REQUESTS, Period.DAY, "x-ratelimit-reset-requests", Form.DURATION),
            (Unit.TOKENS, Period.MINUTE, "x-ratelimit-reset-tokens", Form.DURATION),
        ),
        source=_LIMITS,
    ),
    streams=openai.STREAMS,
    notes=(
        "`x-ratelimit-*-requests` always speak of a day, `x-ratelimit-*-tokens` of a minute.",
        "Cached input counts towards no limit.",
    ),
)
