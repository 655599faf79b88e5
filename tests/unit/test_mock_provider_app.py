from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import struct

import httpx2
import pytest

from forebay.mock_provider.app import create_app
from forebay.mock_provider.log import RequestRecord
from forebay.mock_provider.truth import ProviderTruth
from tests.support import wait_until

CHAT = "/v1/chat/completions"
SECRET = "a prompt that nobody may find"
LONG_SECONDS = 3600.0


def question(content="hello there", **fields):
    return {"model": "m", "messages": [{"role": "user", "content": content}], **fields}


@contextlib.asynccontextmanager
async def running(*, seed=0, api_key=None, headers=None, **fields):
    """Give a client and the state of a provider with this truth."""
    app = create_app(ProviderTruth(**fields), seed=seed, api_key=api_key)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://mock", headers=headers
    ) as client:
        yield client, app.state.provider


def statuses(state):
    return [record.status for _, record in state.log.since() if isinstance(record, RequestRecord)]


def events_of(text):
    lines = [line for line in text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


async def test_two_servers_with_one_seed_answer_byte_by_byte_alike():
    answers = []
    for seed in (5, 5, 6):
        async with running(seed=seed) as (client, _):
            answers.append((await client.post(CHAT, json=question())).content)
    assert answers[0] == answers[1] != answers[2]


async def test_a_refusal_has_the_shape_of_openai_and_both_retry_headers():
    async with running(concurrency=0, retry_after_seconds=1.2341) as (client, state):
        answer = await client.post(CHAT, json=question())
    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["retry-after-ms"] == "1235"
    assert not any(name.startswith("x-ratelimit") for name in answer.headers)
    assert statuses(state) == [429]


async def test_a_refusal_can_leave_the_client_without_a_time():
    async with running(concurrency=0, retry_after_seconds=None) as (client, _):
        answer = await client.post(CHAT, json=question())
    assert "retry-after" not in answer.headers
    assert "retry-after-ms" not in answer.headers


async def test_a_request_that_never_fits_is_not_to_be_retried():
    async with running(tokens_per_minute=1) as (client, _):
        answer = await client.post(CHAT, json=question())
    assert answer.status_code == 429
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("error_rate", [0, 1])
@pytest.mark.parametrize("stream", [False, True])
async def test_every_answer_carries_the_budgets_there_are(error_rate, stream):
    async with running(requests_per_minute=1, tokens_per_minute=6000, error_rate=error_rate) as (
        client,
        _,
    ):
        first = await client.post(CHAT, json=question(stream=stream))
        second = await client.post(CHAT, json=question(stream=stream))
        invalid = await client.post(CHAT, json={})
    assert [first.status_code, second.status_code] == [500 if error_rate else 200, 429]
    for answer in (first, second, invalid):
        assert answer.headers["x-ratelimit-limit-requests"] == "1"
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        reset = answer.headers["x-ratelimit-reset-requests"]
        assert re.fullmatch(r"(1m)?[\d.]+s", reset), reset
        assert answer.headers["x-ratelimit-limit-tokens"] == "6000"


async def test_an_error_has_the_shape_of_openai():
    async with running(error_rate=1) as (client, state):
        answer = await client.post(CHAT, json=question(stream=True))
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert state.counters.errors == 1


async def test_a_stream_is_the_whole_answer_in_the_wanted_pieces():
    async with running(stream_chunk_count=5) as (client, _):
        whole = (await client.post(CHAT, json=question())).json()
        options = {"include_usage": True}
        streamed = await client.post(CHAT, json=question(stream=True, stream_options=options))
    events = events_of(streamed.text)
    deltas = [event["choices"][0]["delta"] for event in events[:-1]]
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert len([delta for delta in deltas if "content" in delta]) == 5
    text = "".join(delta.get("content", "") for delta in deltas)
    assert text == whole["choices"][0]["message"]["content"]
    assert deltas[0]["role"] == "assistant"
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]] == [None] * 5 + ["stop"]
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == whole["usage"]


async def test_a_stream_says_its_usage_only_to_who_asks():
    async with running() as (client, _):
        streamed = await client.post(CHAT, json=question(stream=True))
    assert all("usage" not in event for event in events_of(streamed.text))


async def test_embeddings_are_the_same_as_numbers_and_as_base64():
    async with running(embedding_dimensions=4) as (client, _):
        body = {"model": "e", "input": ["a", "b"]}
        numbers = (await client.post("/v1/embeddings", json=body)).json()
        body["encoding_format"] = "base64"
        coded = (await client.post("/v1/embeddings", json=body)).json()
    assert numbers["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    for item, other in zip(numbers["data"], coded["data"], strict=True):
        values = struct.unpack("<4f", base64.b64decode(other["embedding"]))
        assert values == pytest.approx(item["embedding"])


@pytest.mark.parametrize(
    ("path", "content", "param"),
    [
        (CHAT, b"", None),
        (CHAT, b"{", None),
        (CHAT, b"[]", None),
        (CHAT, b"\xff", None),
        (CHAT, b'{"messages":[{"role":"user","content":"x"}]}', "model"),
        (CHAT, b'{"model":"m","messages":[]}', "messages"),
        (CHAT, b'{"model":"m","messages":[{"content":"x"}]}', "messages.0.role"),
        (CHAT, b'{"model":"m","messages":[{"role":"user","content":"x"}],"n":2}', "n"),
        ("/v1/embeddings", b'{"model":"m"}', "input"),
    ],
)
async def test_a_body_that_cannot_be_understood_is_answered_with_400(path, content, param):
    async with running() as (client, state):
        answer = await client.post(path, content=content)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["error"]["param"] == param
    assert statuses(state) == [400]


async def test_a_schema_beyond_the_mock_is_answered_with_400():
    schema = {"type": "json_schema", "json_schema": {"schema": {"pattern": "^a$"}}}
    async with running() as (client, _):
        answer = await client.post(CHAT, json=question(response_format=schema))
    assert answer.status_code == 400
    assert "'pattern'" in answer.json()["error"]["message"]


async def test_a_client_that_gives_up_frees_its_slot():
    async with running(concurrency=1, latency_median_seconds=LONG_SECONDS) as (client, state):
        waiting = asyncio.create_task(client.post(CHAT, json=question()))
        await wait_until(lambda: state.counters.in_flight == 1)
        refused = await client.post(CHAT, json=question())
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        state.change_truth({"latency_median_seconds": 0})
        served = await client.post(CHAT, json=question())
    assert (refused.status_code, served.status_code) == (429, 200)
    assert statuses(state) == [429, 499, 200]


@pytest.mark.parametrize("answer_so_far", [0, 2])
async def test_a_disconnect_ends_the_service_at_once(answer_so_far):
    """Plain ASGI: the server reports that the client left, while the answer takes its time."""
    latency = LONG_SECONDS if answer_so_far == 0 else 0
    truth = ProviderTruth(
        latency_median_seconds=latency, stream_chunk_delay_seconds=LONG_SECONDS, concurrency=1
    )
    app = create_app(truth)
    body = json.dumps(question(stream=True)).encode()
    left = asyncio.Event()
    received = [{"type": "http.request", "body": body, "more_body": False}]
    sent = []

    async def receive():
        if received:
            return received.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "root_path": ""}
    serving = asyncio.create_task(app(scope, receive, send))
    state = app.state.provider
    await wait_until(lambda: state.counters.in_flight == 1 and len(sent) == answer_so_far)
    left.set()
    await serving
    assert state.counters.in_flight == 0
    assert statuses(state) == [499]
    assert len(sent) == answer_so_far


async def test_the_slot_is_free_before_the_answer_is_out():
    """Who sends the next request on receiving an answer is not refused because of that one."""
    app = create_app(ProviderTruth(concurrency=1))
    state = app.state.provider
    seen = []

    for stream in (False, True):
        body = json.dumps(question(stream=stream)).encode()

        async def receive(body=body):
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            if message["type"] == "http.response.body" and not message.get("more_body"):
                seen.append(state.counters.in_flight)

        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "root_path": ""}
        await app(scope, receive, send)
    assert seen == [0, 0]


async def test_the_log_names_who_asked_and_never_what_was_said():
    async with running() as (client, _):
        body = question(SECRET, user="ann", response_format={"type": "json_object"})
        answer = await client.post(CHAT, json=body, headers={"x-forebay-tag": "run-7"})
        await client.post("/v1/embeddings", json={"model": "e", "input": SECRET})
        log = await client.get("/log")
    (start, chat, embedding) = log.json()
    assert (start["kind"], start["source"]) == ("truth", "start")
    assert (chat["user"], chat["tag"], chat["model"]) == ("ann", "run-7", "m")
    assert (embedding["user"], embedding["tag"], embedding["model"]) == (None, None, "e")
    assert chat["total_tokens"] == answer.json()["usage"]["total_tokens"]
    assert 0 <= chat["arrived_at"] <= chat["finished_at"]
    assert SECRET not in log.text
    assert answer.json()["choices"][0]["message"]["content"] not in log.text


async def test_a_reader_of_the_log_gets_only_what_is_new():
    async with running() as (client, _):
        for _ in range(3):
            await client.post(CHAT, json=question())
        last = (await client.get("/log", params={"since": 2})).json()
        none = (await client.get("/log", params={"since": 4})).json()
        wrong = await client.get("/log", params={"since": "-1"})
    assert [record["index"] for record in last] == [2, 3]
    assert none == []
    assert wrong.status_code == 400


async def test_the_truth_can_be_seen_and_changed_while_it_runs():
    async with running(concurrency=3, seed=4) as (client, _):
        changed = await client.post("/truth", json={"concurrency": 0, "error_rate": 0.5})
        refused = await client.post(CHAT, json=question())
        shown = (await client.get("/truth")).json()
    assert refused.status_code == 429
    assert changed.json()["truth"] == shown["truth"]
    assert (shown["truth"]["concurrency"], shown["truth"]["error_rate"]) == (0, 0.5)
    assert shown["counters"]["refused"] == 1
    assert shown["seed"] == 4


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"concurency":1}', b'{"concurrency":"x"}'])
async def test_a_wrong_change_of_the_truth_is_explained_and_not_made(content):
    async with running(concurrency=3) as (client, state):
        answer = await client.post("/truth", content=content)
    assert answer.status_code == 400
    assert "concurrency" in answer.json()["error"]["message"]
    assert state.truth.concurrency == 3


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", CHAT, 405)]
)
async def test_a_wrong_path_or_method_is_answered_in_the_shape_of_openai(method, path, status):
    async with running() as (client, _):
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert path in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", [CHAT, "/truth", "/log", "/v1/models"])
@pytest.mark.parametrize("given", [None, "Bearer wrong", "right"])
async def test_with_a_key_everything_but_health_wants_it(path, given):
    headers = {"authorization": given} if given else None
    async with running(api_key="right", headers=headers) as (client, state):
        answer = await client.request("POST" if path == CHAT else "GET", path)
        health = await client.get("/healthz")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "right" not in answer.text
    assert health.json() == {"status": "ok"}
    assert statuses(state) == [401]


async def test_the_right_key_is_let_in():
    async with running(api_key="right", headers={"authorization": "Bearer right"}) as (client, _):
        assert (await client.post(CHAT, json=question())).status_code == 200
        models = (await client.get("/v1/models")).json()
    assert [model["id"] for model in models["data"]] == ["mock-chat", "mock-embedding"]
