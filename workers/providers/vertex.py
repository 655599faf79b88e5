"""Vertex AI's profile: Gemini and Claude by Google Cloud, a region is a host."""

from __future__ import annotations

from typing import Final

from forebay.contracts.identity import RequestDomain
from forebay.workers.providers import anthropic, gemini, openai
from forebay.workers.providers.facts import Endpoint, ProviderProfile, Source

_SDK: Final = Source("PyPI anthropic 2.14.0: anthropic/lib/vertex/_client.py")

PROFILE: Final = ProviderProfile(
    name="vertex",
    title="Vertex AI",
    hosts=(
        "aiplatform.googleapis.com",
        "*-aiplatform.googleapis.com",
        "aiplatform.*.rep.googleapis.com",
    ),
    named_by_host=True,
    endpoints=(
        Endpoint(path=r"/models/count-tokens:rawPredict", domain=None, source=_SDK),
        Endpoint(
            path=r"/(?:models|endpoints)/(?P<model>[^/:]+):(?:rawPredict|streamRawPredict)",
            domain=RequestDomain.CHAT,
            source=_SDK,
        ),
        Endpoint(
            path=r"/models/(?P<model>[^/:]*embedding[^/:]*):predict",
            domain=RequestDomain.EMBEDDING,
            source=gemini.PROFILE.endpoints[0].source,
        ),
        *gemini.CALLS,
        *anthropic.BOOKKEEPING,
        *openai.CALLS,
        Endpoint(path=r".*", domain=None, source=gemini.PROFILE.endpoints[0].source, method="GET"),
    ),
    body=gemini.BODY,
    usage=gemini.USAGE,
    refusals=gemini.REFUSALS,
    waits=gemini.WAITS,
    streams=gemini.STREAMS,
    notes=("Claude's bodies, streams and usage are Anthropic's, without the `model`.",),
)
