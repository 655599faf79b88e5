"""DeepSeek's profile."""

from __future__ import annotations

from typing import Final

from forebay.workers.providers import anthropic, openai
from forebay.workers.providers.facts import Endpoint, Form, ProviderProfile, Refusals, Source, Waits

_ERRORS: Final = Source("api-docs.deepseek.com/quick_start/error_codes")

PROFILE: Final = ProviderProfile(
    name="deepseek",
    title="DeepSeek",
    hosts=("api.deepseek.com",),
    endpoints=(
        *openai.CALLS,
        *anthropic.CALLS,
        *anthropic.BOOKKEEPING,
        Endpoint(path=r"/user/balance", domain=None, source=_ERRORS, method="GET"),
        *openai.BOOKKEEPING,
    ),
    body=openai.BODY,
    usage=openai.USAGE,
    refusals=Refusals(
        places=("error",),
        codes=("code", "type"),
        overload_statuses=frozenset({429, 503}),
        account=frozenset({"insufficient_balance", "402"}),
        source=_ERRORS,
    ),
    waits=Waits(headers=(("retry-after", Form.SECONDS),), source=_ERRORS),
    streams=openai.STREAMS,
    notes=("402 is an empty account; 429 and 503 carry no stated wait.",),
)
