"""The profile of Text Generation Inference; its calls are known by their paths."""

from __future__ import annotations

from typing import Final

from forebay.contracts.identity import RequestDomain
from forebay.workers.providers.facts import (
    Body,
    Endpoint,
    Form,
    ProviderProfile,
    Refusals,
    Source,
    Streams,
    Usage,
    Waits,
)

_API: Final = Source("github.com/huggingface/text-generation-inference: docs/openapi.json")
_LOADING: Final = Source(
    "huggingface.co/mistralai/Mistral-7B-Instruct-v0.2/discussions/95, github.com/huggingface/"
    "api-inference-community/issues/34"
)
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
    waits=Waits(fields=(("estimated_time", Form.SECONDS),), source=_LOADING),
    streams=Streams(source=_API),
    notes=("Hugging Face's own servers tell how long a model takes to load: `estimated_time`.",),
)
