"""The mock provider as its users meet it: a real server, real sockets, a real SDK."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anthropic
import httpx2
import openai
import pydantic
import pytest

from forebay.contracts.errors import ConfigurationError
from forebay.mock_provider.log import RequestRecord
from forebay.mock_provider.server import MockProviderServer
from forebay.mock_provider.truth import ProviderTruth
from tests.support import wait_until

LONG_SECONDS = 3600.0
COMMAND = (
    "from forebay.commands.mock_provider import mock_provider_command as command; "
    "command(prog_name='forebay mock-provider')"
)


def messages(content="hello there"):
    return [{"role": "user", "content": content}]


@pytest.fixture
def serve():
    """Start a provider with this truth; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(*, seed=0, api_key=None, **fields):
            server = MockProviderServer(ProviderTruth(**fields), seed=seed, api_key=api_key)
            return stack.enter_context(server)

        yield start


def sdk(provider, **fields):
    return openai.AsyncOpenAI(
        base_url=provider.base_url, api_key="any", **{"max_retries": 0, **fields}
    )


def claude(provider):
    return anthropic.AsyncAnthropic(base_url=provider.root_url, api_key="any", max_retries=0)


def statuses(provider):
    records = [record for _, record in provider.state.log.since()]
    return [record.status for record in records if isinstance(record, RequestRecord)]


async def test_the_sdk_gets_an_answer_with_usage(serve):
    async with sdk(serve()) as client:
        answer = await client.chat.completions.create(model="any", messages=messages())
        listed = [model.id async for model in client.models.list()]
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == (
        answer.usage.prompt_tokens + answer.usage.completion_tokens
    )
    assert "mock-chat" in listed


async def test_the_sdk_streams_the_same_answer(serve):
    async with sdk(serve(stream_chunk_count=4, stream_chunk_delay_seconds=0.001)) as client:
        whole = await client.chat.completions.create(model="any", messages=messages())
        stream = await client.chat.completions.create(
            model="any", messages=messages(), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices]
    assert "".join(filter(None, pieces)) == whole.choices[0].message.content
    assert len([piece for piece in pieces if piece]) == 4
    assert chunks[-1].usage == whole.usage


async def test_anthropics_sdk_gets_the_same_answer_whole_and_streamed(serve):
    provider = serve(tokens_per_minute=6000, stream_chunk_count=4)
    async with claude(provider) as client:
        fields = {"model": "any", "max_tokens": 100, "messages": messages(), "system": "be brief"}
        raw = await client.messages.with_raw_response.create(**fields)
        whole = await raw.parse()
        async with client.messages.stream(**fields) as stream:
            pieces = [piece async for piece in stream.text_stream]
            streamed = await stream.get_final_message()
    assert "".join(pieces) == whole.content[0].text
    assert len(pieces) == 4
    assert streamed.usage == whole.usage
    assert whole.usage.input_tokens > 0
    assert raw.headers["anthropic-ratelimit-tokens-limit"] == "6000"
    reset = datetime.fromisoformat(raw.headers["anthropic-ratelimit-tokens-reset"])
    assert reset > datetime.now(UTC) - timedelta(seconds=5)


@pytest.mark.parametrize(
    ("truth", "raised"),
    [
        ({"concurrency": 0}, anthropic.RateLimitError),
        ({"error_rate": 1.0}, anthropic.InternalServerError),
    ],
)
async def test_anthropics_sdk_knows_a_refusal_and_a_failure(serve, truth, raised):
    async with claude(serve(**truth)) as client:
        with pytest.raises(raised) as error:
            await client.messages.create(model="any", max_tokens=9, messages=messages())
        with pytest.raises(anthropic.BadRequestError):
            await client.messages.create(model="any", max_tokens=0, messages=messages())
    assert error.value.type in {"rate_limit_error", "api_error"}


async def test_the_sdk_gets_embeddings(serve):
    async with sdk(serve(embedding_dimensions=8)) as client:
        coded = await client.embeddings.create(model="any", input=["a", "b"])
        plain = await client.embeddings.create(
            model="any", input=["a", "b"], encoding_format="float"
        )
    for one, other in zip(coded.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert len(one.embedding) == 8


class Verdict(pydantic.BaseModel):
    class Note(pydantic.BaseModel):
        topic: str
        weight: float = pydantic.Field(ge=0, le=1)

    score: int = pydantic.Field(ge=1, le=5)
    reason: str | None
    notes: list[Note]


async def test_the_sdk_parses_a_structured_answer_into_its_model(serve):
    async with sdk(serve()) as client:
        answer = await client.chat.completions.parse(
            model="any", messages=messages(), response_format=Verdict
        )
    assert isinstance(answer.choices[0].message.parsed, Verdict)


async def test_the_sdk_sees_a_refusal_above_the_concurrency(serve):
    provider = serve(concurrency=1, latency_median_seconds=LONG_SECONDS, retry_after_seconds=0.25)
    async with sdk(provider) as client:
        held = asyncio.create_task(client.chat.completions.create(model="any", messages=messages()))
        await wait_until(lambda: provider.state.counters.in_flight == 1)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="any", messages=messages())
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
        assert caught.value.code == "rate_limit_exceeded"
        assert caught.value.response.headers["retry-after-ms"] == "250"
        await wait_until(lambda: provider.state.counters.in_flight == 0)
    assert statuses(provider) == [429, 499]


async def test_asking_the_same_again_may_fail_or_succeed(serve):
    provider = serve(error_rate=0.5)
    async with sdk(provider) as client:
        for _ in range(20):
            with contextlib.suppress(openai.InternalServerError):
                await client.chat.completions.create(model="any", messages=messages())
    assert set(statuses(provider)) == {200, 500}


async def test_the_sdk_comes_back_after_the_time_it_was_told(serve):
    provider = serve(concurrency=0, retry_after_seconds=0.001)
    async with sdk(provider, max_retries=3) as client:
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="any", messages=messages())
    assert statuses(provider) == [429] * 4


async def test_the_sdk_does_not_repeat_what_never_fits(serve):
    provider = serve(tokens_per_minute=1)
    async with sdk(provider, max_retries=3) as client:
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="any", messages=messages())
    assert statuses(provider) == [429]


async def test_the_sdk_reads_the_budget_headers(serve):
    provider = serve(requests_per_minute=2, tokens_per_minute=10_000)
    async with sdk(provider) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="any", messages=messages()
        )
        await client.chat.completions.create(model="any", messages=messages())
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="any", messages=messages())
    assert raw.headers["x-ratelimit-remaining-requests"] == "1"
    assert raw.headers["x-ratelimit-limit-tokens"] == "10000"


async def test_never_more_are_served_at_once_than_the_truth_allows(serve):
    provider = serve(concurrency=3, latency_median_seconds=LONG_SECONDS)
    counters = provider.state.counters
    async with sdk(provider) as client:
        asked = [
            asyncio.create_task(
                client.chat.completions.create(model="any", messages=messages(f"question {n}"))
            )
            for n in range(12)
        ]
        await wait_until(lambda: (counters.in_flight, counters.refused) == (3, 9))
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await wait_until(lambda: counters.in_flight == 0)
    assert counters.max_in_flight == 3
    assert sorted(statuses(provider)) == [429] * 9 + [499] * 3


@pytest.mark.parametrize("stream", [False, True])
async def test_a_closed_connection_frees_the_slot(serve, stream):
    latency, delay = (0, LONG_SECONDS) if stream else (LONG_SECONDS, 0)
    provider = serve(
        concurrency=1, latency_median_seconds=latency, stream_chunk_delay_seconds=delay
    )
    host, port = provider.root_url.removeprefix("http://").split(":")
    _reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps({"model": "m", "messages": messages(), "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await wait_until(lambda: provider.state.counters.in_flight == 1)
    writer.close()
    await writer.wait_closed()
    await wait_until(lambda: provider.state.counters.in_flight == 0)
    assert statuses(provider) == [499]


async def test_the_truth_changes_under_a_running_client(serve):
    provider = serve()
    async with sdk(provider) as client:
        await client.chat.completions.create(model="any", messages=messages())
        assert provider.change_truth(concurrency=0).concurrency == 0
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="any", messages=messages())
    with pytest.raises(ConfigurationError, match="concurency"):
        provider.change_truth(concurency=1)


async def test_a_server_with_requests_in_service_still_ends(serve):
    provider = serve(latency_median_seconds=LONG_SECONDS)
    async with sdk(provider) as client:
        held = asyncio.create_task(client.chat.completions.create(model="any", messages=messages()))
        await wait_until(lambda: provider.state.counters.in_flight == 1)
        await asyncio.to_thread(provider.close)
        with pytest.raises(openai.APIConnectionError):
            await held
    assert provider.state.counters.in_flight == 0
    provider.close()
    with pytest.raises(ConfigurationError, match="is not running"):
        provider.change_truth(concurrency=1)


async def test_the_wrong_key_is_an_authentication_error(serve):
    async with sdk(serve(api_key="secret")) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="any", messages=messages())


def test_a_port_in_use_is_named_with_a_remedy():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port}.*choose another"):
            MockProviderServer(port=port)


@pytest.fixture
def command(tmp_path):
    """Start the command in a process of its own; gives it and the URL it printed."""
    processes = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
        processes.append(process)
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), process.communicate()[1]
        return process, line.removeprefix("listening on ").strip()

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_logs_and_ends_in_order(command, tmp_path, ending):
    path = tmp_path / "log.jsonl"
    process, url = command("--concurrency", "4", "--seed", "7", "--log", str(path))
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        client.chat.completions.create(model="any", messages=messages(), user="ann")
    truth = httpx2.get(url.removesuffix("/v1") + "/truth").json()
    assert truth["truth"]["concurrency"] == 4
    assert truth["counters"]["ok"] == 1
    process.send_signal(ending)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == ""
    assert err == (
        "seen: in_flight 0, max_in_flight 1, ok 1, refused 0, errors 0, abandoned 0, invalid 0\n"
    )
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["kind"] for record in records] == ["truth", "request"]
    assert records[1]["user"] == "ann"


def test_the_command_ends_in_order_with_requests_in_service(command):
    process, url = command("--latency", str(LONG_SECONDS))
    with socket.create_connection(url.split("/")[2].split(":")) as client:
        body = json.dumps({"model": "m", "messages": messages()})
        client.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}".encode()
        )
        truth_url = url.removesuffix("/v1") + "/truth"
        asyncio.run(
            wait_until(lambda: httpx2.get(truth_url).json()["counters"]["in_flight"] == 1, 20)
        )
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert client.recv(100) == b""
    assert process.returncode == 0
    assert "Traceback" not in err
    assert "abandoned 1" in err
