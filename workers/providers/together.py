"""Together AI's profile."""

from __future__ import annotations

from typing import Final

from forebay.contracts.identity import RequestDomain
from forebay.workers.providers import openai
from forebay.workers.providers.facts import (
    Endpoint,
    Form,
    Period,
    ProviderProfile,
    Refusals,
    Source,
    Unit,
    Waits,
)

_SDK: Final = Source("PyPI together 3.1.1: together/resources")
_LIMITS: Final = Source("docs.together.ai/docs/rate-limits.md")

PROFILE: Final = ProviderProfile(
    name="together",
    title="Together AI",
    hosts=("api.together.xyz", "api.together.ai"),
    endpoints=(
        *openai.CALLS,
        Endpoint(path=r"/rerank", domain=RequestDomain.CHAT, source=_LIMITS),
        Endpoint(
            path=r"/(?:compute|evaluation|fine-tunes|finetune|projects|rl|voices)(?:/.*)?",
            domain=None,
            source=_SDK,
            method="",
        ),
        *openai.BOOKKEEPING,
    ),
    body=openai.BODY,
    usage=openai.USAGE,
    refusals=Refusals(
        places=("error",),
        codes=("code", "type"),
        overload=frozenset({"dynamic_request_limited", "dynamic_token_limited", "rate_limit"})
        | {"service_unavailable"},
        overload_statuses=frozenset({429, 503}),
        source=_LIMITS,
    ),
    waits=Waits(
        headers=(("retry-after", Form.SECONDS),),
        resets=(
            (Unit.REQUESTS, Period.MINUTE, "x-ratelimit-reset", Form.SECONDS),
            (Unit.TOKENS, Period.MINUTE, "x-tokenlimit-reset", Form.SECONDS),
        ),
        source=_LIMITS,
    ),
    streams=openai.STREAMS,
    notes=("Limits move with what was served lately: the window follows them.",),
)
