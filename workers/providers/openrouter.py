"""OpenRouter's profile."""

from __future__ import annotations

from typing import Final

from forebay.workers.providers import anthropic, openai
from forebay.workers.providers.facts import (
    Budget,
    Endpoint,
    Form,
    Period,
    ProviderProfile,
    Refusals,
    Source,
    Unit,
    Waits,
)

_LIMITS: Final = Source(
    "openrouter.ai/docs/api/reference/errors-and-debugging.md, docs/use-cases/limits;"
    " www.developersdigest.tech/errors/api/openrouter"
)
_SPENT: Final = (
    "openrouter_guardrail_budget",
    "openrouter_workspace_budget",
    "openrouter_key_limit",
)
"""Budgets of money by the day, week or month; a refusal says when they are whole again."""
_ERRORS: Final = Source("openrouter.ai/docs/api/reference/errors-and-debugging.md")

PROFILE: Final = ProviderProfile(
    name="openrouter",
    title="OpenRouter",
    hosts=("openrouter.ai",),
    endpoints=(
        *openai.CALLS,
        *anthropic.CALLS,
        *anthropic.BOOKKEEPING,
        Endpoint(
            path=r"/(?:auth|credits|generation|keys?|providers)(?:/.*)?",
            domain=None,
            source=_ERRORS,
            method="",
        ),
        *openai.BOOKKEEPING,
    ),
    body=openai.BODY,
    usage=openai.USAGE,
    refusals=Refusals(
        places=("error", "choices.error", "response.error"),
        codes=("code", "type", "metadata.error_type"),
        reasons=("metadata.error_type", "metadata.limit_source"),
        overload=frozenset({"429", "503", "529", "in_flight_budget_exhausted"})
        | {"openrouter_in_flight_budget", *_SPENT},
        overload_statuses=frozenset({429, 503}),
        account=frozenset({"402", "payment_required", "weight_exceeds_budget"}),
        request=frozenset({"400", "401", "403", "413"}),
        budgets=tuple((source, Budget(None, Period.DAY)) for source in _SPENT),
        source=_LIMITS,
    ),
    waits=Waits(
        headers=(("retry-after", Form.SECONDS),),
        fields=(
            ("error.metadata.headers.X-RateLimit-Reset", Form.EPOCH),
            ("error.metadata.resets_at", Form.RFC3339),
        ),
        budget_texts=(
            (r"free-models-per-day", Budget(Unit.REQUESTS, Period.DAY)),
            (r"free-models-per-min", Budget(Unit.REQUESTS, Period.MINUTE)),
        ),
        resets=((Unit.REQUESTS, None, "x-ratelimit-reset", Form.EPOCH),),
        source=Source("github.com/Gitlawb/openclaude/issues/936"),
    ),
    streams=openai.STREAMS,
    notes=(
        (
            "An error after the model has begun comes in a 200: in the body, in an event, or"
            " within a choice whose `finish_reason` is `error`."
        ),
    ),
)
