"""DeepSeek's profile."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from forebay.workers.providers import anthropic, openai
from forebay.workers.providers.facts import Endpoint, Form, ProviderProfile, Refusals, Source, Waits

_CHAT: Final = Source(
    "docs.rs/crate/ds-api 0.10.7: src/raw/response/non_streaming/finish_reason.rs"
)
_NO_RESOURCE: Final = "insufficient_system_resource"
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
        overload=frozenset({_NO_RESOURCE}),
        overload_statuses=frozenset({429, 503}),
        account=frozenset({"insufficient_balance", "402"}),
        source=_ERRORS,
    ),
    waits=Waits(headers=(("retry-after", Form.SECONDS),), source=_ERRORS),
    streams=replace(openai.STREAMS, failed_choice=(_NO_RESOURCE,), source=_CHAT),
    notes=(
        "402 is an empty account; 429 and 503 carry no stated wait.",
        "A call that waits is sent empty lines, and a stream comments (`: keep-alive`).",
    ),
)
