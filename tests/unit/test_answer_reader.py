from __future__ import annotations

import base64
import gzip
import itertools
import json
import zlib
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from forebay.contracts.outcomes import TokenUsage
from forebay.workers.providers.answer_bodies import (
    MOST_INFLATED_BYTES,
    MOST_PARSED_BYTES,
    AnswerReader,
)
from forebay.workers.providers.faults import OVERLOADED, UNNAMED_ERROR
from forebay.workers.providers.token_usage import MOST_TOKENS

USED = TokenUsage(input_tokens=25, output_tokens=15)
CHAT = {"id": "c", "choices": [], "usage": {"prompt_tokens": 25, "completion_tokens": 15}}
JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"


def events(*documents: object, end: str = "\n\n") -> bytes:
    return "".join(f"data: {json.dumps(document)}{end}" for document in documents).encode()


OPENAI_STREAM = (
    events(
        {"choices": [{"delta": {"content": 'say "usage": {"prompt_tokens": 1}'}}], "usage": None},
        {"choices": [], "usage": {"prompt_tokens": 25, "completion_tokens": 15}},
    )
    + b"data: [DONE]\n\n"
)
ANTHROPIC_STREAM = b"".join(
    f"event: {document['type']}\n".encode() + events(document)
    for document in (
        {"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}},
        {"type": "ping"},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "error"}},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 15}},
        {"type": "message_stop"},
    )
)
RESPONSES_STREAM = events(
    {"type": "response.created", "response": {"usage": None, "error": None}},
    {
        "type": "response.completed",
        "response": {"usage": {"input_tokens": 25, "output_tokens": 15}, "error": None},
    },
)
STREAMS = [OPENAI_STREAM, ANTHROPIC_STREAM, RESPONSES_STREAM]


def read(body: bytes, content_type: str = JSON, encoding: str = "", step: int = 7) -> AnswerReader:
    reader = AnswerReader(content_type, encoding)
    for start in range(0, len(body), step):
        reader.feed(body[start : start + step])
    return reader


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"\xff", b"{", b"[" * 60_000, b" " * MOST_PARSED_BYTES + b"{}"]
)
def test_a_body_that_is_no_document_has_no_usage(body: bytes) -> None:
    assert read(body, step=10_000).usage is None


@pytest.mark.parametrize("kind", [JSON, "application/problem+json; charset=utf-8", ""])
def test_a_json_body_is_read_when_it_is_whole(kind: str) -> None:
    body = json.dumps(CHAT).encode()
    reader = AnswerReader(kind, "")
    reader.feed(body[:-1])
    assert reader.usage is None
    reader.feed(body[-1:])
    assert reader.usage == USED
    assert reader.error_code is None


@pytest.mark.parametrize("stream", STREAMS, ids=["openai", "anthropic", "responses"])
@given(cuts=st.lists(st.integers(0, 600), max_size=6))
def test_a_stream_is_read_however_it_is_cut(stream: bytes, cuts: list[int]) -> None:
    reader = AnswerReader(EVENTS, "")
    borders = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, end in itertools.pairwise(borders):
        reader.feed(stream[start:end])
    assert reader.usage == USED
    assert reader.error_code is None
    assert reader.has_ended


@pytest.mark.parametrize("stream", STREAMS, ids=["openai", "anthropic", "responses"])
def test_a_stream_has_ended_with_its_last_event_and_not_before(stream: bytes) -> None:
    assert read(stream.rstrip(), EVENTS).has_ended is False
    assert read(stream, EVENTS).has_ended


@pytest.mark.parametrize(
    "body",
    [
        events({"choices": [{"delta": {"content": "data: [DONE]\n\ndata: [DONE]"}}]}),
        events({"delta": {"text": 'what "type": "message_stop" and [DONE] mean'}}),
        events({"type": "response.output_text.delta", "delta": "response.completed"}),
        events({"type": "content_block_start", "content_block": {"type": "message_stop"}}),
        events({"type": ["message_stop"]}),
        b": [DONE]\n\n",
    ],
)
def test_a_text_that_quotes_an_end_is_none(body: bytes) -> None:
    assert read(body, EVENTS).has_ended is False


NDJSON = "application/x-ndjson"
FAILED = json.dumps({"error": {"code": "server_is_overloaded"}}).encode()
DONE = json.dumps({"done": True, "prompt_eval_count": 25, "eval_count": 15}).encode()


@pytest.mark.parametrize(
    ("body", "kind", "usage", "code"),
    [
        (b'{"done": false}\n' + DONE, NDJSON, USED, None),
        (b'{"done": false}\n' + FAILED, NDJSON, None, "server_is_overloaded"),
        (b"data: {}\n\ndata: " + FAILED, EVENTS, None, "server_is_overloaded"),
        (b"event: error\ndata: " + FAILED, EVENTS, None, "server_is_overloaded"),
        (OPENAI_STREAM.partition(b"\n\ndata: [DONE]")[0], EVENTS, USED, None),
        (b"data: {}\n\ndata: " + FAILED[:-1], EVENTS, None, None),
    ],
)
def test_a_last_line_that_nothing_ends_is_read(
    body: bytes, kind: str, usage: TokenUsage | None, code: str | None
) -> None:
    reader = read(body, kind, step=3)
    assert (reader.usage, reader.error_code) == (usage, code)


def test_a_line_that_is_looked_at_before_its_end_is_read_as_a_whole() -> None:
    reader = read(b'event: error\ndata: {"message": "no ', EVENTS)
    assert reader.usage is None
    reader.feed(b'code", "code": "busy"}\n\n')
    assert reader.error_code == "busy"


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
def test_lines_may_end_in_each_way_of_the_standard(end: str) -> None:
    assert read(events({"usage": {"prompt_tokens": 25}}, {}, end=end), EVENTS).usage == TokenUsage(
        input_tokens=25
    )


def test_a_stream_that_breaks_off_has_no_usage_yet() -> None:
    half = ANTHROPIC_STREAM[: ANTHROPIC_STREAM.index(b"event: message_delta")]
    assert read(half, EVENTS).usage is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (events({"error": {"message": "m", "code": "rate_limit_exceeded"}}), "rate_limit_exceeded"),
        (
            b"event: error\n" + events({"type": "error", "error": {"type": "overloaded_error"}}),
            "overloaded_error",
        ),
        (events({"type": "error", "code": "server_error", "message": "m"}), "server_error"),
        (
            events({"type": "response.failed", "response": {"error": {"code": "server_error"}}}),
            "server_error",
        ),
        (events({"error": {"code": 502, "message": "m"}, "choices": []}), "502"),
        (events({"error": "Overloaded, said of a model"}), OVERLOADED),
        (events({"error": "something else"}), UNNAMED_ERROR),
        (b"event: error\n" + events({"message": "no code"}), UNNAMED_ERROR),
        (b"event: ping\n" + events({"message": "no code"}), None),
        (b"event: error\ndata: Service temporarily overloaded\n\n", OVERLOADED),
        (b"event: error\ndata: Something went wrong\n\n", UNNAMED_ERROR),
        (b'event: error\ndata: {"type": "error",\ndata: "error": {}}\n\n', UNNAMED_ERROR),
        (b"event: ping\ndata: Overloaded\n\n", None),
        (events({"error": None, "choices": []}), None),
        (events({"delta": {"content": '"error": {"code": "quoted"}'}}), None),
    ],
)
def test_an_error_within_a_stream_is_seen(body: bytes, code: str | None) -> None:
    assert read(body, EVENTS).error_code == code


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"error": {"code": "busy"}}, "busy"),
        ({"type": "error", "error": {"type": "overloaded_error"}}, "overloaded_error"),
        ([{"error": {"status": "UNAVAILABLE"}}], "UNAVAILABLE"),
        ({"type": "message", "error": None}, None),
        ([1], None),
    ],
)
def test_an_error_in_a_json_body_is_seen(document: object, code: str | None) -> None:
    assert read(json.dumps(document).encode()).error_code == code


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


def frames(body: bytes) -> bytes:
    """Return a body in two frames of zstd."""
    return zstandard.compress(body[:50]) + zstandard.compress(body[50:])


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("X-GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("br", brotli.compress),
        ("zstd", zstandard.compress),
        ("zstd", frames),
        ("identity", bytes),
    ],
)
@pytest.mark.parametrize(
    ("kind", "body"), [(JSON, json.dumps(CHAT).encode()), (EVENTS, OPENAI_STREAM)]
)
def test_a_compressed_body_is_read(encoding: str, pack: Any, kind: str, body: bytes) -> None:
    reader = read(pack(body), kind, encoding)
    assert (reader.usage, reader.has_ended) == (USED, kind == EVENTS)


@pytest.mark.parametrize(
    ("kind", "encoding"), [(JSON, "lzma"), (JSON, "gzip, br"), ("image/png", ""), ("text/html", "")]
)
def test_what_it_does_not_understand_is_given_up(kind: str, encoding: str) -> None:
    reader = read(json.dumps(CHAT).encode(), kind, encoding)
    assert (reader.usage, reader.error_code, len(reader._kept)) == (None, None, 0)


@given(
    chunks=st.lists(st.binary(max_size=40) | st.sampled_from(STREAMS)),
    kind=st.sampled_from([JSON, EVENTS]),
    encoding=st.sampled_from(["", "gzip", "deflate", "br", "zstd"]),
)
def test_no_bytes_make_it_raise(chunks: list[bytes], kind: str, encoding: str) -> None:
    reader = AnswerReader(kind, encoding)
    for chunk in chunks:
        reader.feed(chunk)
    _ = reader.usage, reader.error_code


@pytest.mark.parametrize("kind", [JSON, EVENTS])
@pytest.mark.parametrize("text", [b"x", b'{"usage":', b"[" * 50])
def test_memory_is_bounded_however_long_the_body(kind: str, text: bytes) -> None:
    reader = AnswerReader(kind, "")
    chunk = text * (65_536 // len(text))
    for _ in range(40):
        reader.feed(chunk)
        assert len(reader._kept) <= MOST_PARSED_BYTES
    assert reader.usage is None


LONG = "x" * (2 * MOST_PARSED_BYTES)


@pytest.mark.parametrize(
    "document",
    [
        {"data": LONG, "usage": CHAT["usage"]},
        {"usage": CHAT["usage"], "data": LONG},
        {"data": LONG, "usage": CHAT["usage"], "more": LONG},
        {"type": "response.completed", "response": {"output": LONG, "usage": CHAT["usage"]}},
    ],
    ids=["in the end", "in the beginning", "between", "within"],
)
@pytest.mark.parametrize("step", [1000, 65_536, 10**9])
@pytest.mark.parametrize("kind", [JSON, EVENTS])
def test_what_is_too_long_to_be_parsed_is_read_for_its_usage(
    document: object, step: int, kind: str
) -> None:
    body = json.dumps(document).encode() if kind == JSON else events(document)
    assert read(body, kind, step=step).usage == USED


def test_a_line_too_long_to_be_parsed_ends_where_it_ends() -> None:
    reader = read(b"data: " + b"x" * (MOST_PARSED_BYTES + 1), EVENTS, step=65_536)
    # What ends it looks like a line of its own, and is none.
    reader.feed(events({"error": {"code": "quoted"}}))
    assert reader.error_code is None
    reader.feed(OPENAI_STREAM)
    assert reader.usage == USED


def test_a_last_event_too_long_to_be_parsed_ends_the_stream() -> None:
    document = {"type": "response.completed", "response": {"output": "x" * 2 * MOST_PARSED_BYTES}}
    reader = read(b"event: response.completed\n" + events(document)[:-2], EVENTS, step=65_536)
    assert not reader.has_ended
    reader.feed(b"\n\n")
    assert reader.has_ended


def test_what_follows_an_error_too_long_to_be_parsed_is_no_error() -> None:
    reader = read(
        b"event: error\n" + events({"text": "x" * 2 * MOST_PARSED_BYTES}), EVENTS, step=65_536
    )
    reader.feed(events({"usage": {"prompt_tokens": 25, "completion_tokens": 15}}))
    assert reader.error_code is None
    assert reader.usage == USED


def test_an_absurd_usage_is_none_whatever_a_stream_says_besides() -> None:
    absurd = {"usage": {"input_tokens": MOST_TOKENS + 1, "output_tokens": 1}}
    started = events({"type": "message_start", "message": absurd})
    ended = events({"type": "message_delta", "usage": {"output_tokens": 15}})
    assert read(started + ended, EVENTS).usage is None
    assert read(json.dumps({"data": LONG, **absurd}).encode(), step=65_536).usage is None


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("deflate", zlib.compress), ("br", brotli.compress), ("zstd", zstandard.compress)],
)
def test_a_bomb_is_not_inflated_to_its_end(encoding: str, pack: Any) -> None:
    line = b"data: " + b" " * 65_530
    bomb = pack((line + b"\n") * (MOST_INFLATED_BYTES // 65_536) + OPENAI_STREAM)
    reader = AnswerReader(EVENTS, encoding)
    reader.feed(bomb)
    assert reader.usage is None
    assert reader._decoded <= MOST_INFLATED_BYTES + 65_536


def test_no_content_is_in_its_repr() -> None:
    assert "prompt_tokens" not in repr(read(json.dumps(CHAT).encode()))


def frame(payload: object, **headers: str) -> bytes:
    """Make a frame of an event stream as AWS does; its checksums are the SDK's to look at."""
    named = b"".join(
        bytes([len(name) + 1]) + b":" + name.replace("_", "-").encode() + b"\7"
        + len(value).to_bytes(2) + value.encode()
        for name, value in headers.items()
    )  # fmt: skip
    body = json.dumps(payload).encode()
    prelude = (16 + len(named) + len(body)).to_bytes(4) + len(named).to_bytes(4)
    return prelude + bytes(4) + named + body + bytes(4)


def chunk_frame(document: object) -> bytes:
    encoded = base64.b64encode(json.dumps(document).encode()).decode()
    return frame({"bytes": encoded}, event_type="chunk", message_type="event")


FRAMES = "application/vnd.amazon.eventstream"
CONVERSE_STREAM = b"".join(
    frame(payload, event_type=kind, message_type="event")
    for kind, payload in (
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"delta": {"text": "error"}}),
        ("messageStop", {"stopReason": "end_turn"}),
        ("metadata", {"usage": {"inputTokens": 25, "outputTokens": 15}, "metrics": {}}),
    )
)
INVOKE_STREAM = b"".join(
    chunk_frame(document)
    for document in (
        {"type": "message_start", "message": {"usage": {"input_tokens": 25, "output_tokens": 1}}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 15}},
        {"type": "message_stop"},
    )
)


@pytest.mark.parametrize("stream", [CONVERSE_STREAM, INVOKE_STREAM], ids=["converse", "invoke"])
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_amazons_frames_are_read_however_they_are_cut(stream: bytes, step: int) -> None:
    reader = read(stream, FRAMES, step=step)
    assert (reader.usage, reader.error_code, reader.has_ended) == (USED, None, True)


@pytest.mark.parametrize("name", ["throttlingException", "modelStreamErrorException"])
def test_an_exception_among_amazons_frames_is_seen(name: str) -> None:
    told = frame({"message": "slow"}, message_type="exception", exception_type=name)
    assert read(INVOKE_STREAM[:200] + b"", FRAMES).error_code is None
    assert read(CONVERSE_STREAM + told, FRAMES).error_code == name


@given(junk=st.binary(min_size=16, max_size=80))
def test_no_frame_makes_it_raise(junk: bytes) -> None:
    reader = read(CONVERSE_STREAM + junk, FRAMES)
    _ = reader.usage, reader.error_code
    _ = read(junk, FRAMES).usage
