"""The mock provider in other providers' dialects, read back by their profiles."""

from __future__ import annotations

from typing import Any, get_args

import httpx2
import pytest

from forebay.contracts.outcomes import RequestOutcomeKind
from forebay.mock_provider.app import create_app
from forebay.mock_provider.dialects import WORDINGS
from forebay.mock_provider.stream_faults import OVERLOADS
from forebay.mock_provider.truth import DialectName, ProviderTruth
from forebay.workers.providers.classification import DefaultClassifier
from forebay.workers.providers.recorded import RecordedAnswer, replayed
from forebay.workers.providers.registry import BUILT_IN, profile_named

MESSAGES = [{"role": "user", "content": "How much water is enough?"}]
CHAT = {"model": "m", "messages": MESSAGES}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "azure": ("/openai/deployments/d/chat/completions", {"model": "m", "messages": MESSAGES}),
    "bedrock": ("/model/a.b-v1:0/converse", {"messages": [{"content": [{"text": "hello"}]}]}),
    "gemini": ("/v1beta/models/g:generateContent", {"contents": [{"parts": [{"text": "hello"}]}]}),
    "cohere": ("/v2/chat", CHAT),
    "ollama": ("/api/chat", CHAT),
    "tgi": ("/generate", {"inputs": "hello"}),
}
HOSTS = {
    "azure": "x.openai.azure.com",
    "bedrock": "bedrock-runtime.eu-west-1.amazonaws.com",
    "vertex": "aiplatform.googleapis.com",
    "vllm": "gpu:8000",
    "tgi": "gpu:8080",
    "ollama": "localhost:11434",
}


def host_of(name: str) -> str:
    profile = next(profile for profile in BUILT_IN if profile.name == name)
    return HOSTS.get(name) or profile.hosts[0]


async def ask(name: str, truth: ProviderTruth) -> RecordedAnswer:
    transport = httpx2.ASGITransport(app=create_app(truth))
    path, body = CALLS.get(name, ("/v1/chat/completions", CHAT))
    async with httpx2.AsyncClient(transport=transport, base_url="http://mock") as client:
        answer = await client.post(path, json=body)
    headers = dict(answer.headers)
    return RecordedAnswer(
        host=host_of(name), status=answer.status_code, headers=headers, body=answer.json()
    )


def test_each_profile_has_a_dialect() -> None:
    own = {"anthropic"}  # its path words its refusals itself
    assert (
        set(WORDINGS) == set(get_args(DialectName)) == {profile.name for profile in BUILT_IN} - own
    )


@pytest.mark.parametrize("name", WORDINGS)
async def test_a_refusal_is_read_as_overload_with_its_wait(name: str) -> None:
    answer = await ask(name, ProviderTruth(concurrency=0, retry_after_seconds=3, dialect=name))
    found = replayed(answer)
    assert found.outcome.kind is RequestOutcomeKind.RATE_LIMITED
    assert found.profile == (
        name if profile_named(name) and HOSTS.get(name, "")[:3] != "gpu" else ""
    )
    silent = {"bedrock", "cohere", "tgi", "ollama", "together"}
    assert found.outcome.retry_after_seconds == (None if name in silent else 3.0)


@pytest.mark.parametrize("name", CALLS)
async def test_a_good_answer_tells_its_usage_in_its_own_words(name: str) -> None:
    outcome = replayed(await ask(name, ProviderTruth())).outcome
    assert outcome.kind is RequestOutcomeKind.SUCCESS
    assert outcome.usage is not None or name == "tgi"


async def test_a_stream_of_gemini_is_read_to_its_usage() -> None:
    transport = httpx2.ASGITransport(app=create_app(ProviderTruth()))
    body = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    path = "/v1beta/models/g:streamGenerateContent?alt=sse"
    async with httpx2.AsyncClient(transport=transport, base_url="http://mock") as client:
        answer = await client.post(path, json=body)
    recorded = RecordedAnswer(
        host=host_of("gemini"),
        status=200,
        headers={"content-type": answer.headers["content-type"]},
        body=[answer.text],
    )
    usage = replayed(recorded).outcome.usage
    assert usage is not None
    assert usage.output_tokens > 0


STREAMED = {
    "anthropic": ("/v1/messages", {**CHAT, "max_tokens": 9}),
    "gemini": ("/v1beta/models/g:streamGenerateContent?alt=sse", CALLS["gemini"][1]),
    "cohere": CALLS["cohere"],
}


async def ask_for_a_stream(name: str, truth: ProviderTruth) -> RecordedAnswer:
    transport = httpx2.ASGITransport(app=create_app(truth))
    path, body = STREAMED.get(name, ("/v1/chat/completions", CHAT))
    async with httpx2.AsyncClient(transport=transport, base_url="http://mock") as client:
        answer = await client.post(path, json={**body, "stream": True})
    return RecordedAnswer(
        host="api.anthropic.com" if name == "anthropic" else host_of(name),
        status=answer.status_code,
        headers={"content-type": answer.headers["content-type"]},
        body=[answer.text],
    )


@pytest.mark.parametrize("name", OVERLOADS)
async def test_an_overload_within_a_stream_is_read_in_each_dialect(name: str) -> None:
    told = {} if name == "anthropic" else {"dialect": name}
    answer = await ask_for_a_stream(name, ProviderTruth(stream_overload_rate=1, **told))
    assert replayed(answer).outcome.kind is RequestOutcomeKind.RATE_LIMITED


async def test_a_stream_of_cohere_tells_its_usage_at_its_end() -> None:
    outcome = replayed(await ask_for_a_stream("cohere", ProviderTruth(dialect="cohere"))).outcome
    assert outcome.kind is RequestOutcomeKind.SUCCESS
    assert outcome.usage is not None
    assert outcome.usage.output_tokens > 0


@pytest.mark.parametrize("name", WORDINGS)
async def test_a_request_larger_than_the_limit_cuts_nothing(name: str) -> None:
    answer = await ask(name, ProviderTruth(tokens_per_minute=1, dialect=name))
    outcome = replayed(answer).outcome
    assert outcome.kind is RequestOutcomeKind.PROVIDER_FAILURE
    assert not DefaultClassifier().is_retryable(outcome)
