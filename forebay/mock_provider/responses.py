"""Bodies and headers of the mock provider's answers, in the shapes of OpenAI's API."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from forebay.mock_provider.answers import ChatAnswer, split_text
from forebay.mock_provider.budget import BudgetLeft
from forebay.mock_provider.state import Refusal
from forebay.mock_provider.wire import ChatRequest, EmbeddingRequest

Headers = list[tuple[bytes, bytes]]

CREATED = 1_700_000_000
"""The ``created`` of every answer: fixed, so that two runs can be compared byte by byte."""

MODELS = ("mock-chat", "mock-embedding")
"""Names that ``GET /v1/models`` lists; any other name is answered as well."""

STREAM_END = b"data: [DONE]\n\n"


def encode(value: Any) -> bytes:
    """Encode a JSON body."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def error_body(
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
) -> bytes:
    """Encode an error as OpenAI does; by default that of a request that cannot be understood."""
    fault = {"message": message, "type": kind, "param": param, "code": code}
    return encode({"error": fault})


def budget_headers(left: Sequence[BudgetLeft]) -> Headers:
    """Return the ``x-ratelimit-*`` headers, as OpenAI writes them."""
    headers: Headers = []
    for budget in left:
        values = (budget.limit, budget.remaining, format_duration(budget.full_in_seconds))
        headers += [
            (f"x-ratelimit-{name}-{budget.unit}".encode(), str(value).encode())
            for name, value in zip(("limit", "remaining", "reset"), values, strict=True)
        ]
    return headers


def refusal_headers(refusal: Refusal) -> Headers:
    """Return when to come back: ``retry-after`` in whole seconds and ``-ms``, both rounded up.

    What never fits carries ``x-should-retry: false`` instead, which OpenAI's clients respect.
    """
    seconds = refusal.retry_after_seconds
    if seconds is None:
        return []
    if math.isinf(seconds):
        return [(b"x-should-retry", b"false")]
    # Rounded first: 0.07 s are 70.00000000000001 ms to a float.
    milliseconds = math.ceil(round(seconds * 1000, 6))
    return [
        (b"retry-after", b"%d" % -(-milliseconds // 1000)),
        (b"retry-after-ms", b"%d" % milliseconds),
    ]


def chat_body(request: ChatRequest, answer: ChatAnswer) -> bytes:
    """Encode a chat completion."""
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": answer.finish_reason,
    }
    return encode(
        {
            "id": f"chatcmpl-{answer.digest}",
            "object": "chat.completion",
            "created": CREATED,
            "model": request.model,
            "choices": [choice],
            "usage": _usage(answer),
        }
    )


def chat_chunks(request: ChatRequest, answer: ChatAnswer, count: int) -> Iterator[bytes]:
    """Yield the events of a streamed completion, all but :data:`STREAM_END`.

    The role comes with the first piece of content, the finish reason in an event of its own and,
    if the request wants it, the usage in another.
    """
    include_usage = request.stream_options is not None and request.stream_options.include_usage

    def event(choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
        chunk: dict[str, Any] = {
            "id": f"chatcmpl-{answer.digest}",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": request.model,
            "choices": choices,
        }
        if include_usage:
            chunk["usage"] = usage
        return b"data: " + encode(chunk) + b"\n\n"

    def choice(delta: dict[str, str], finish_reason: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]

    for number, piece in enumerate(split_text(answer.text, count)):
        role = {"role": "assistant"} if number == 0 else {}
        yield event(choice({**role, "content": piece}))
    yield event(choice({}, answer.finish_reason))
    if include_usage:
        yield event([], _usage(answer))


def embeddings_body(request: EmbeddingRequest, vectors: Sequence[Sequence[float]]) -> bytes:
    """Encode embeddings, as numbers or as base64 of little-endian 32-bit floats."""
    items = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _base64(vector) if request.encoding_format == "base64" else vector,
        }
        for index, vector in enumerate(vectors)
    ]
    tokens = request.prompt_tokens()
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return encode({"object": "list", "data": items, "model": request.model, "usage": usage})


def models_body() -> bytes:
    """Encode the list of models."""
    models = [
        {"id": name, "object": "model", "created": CREATED, "owned_by": "forebay"}
        for name in MODELS
    ]
    return encode({"object": "list", "data": models})


def format_duration(seconds: float) -> str:
    """Write a duration as OpenAI's headers do: ``0s``, ``120ms``, ``8.64s``, ``6m0s``, ``1h0m0s``.

    Rounded up to whole milliseconds: who waits that long does not come too early.
    """
    milliseconds = math.ceil(seconds * 1000 - 1e-9)
    if 0 < milliseconds < 1000:  # noqa: PLR2004 - a thousand of them are a second
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s" if rest % 1000 == 0 else f"{rest / 1000:.3f}".rstrip("0") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def _usage(answer: ChatAnswer) -> dict[str, int]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }
