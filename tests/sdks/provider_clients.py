"""How each provider's SDK is made and called; one table, so that a new one is a few lines."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MESSAGES = [{"role": "user", "content": "How much water is enough?"}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The two calls of an SDK: what they return is awaited, iterated or both, as the SDK has it."""

    whole: Callable[[], Any]
    stream: Callable[[], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdk:
    """One SDK, or one client class of it.

    Attributes:
        name: of the class.
        package: that it is imported from.
        provider: the profile by whose facts answers are read, and the mock provider's dialect.
        make: takes the HTTP client, the provider's URL, whether it is for threads, and retries.
        library: of the HTTP client that it takes.
        streams: whether the mock provider streams this API.
        tells_waits: whether a throttle in this dialect tells how long to wait.
        tells_usage_of_streams: whether the mock provider does so for this API.
        raises_within_streams: whether the SDK raises what a stream tells of an error.
    """

    name: str
    package: str
    provider: str
    make: Callable[[Any, str, bool, int], Client]
    library: str = "httpx2"
    streams: bool = True
    tells_waits: bool = True
    tells_usage_of_streams: bool = True
    raises_within_streams: bool = True


def stainless(
    package: str, name: str, base: str, call: Callable[[Any], Client], **options: Any
) -> Callable[[Any, str, bool, int], Client]:
    """Return the maker of a client class of an SDK that Stainless makes."""

    def make(http: Any, url: str, is_sync: bool, retries: int) -> Client:
        cls = getattr(importlib.import_module(package), name if is_sync else f"Async{name}")
        given = {"api_key": "k", **options}
        given = {key: value for key, value in given.items() if value is not None}
        where = "azure_endpoint" if name == "AzureOpenAI" else "base_url"
        return call(cls(http_client=http, max_retries=retries, **{where: f"{url}{base}"}, **given))

    return make


def chat(client: Any) -> Client:
    """Call chat completions as OpenAI names them."""
    create = client.chat.completions.create
    more = {"stream_options": {"include_usage": True}}
    return Client(
        whole=lambda: create(model="m", messages=MESSAGES),
        stream=lambda: create(model="m", messages=MESSAGES, stream=True, extra_body=more),
    )


def messages(client: Any) -> Client:
    """Call messages as Anthropic names them."""
    create = client.messages.create
    return Client(
        whole=lambda: create(model="m", max_tokens=50, messages=MESSAGES),
        stream=lambda: create(model="m", max_tokens=50, messages=MESSAGES, stream=True),
    )


def google_genai(http: Any, url: str, is_sync: bool, _retries: int) -> Client:
    """Make google-genai's client, which is one for both faces."""
    genai = importlib.import_module("google.genai")
    given = {"httpx_client" if is_sync else "httpx_async_client": http}
    once = genai.types.HttpRetryOptions(attempts=1)
    options = genai.types.HttpOptions(base_url=url, retry_options=once, **given)
    client = genai.Client(api_key="k", http_options=options)
    models = client.models if is_sync else client.aio.models
    asked = {"model": "m", "contents": "How much water is enough?"}

    def stream(kept: Any = client) -> Any:  # who drops the client closes its HTTP client
        return models.generate_content_stream(**asked)

    return Client(whole=lambda: models.generate_content(**asked), stream=stream)


def mistral(http: Any, url: str, is_sync: bool, _retries: int) -> Client:
    """Make Mistral's client, which is one for both faces and has no retries by default."""
    sdk = importlib.import_module("mistralai.client")
    client = sdk.Mistral(
        api_key="k", server_url=url, **{"client" if is_sync else "async_client": http}
    )
    asked = {"model": "m", "messages": MESSAGES}
    if is_sync:
        return Client(
            whole=lambda: client.chat.complete(**asked), stream=lambda: client.chat.stream(**asked)
        )
    return Client(
        whole=lambda: client.chat.complete_async(**asked),
        stream=lambda: client.chat.stream_async(**asked),
    )


def cohere(http: Any, url: str, is_sync: bool, retries: int) -> Client:
    """Make Cohere's client of its API's second version."""
    sdk = importlib.import_module("cohere")
    cls = sdk.ClientV2 if is_sync else sdk.AsyncClientV2
    client = cls(api_key="k", base_url=url, httpx_client=http, max_retries=retries)
    asked = {"model": "m", "messages": MESSAGES}
    return Client(whole=lambda: client.chat(**asked), stream=lambda: client.chat_stream(**asked))


def _openai(provider: str, **facts: Any) -> Sdk:
    make = stainless("openai", "OpenAI", "/v1", chat)
    return Sdk(name=f"OpenAI-{provider}", package="openai", provider=provider, make=make, **facts)


def _claude(name: str, provider: str, base: str, *, options: dict[str, Any], **facts: Any) -> Sdk:
    package = "anthropic.lib.google_cloud" if name == "AnthropicGoogleCloud" else "anthropic"
    make = stainless(package, name, base, messages, **options)
    return Sdk(name=name, package="anthropic", provider=provider, make=make, **facts)


_AWS = {"aws_region": "us-east-1"}
_VERTEX = {"region": "r", "project_id": "p", "access_token": "t", "api_key": None}
_SILENT = {"tells_waits": False}

CLIENTS = [
    _openai("openai"),
    _openai("openrouter"),
    _openai("deepseek", raises_within_streams=False),
    _openai("vllm", raises_within_streams=False),
    Sdk(
        name="AzureOpenAI",
        package="openai",
        provider="azure",
        make=stainless("openai", "AzureOpenAI", "", chat, api_version="1"),
    ),
    Sdk(
        name="BedrockOpenAI",
        package="openai",
        provider="bedrock",
        make=stainless("openai", "BedrockOpenAI", "/openai/v1", chat, **_AWS),
        **_SILENT,
    ),
    _claude("Anthropic", "anthropic", "", options={}),
    _claude("AnthropicAWS", "anthropic", "", options={"workspace_id": "w", **_AWS}),
    _claude(
        "AnthropicGoogleCloud", "anthropic", "", options={"skip_auth": True, "api_key": None}
    ),
    _claude("AnthropicFoundry", "azure", "/anthropic", options={}),
    _claude("AnthropicBedrockMantle", "bedrock", "/anthropic", options={}),
    _claude("AnthropicBedrock", "bedrock", "", options=_AWS, streams=False, **_SILENT),
    _claude("AnthropicVertex", "vertex", "/v1", options=_VERTEX),
    Sdk(name="Groq", package="groq", provider="groq", library="httpx",
        make=stainless("groq", "Groq", "", chat)),
    Sdk(name="Together", package="together", provider="together", library="httpx",
        make=stainless("together", "Together", "", chat), **_SILENT),
    Sdk(name="Mistral", package="mistralai", provider="mistral", make=mistral,
        tells_usage_of_streams=False),
    Sdk(name="GoogleGenAI", package="google.genai", provider="gemini", make=google_genai),
    Sdk(name="Cohere", package="cohere", provider="cohere", library="httpx", make=cohere,
        raises_within_streams=False, **_SILENT),
]  # fmt: skip
