"""What a `RawProvider` answers: the bodies of OpenAI's API and of Anthropic's, whole or in part."""

from __future__ import annotations

import json
from typing import Any

from tests.support_raw_provider import Asked, Behaviour, Reply, begun_stream, chunk, whole

WORDS = ["So", " it", " is", "."]
SENTENCE = "".join(WORDS)
PROMPT = "a prompt that nobody else may see"


def completion(asked: Asked, text: str = SENTENCE) -> dict[str, Any]:
    """A whole answer in the shape of the API that was asked."""
    if asked.is_anthropic:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 7, "output_tokens": 4},
        }
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11},
    }


def events(asked: Asked) -> list[bytes]:
    """The events of a streamed answer in the shape of the API that was asked."""
    if asked.is_anthropic:
        start = {**completion(asked), "content": [], "stop_reason": None}
        start["usage"] = {"input_tokens": 7, "output_tokens": 1}
        told: list[dict[str, Any]] = [
            {"type": "message_start", "message": start},
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "text", "text": ""},
            },
            *(
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": word},
                }
                for word in WORDS
            ),
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 4},
            },
            {"type": "message_stop"},
        ]
        return [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in told]
    parts = [
        {
            "id": "c1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": end}],
            "usage": None,
        }
        for delta, end in [*(({"content": word}, None) for word in WORDS), ({}, "stop")]
    ]
    usage = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    parts.append({**parts[0], "choices": [], "usage": usage})
    return [*(b"data: %b\n\n" % json.dumps(one).encode() for one in parts), b"data: [DONE]\n\n"]


async def answers(asked: Asked, reply: Reply) -> None:
    """Answer as a provider with nothing to complain of."""
    if not asked.is_stream:
        await reply.send(whole(completion(asked)))
        return
    await reply.send(begun_stream())
    for event in events(asked):
        await reply.send(chunk(event))
    await reply.send(chunk(b""))


async def stalls(_asked: Asked, reply: Reply) -> None:
    """Answer nothing before it is told to go on."""
    await reply.goes_on.wait()


async def stalls_midway(asked: Asked, reply: Reply) -> None:
    """Stream some, and the rest when it is told to go on."""
    told = events(asked)
    await reply.send(begun_stream() + b"".join(map(chunk, told[:4])))
    await reply.goes_on.wait()
    await reply.send(b"".join(map(chunk, [*told[4:], b""])))


def refuses(status: int = 429, code: str = "rate_limit_exceeded", **headers: str) -> Behaviour:
    async def refuse(_asked: Asked, reply: Reply) -> None:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        await reply.send(whole({"error": {"code": code, "message": PROMPT}}, status, fields))

    return refuse


def tells_overload_within(asked: Asked) -> bytes:
    """An overload told within a stream with a good status."""
    if asked.is_anthropic:
        fault = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        return b"event: error\ndata: %b\n\n" % json.dumps(fault).encode()
    fault = {"error": {"code": "rate_limit_exceeded", "message": "slow down"}}
    return b"data: %b\n\n" % json.dumps(fault).encode()
