"""Azure OpenAI's profile: a resource is a host with deployments of its own."""

from __future__ import annotations

from typing import Final

from forebay.contracts.identity import RequestDomain
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

_SDK: Final = Source("PyPI openai 3.57.0: openai/lib/azure.py")
_FOUNDRY: Final = Source("PyPI anthropic 2.14.0: anthropic/lib/foundry.py")
_QUOTA: Final = Source("www.developersdigest.tech/errors/api/azure-openai")
_TEXTS: Final = Source("learn.microsoft.com/en-us/answers/questions/2140040")

_DEPLOYMENT: Final = r"/deployments/(?P<model>[^/]+)"

PROFILE: Final = ProviderProfile(
    name="azure",
    title="Azure OpenAI",
    hosts=(
        "*.openai.azure.com",
        "*.openai.azure.us",
        "*.services.ai.azure.com",
        "*.cognitiveservices.azure.com",
        "*.models.ai.azure.com",
        "models.inference.ai.azure.com",
    ),
    named_by_host=True,
    endpoints=(
        Endpoint(path=_DEPLOYMENT + r"/embeddings", domain=RequestDomain.EMBEDDING, source=_SDK),
        Endpoint(path=_DEPLOYMENT + r"/images/[^/]+", domain=RequestDomain.IMAGE, source=_SDK),
        Endpoint(
            path=_DEPLOYMENT + r"/(?:chat/|extensions/chat/)?completions",
            domain=RequestDomain.CHAT,
            source=_SDK,
        ),
        Endpoint(path=_DEPLOYMENT + r"/audio/[^/]+", domain=RequestDomain.CHAT, source=_SDK),
        Endpoint(path=r"/anthropic/v1/messages", domain=RequestDomain.CHAT, source=_FOUNDRY),
        *openai.CALLS,
        *anthropic.BOOKKEEPING,
        *openai.BOOKKEEPING,
    ),
    body=openai.BODY,
    usage=openai.USAGE,
    refusals=Refusals(
        places=("error", "response.error"),
        codes=("code", "type", "innererror.code"),
        overload=frozenset({"429", "too_many_requests", "ratelimitreached", "nocapacity"}),
        overload_statuses=frozenset({429, 503}),
        request=frozenset({"content_filter", "responsibleaipolicyviolation", "deploymentnotfound"}),
        source=_QUOTA,
    ),
    waits=Waits(
        headers=(
            ("retry-after-ms", Form.MILLISECONDS),
            ("x-ms-retry-after-ms", Form.MILLISECONDS),
            ("retry-after", Form.SECONDS),
        ),
        budget_texts=(
            (r"exceeded (?:the )?token rate limit", Budget(Unit.TOKENS, Period.MINUTE)),
            (r"exceeded (?:the )?call rate limit", Budget(Unit.REQUESTS, Period.MINUTE)),
        ),
        resets=(
            (Unit.REQUESTS, None, "x-ratelimit-reset-requests", Form.DURATION),
            (Unit.TOKENS, None, "x-ratelimit-reset-tokens", Form.DURATION),
        ),
        source=_TEXTS,
    ),
    streams=openai.STREAMS,
    notes=(
        "The body of a 429 says `Please retry after 37 seconds` and which rate limit it was.",
        "The quota counts the bound of the output (`max_tokens`) when the request comes.",
    ),
)
