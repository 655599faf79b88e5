"""vLLM's profile; it has no known host, its calls are known by their paths."""

from __future__ import annotations

from typing import Final

from forebay.contracts.identity import RequestDomain
from forebay.workers.providers import openai
from forebay.workers.providers.facts import Endpoint, ProviderProfile, Refusals, Source

_API: Final = Source("docs.vllm.ai/en/v0.32.0/serving/online_serving/")

PROFILE: Final = ProviderProfile(
    name="vllm",
    title="vLLM",
    endpoints=(
        *openai.CALLS,
        Endpoint(
            path=r"/(?:pooling|classify|score|rerank)", domain=RequestDomain.EMBEDDING, source=_API
        ),
        Endpoint(path=r"/(?:tokenize|detokenize)", domain=None, source=_API),
        Endpoint(path=r"/(?:metrics|ping|version|load)", domain=None, source=_API, method="GET"),
    ),
    body=openai.BODY,
    usage=openai.USAGE,
    refusals=Refusals(
        places=("error", ""),
        codes=("type", "code"),
        overload_statuses=frozenset({429, 503}),
        source=_API,
    ),
    streams=openai.STREAMS,
)
