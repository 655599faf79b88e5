"""Ollama's profile; its calls are known by their paths, streams are lines of JSON."""

from __future__ import annotations

from typing import Final

from forebay.contracts.identity import RequestDomain
from forebay.workers.providers import openai
from forebay.workers.providers.facts import (
    Body,
    Endpoint,
    ProviderProfile,
    Refusals,
    Source,
    Streams,
    Usage,
)

_API: Final = Source("github.com/ollama/ollama: docs/api.md")

PROFILE: Final = ProviderProfile(
    name="ollama",
    title="Ollama",
    hosts=("ollama.com", "localhost:11434", "127.0.0.1:11434"),
    named_by_host=True,
    endpoints=(
        Endpoint(path=r"/api/(?:chat|generate)", domain=RequestDomain.CHAT, source=_API),
        Endpoint(path=r"/api/(?:embed|embeddings)", domain=RequestDomain.EMBEDDING, source=_API),
        Endpoint(path=r"/api/tags", domain=RequestDomain.HEALTHCHECK, source=_API, method="GET"),
        Endpoint(path=r"/api/(?!chat|generate|embed).+", domain=None, source=_API, method=""),
        *openai.CALLS,
    ),
    body=Body(
        prompts=("messages", "prompt", "system", "suffix", "input", "tools", "format"),
        bounds=("options.num_predict",),
        source=_API,
    ),
    usage=Usage(
        places=("",),
        inputs=("prompt_eval_count",),
        outputs=("eval_count",),
        source=_API,
    ),
    refusals=Refusals(
        places=("",),
        codes=("code",),
        overload_statuses=frozenset({503}),
        source=Source("github.com/ollama/ollama/pull/4144"),
    ),
    streams=Streams(kinds=("application/x-ndjson",), source=_API),
    notes=("A full queue (`OLLAMA_MAX_QUEUE`) is a 503 without a wait.",),
)
