"""The profile of Text Generation Inference; its calls are known by their paths."""

from __future__ import annotations

from typing import Final

from forebay.contracts.identity import RequestDomain
from forebay.workers.providers.facts import (
    Body,
    Endpoint,
    ProviderProfile,
    Refusals,
    Source,
    Streams,
    Usage,
)

_API: Final = Source("github.com/huggingface/text-generation-inference: docs/openapi.json")
_ERRORS: Final = Source("huggingface.co/spaces/nateraw/text-generation-inference: clients/python")

PROFILE: Final = ProviderProfile(
    name="tgi",
    title="Text Generation Inference",
    endpoints=(
        Endpoint(path=r"/(?:generate|generate_stream)", domain=RequestDomain.CHAT, source=_API),
        Endpoint(path=r"/(?:info|metrics)", domain=None, source=_API, method="GET"),
    ),
    body=Body(prompts=("inputs",), bounds=("parameters.max_new_tokens",), source=_API),
    usage=Usage(
        places=("details",),
        inputs=("input_length",),
        outputs=("generated_tokens",),
        source=_API,
    ),
    refusals=Refusals(
        places=("",),
        codes=("error_type",),
        overload=frozenset({"overloaded"}),
        overload_statuses=frozenset({429, 503}),
        request=frozenset({"validation"}),
        source=_ERRORS,
    ),
    streams=Streams(source=_API),
)
