"""No client class goes past its lease: a cap of 2 is counted at the provider.

Rules: design 03, *Transport*.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic.lib.google_cloud import AsyncAnthropicGoogleCloud

import forebay
from forebay.contracts.identity import RequestResourceKey
from forebay.coordinator.server_connection import ServerConnection
from forebay.transports import HttpResolver, RequestView
from tests.contract.chat_domain import when
from tests.support import wait_until
from tests.support_raw_provider import Asked, RawProvider, Reply, whole

CALLS = 6
CAP = 2
Call = Callable[[], Awaitable[Any]]
MESSAGES = [{"role": "user", "content": "hello"}]


def _openai(client: Any) -> dict[str, Call]:
    return {
        "chat": lambda: client.chat.completions.create(model="m", messages=MESSAGES),
        "responses": lambda: client.responses.create(model="m", input="hello"),
        "embeddings": lambda: client.embeddings.create(model="m", input="hello"),
        "images": lambda: client.images.generate(model="m", prompt="hello"),
        "speech": lambda: client.audio.speech.create(model="m", input="hello", voice="v"),
        "transcription": lambda: client.audio.transcriptions.create(model="m", file=b"sound"),
    }


def _anthropic(client: Any) -> dict[str, Call]:
    return {
        "messages": lambda: client.messages.create(model="m", max_tokens=9, messages=MESSAGES),
    }


def _paths(http: httpx2.AsyncClient, host: str) -> dict[str, Call]:
    paths = {
        "gemini": "/v1beta/models/g:generateContent",
        "gemini-stream": "/v1beta/models/g:streamGenerateContent?alt=sse",
        "vertex": "/v1/projects/p/locations/l/publishers/google/models/g:generateContent",
        "gemini-interaction": "/v1/interactions",
        "bedrock": "/model/a.b-v1:0/converse",
        "cohere": "/v2/chat",
        "cohere-embed": "/v2/embed",
        "mistral": "/v1/fim/completions",
        "tgi": "/generate",
        "ollama": "/api/chat",
        "vllm": "/pooling",
    }
    return {
        name: lambda path=path: http.post(f"{host}{path}", json={"messages": MESSAGES})
        for name, path in paths.items()
    }


def calls(http: httpx2.AsyncClient, host: str) -> dict[str, Call]:
    """Return one call of each client class there is, all to the host of the test."""
    options: dict[str, Any] = {"http_client": http, "max_retries": 0}
    keyed = {**options, "api_key": "k"}
    azure = openai.AsyncAzureOpenAI(azure_endpoint=host, api_version="1", **keyed)
    bedrock = anthropic.AsyncAnthropicBedrock(base_url=host, aws_region="r", **keyed)
    vertex = anthropic.AsyncAnthropicVertex(
        base_url=f"{host}/v1", region="r", project_id="p", access_token="t", **options
    )
    foundry = anthropic.AsyncAnthropicFoundry(base_url=f"{host}/anthropic", **keyed)
    aws = anthropic.AsyncAnthropicAWS(base_url=host, aws_region="r", workspace_id="w", **keyed)
    mantle = anthropic.AsyncAnthropicBedrockMantle(base_url=f"{host}/anthropic", **keyed)
    cloud = AsyncAnthropicGoogleCloud(base_url=host, skip_auth=True, **options)
    aws_openai = openai.AsyncBedrockOpenAI(
        base_url=f"{host}/openai/v1", aws_region="us-east-1", **keyed
    )
    clients = {
        "OpenAI": _openai(openai.AsyncOpenAI(base_url=f"{host}/v1", **keyed)),
        "AzureOpenAI": _openai(azure),
        "BedrockOpenAI": _openai(aws_openai),
        "Anthropic": _anthropic(anthropic.AsyncAnthropic(base_url=host, **keyed)),
        "AnthropicBedrock": _anthropic(bedrock),
        "AnthropicVertex": _anthropic(vertex),
        "AnthropicFoundry": _anthropic(foundry),
        "AnthropicAWS": _anthropic(aws),
        "AnthropicBedrockMantle": _anthropic(mantle),
        "AnthropicGoogleCloud": _anthropic(cloud),
        "httpx2": _paths(http, host),
    }
    return {f"{name}.{call}": do for name, found in clients.items() for call, do in found.items()}


NAMES = list(calls(httpx2.AsyncClient(), "http://127.0.0.1:1"))


def test_each_client_class_of_the_sdks_is_tried() -> None:
    tried = {f"Async{name.partition('.')[0]}" for name in NAMES}
    for sdk in (openai, anthropic):
        classes = {
            name for name in vars(sdk) if re.fullmatch(r"Async\w*(OpenAI|Anthropic\w*)", name)
        }
        assert classes
        assert classes <= tried, f"{sdk.__name__} has clients that no test counts"


@pytest.mark.parametrize("name", NAMES)
async def test_a_cap_of_two_holds_at_the_provider(
    name: str, redis_url: str, connection: ServerConnection, provider: RawProvider
) -> None:
    in_flight = most = 0
    resources: list[RequestResourceKey | None] = []
    named = HttpResolver()

    async def stall(_asked: Asked, reply: Reply) -> None:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await reply.goes_on.wait()
        in_flight -= 1
        await reply.send(
            whole({"id": "x", "data": [{"embedding": [1.0]}], "choices": [], "content": []})
        )

    def resolve(view: RequestView) -> RequestResourceKey | None:
        resources.append(named(view))
        return resources[-1]

    provider.behaviour = stall
    async with forebay.http_client(redis_url, max_parallel_requests=CAP, resolve=resolve) as http:
        call = calls(http, f"http://{provider.host}")[name]
        running = [asyncio.ensure_future(call()) for _ in range(CALLS)]
        await wait_until(lambda: resources)
        assert resources[0] is not None
        await when(connection, lambda seen: seen.waiters == CALLS - CAP, resources[0])
        await wait_until(lambda: in_flight >= CAP)  # a lease is granted before its call arrives
        provider.go_on()
        await asyncio.gather(*running)
    assert most == CAP
    assert len(provider.asked) == CALLS
    assert len(set(resources)) == 1


async def test_an_unknown_path_of_a_known_host_is_counted_as_well(
    redis_url: str, connection: ServerConnection, provider: RawProvider
) -> None:
    in_flight = most = 0

    async def stall(_asked: Asked, reply: Reply) -> None:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await reply.goes_on.wait()
        in_flight -= 1
        await reply.send(whole({}))

    provider.behaviour = stall
    host = provider.host
    key = forebay.ProviderModelKey(provider_name="groq", model_id="m")
    resource = forebay.RequestResourceKey(provider_model=key)
    resolve = HttpResolver({host: "groq"})
    async with forebay.http_client(redis_url, max_parallel_requests=CAP, resolve=resolve) as http:
        url = f"http://{host}/v9/dreams"
        running = [asyncio.ensure_future(http.post(url, json={"model": "m"})) for _ in range(CALLS)]
        await when(connection, lambda seen: seen.waiters == CALLS - CAP, resource)
        await wait_until(lambda: in_flight >= CAP)
        provider.go_on()
        await asyncio.gather(*running)
    assert (most, len(provider.asked)) == (CAP, CALLS)


async def test_calls_to_an_unknown_host_pass_with_one_warning(
    redis_url: str, provider: RawProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr(
        "forebay.transports.identity.log.warning", lambda event, **_: warned.append(event)
    )
    async with forebay.http_client(redis_url, max_parallel_requests=1) as http:
        for path in ("dreams", "nightmares"):
            await http.post(f"http://{provider.host}/v9/{path}", json={})
    assert (warned, len(provider.asked)) == (["host_not_known"], 2)
