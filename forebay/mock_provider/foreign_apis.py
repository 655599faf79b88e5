"""Chat calls in the shapes of other providers' APIs, answered as the chat endpoint answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError

from forebay.mock_provider.answers import ChatAnswer, answer_chat, split_text
from forebay.mock_provider.calls import InvalidCallError, ModelCall, invalid_call
from forebay.mock_provider.responses import encode
from forebay.mock_provider.state import ProviderState
from forebay.mock_provider.wire import ChatMessage, ChatRequest

Understand = Callable[[bytes, ProviderState], ModelCall]


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise InvalidCallError("the body is no JSON") from error
    if not isinstance(found, dict):
        raise InvalidCallError("the body is no JSON object")
    return found


def _text_of(content: Any) -> str:
    """Return the text of a content: a text, or parts of which some have one."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, Mapping))


def _answered(
    found: Mapping[str, Any], messages: list[ChatMessage], state: ProviderState
) -> tuple[ChatRequest, ChatAnswer]:
    try:
        request = ChatRequest(model=str(found.get("model") or "mock-chat"), messages=messages)
    except ValidationError as error:
        raise invalid_call(error) from error
    return request, answer_chat(request, seed=state.seed, invalid_json_rate=0.0)


def _call(
    request: ChatRequest,
    answer: ChatAnswer,
    document: Callable[[str, bool], dict[str, Any]],
    *,
    streams: bool = False,
) -> ModelCall:
    """Make a model call; ``document`` returns the JSON of a text; its flag marks the last one."""

    def events(count: int) -> Iterator[bytes]:
        for piece in split_text(answer.text, count):
            yield b"data: " + encode(document(piece, False)) + b"\n\n"

    last = b"data: " + encode(document("", True)) + b"\n\n"
    return ModelCall(
        model=request.model,
        user=None,
        digest=answer.digest,
        total_tokens=answer.prompt_tokens + answer.completion_tokens,
        body=lambda: encode(document(answer.text, True)),
        events=events if streams else None,
        last_event=last,
    )


def understand_gemini(body: bytes, state: ProviderState, *, streams: bool = False) -> ModelCall:
    """Read a ``generateContent`` request.

    Raises:
        InvalidCallError: it is none.
    """
    found = _object(body)
    contents = found.get("contents") or []
    messages = [
        ChatMessage(role=one.get("role") or "user", content=_text_of(one.get("parts")))
        for one in contents
        if isinstance(one, Mapping)
    ]
    request, answer = _answered(found, messages, state)

    def document(text: str, is_last: bool) -> dict[str, Any]:
        content: Any = {"role": "model", "parts": [{"text": text}]}
        candidate = {
            "content": content,
            "index": 0,
            **({"finishReason": "STOP"} if is_last else {}),
        }
        usage = {"promptTokenCount": answer.prompt_tokens}
        if is_last:
            usage["candidatesTokenCount"] = answer.completion_tokens
        return {"candidates": [candidate], "usageMetadata": usage}

    return _call(request, answer, document, streams=streams)


def understand_gemini_stream(body: bytes, state: ProviderState) -> ModelCall:
    """Read a ``streamGenerateContent`` request; see `understand_gemini`."""
    return understand_gemini(body, state, streams=True)


def _with_messages(found: Mapping[str, Any]) -> list[ChatMessage]:
    messages = found.get("messages") or []
    return [
        ChatMessage(role=str(one.get("role") or "user"), content=_text_of(one.get("content")))
        for one in messages
        if isinstance(one, Mapping)
    ]


def understand_converse(body: bytes, state: ProviderState) -> ModelCall:
    """Read a request of Bedrock's Converse API.

    Raises:
        InvalidCallError: it is none.
    """
    found = _object(body)
    request, answer = _answered(found, _with_messages(found), state)

    def document(text: str, _is_last: bool) -> dict[str, Any]:
        usage = {"inputTokens": answer.prompt_tokens, "outputTokens": answer.completion_tokens}
        message = {"role": "assistant", "content": [{"text": text}]}
        return {"output": {"message": message}, "stopReason": "end_turn", "usage": usage}

    return _call(request, answer, document)


def understand_cohere(body: bytes, state: ProviderState) -> ModelCall:
    """Read a request of Cohere's chat API, version 2.

    Raises:
        InvalidCallError: it is none.
    """
    found = _object(body)
    request, answer = _answered(found, _with_messages(found), state)

    def document(text: str, _is_last: bool) -> dict[str, Any]:
        counts = {"input_tokens": answer.prompt_tokens, "output_tokens": answer.completion_tokens}
        content = [{"type": "text", "text": text}]
        message = {"role": "assistant", "content": content}
        usage = {"billed_units": counts, "tokens": counts}
        return {"id": "c", "finish_reason": "COMPLETE", "message": message, "usage": usage}

    call = _call(request, answer, document)
    if found.get("stream") is not True:
        return call

    def event(kind: str, **fields: Any) -> bytes:
        return f"event: {kind}\n".encode() + b"data: " + encode({"type": kind, **fields}) + b"\n\n"

    def events(count: int) -> Iterator[bytes]:
        yield event("message-start", id="c", delta={"message": {"role": "assistant"}})
        for piece in split_text(answer.text, count):
            delta = {"message": {"content": {"text": piece}}}
            yield event("content-delta", index=0, delta=delta)

    whole = document("", True)
    end = {"finish_reason": whole["finish_reason"], "usage": whole["usage"]}
    return replace(call, events=events, last_event=event("message-end", id="c", delta=end))


def understand_ollama(body: bytes, state: ProviderState) -> ModelCall:
    """Read a request of Ollama's chat API; a stream is one line.

    Raises:
        InvalidCallError: it is none.
    """
    found = _object(body)
    request, answer = _answered(found, _with_messages(found), state)

    def document(text: str, _is_last: bool) -> dict[str, Any]:
        counts = {
            "prompt_eval_count": answer.prompt_tokens,
            "eval_count": answer.completion_tokens,
        }
        message = {"role": "assistant", "content": text}
        return {"model": request.model, "message": message, "done": True, **counts}

    return _call(request, answer, document)


def understand_tgi(body: bytes, state: ProviderState) -> ModelCall:
    """Read a request of Text Generation Inference.

    Raises:
        InvalidCallError: it is none.
    """
    found = _object(body)
    prompt = ChatMessage(role="user", content=_text_of(found.get("inputs") or ""))
    request, answer = _answered(found, [prompt], state)

    def document(text: str, _is_last: bool) -> dict[str, Any]:
        details = {"generated_tokens": answer.completion_tokens, "finish_reason": "eos_token"}
        return {"generated_text": text, "details": details}

    return _call(request, answer, document)


ROUTES: Final[tuple[tuple[str, str, Understand], ...]] = (
    ("gemini", "/{version}/models/{model}:generateContent", understand_gemini),
    ("gemini", "/{version}/models/{model}:streamGenerateContent", understand_gemini_stream),
    ("bedrock", "/model/{model}/converse", understand_converse),
    ("cohere", "/v2/chat", understand_cohere),
    ("ollama", "/api/chat", understand_ollama),
    ("tgi", "/generate", understand_tgi),
)
"""The provider whose dialect words the refusals, the path, and the reader of its calls."""
