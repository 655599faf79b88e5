"""``POST /v1/messages`` in the shapes of Anthropic's API; it answers as the chat endpoint does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forebay.mock_provider.answers import ChatAnswer, answer_chat, split_text
from forebay.mock_provider.budget import BudgetLeft
from forebay.mock_provider.calls import ModelCall, invalid_call
from forebay.mock_provider.responses import Headers, encode
from forebay.mock_provider.state import ProviderState
from forebay.mock_provider.wire import ChatMessage, ChatRequest

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


class MessagesRequest(BaseModel):
    """The body of ``POST /v1/messages``; what is not named here is accepted without effect."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: Annotated[str, Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)]
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = False
    metadata: dict[str, Any] | None = None

    def as_chat(self) -> ChatRequest:
        """Return the same as a chat request of OpenAI's API, the system's text as a message."""
        system = [] if self.system is None else [ChatMessage(role="system", content=self.system)]
        return ChatRequest(
            model=self.model, messages=[*system, *self.messages], max_tokens=self.max_tokens
        )


def understand_messages(body: bytes, state: ProviderState) -> ModelCall:
    """Read a request and answer it.

    Raises:
        InvalidCallError: it is no such request.
    """
    try:
        request = MessagesRequest.model_validate_json(body)
    except ValidationError as exc:
        raise invalid_call(exc) from exc
    answer = answer_chat(request.as_chat(), seed=state.seed, invalid_json_rate=0.0)
    user = (request.metadata or {}).get("user_id")
    return ModelCall(
        model=request.model,
        user=user if isinstance(user, str) else None,
        digest=answer.digest,
        total_tokens=answer.prompt_tokens + answer.completion_tokens,
        body=lambda: encode(_message(request, answer, answer.text, answer.completion_tokens)),
        events=(lambda count: _events(request, answer, count)) if request.stream else None,
        last_event=_event({"type": "message_stop"}),
    )


def error_body(
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
) -> bytes:
    """Encode an error as Anthropic does: a type and a message, no code and no parameter."""
    del code, param
    kinds = {"server_error": "api_error"}
    error = {"type": kinds.get(kind, kind), "message": message}
    return encode({"type": "error", "error": error})


def budget_headers(left: Sequence[BudgetLeft]) -> Headers:
    """Return the ``anthropic-ratelimit-*`` headers; resets are instants."""
    headers: Headers = []
    for budget in left:
        full_at = datetime.now(UTC) + timedelta(seconds=budget.full_in_seconds)
        values = (budget.limit, budget.remaining, full_at.isoformat(timespec="seconds"))
        headers += [
            (f"anthropic-ratelimit-{budget.unit}-{name}".encode(), str(value).encode())
            for name, value in zip(("limit", "remaining", "reset"), values, strict=True)
        ]
    return headers


def _message(
    request: MessagesRequest, answer: ChatAnswer, text: str | None, output_tokens: int
) -> dict[str, Any]:
    return {
        "id": f"msg_{answer.digest}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [] if text is None else [{"type": "text", "text": text}],
        "stop_reason": None if text is None else _STOP_REASONS[answer.finish_reason],
        "stop_sequence": None,
        "usage": {"input_tokens": answer.prompt_tokens, "output_tokens": output_tokens},
    }


def _events(request: MessagesRequest, answer: ChatAnswer, count: int) -> Iterator[bytes]:
    """Yield the events of a streamed message, all but the last."""
    yield _event({"type": "message_start", "message": _message(request, answer, None, 1)})
    block = {"type": "text", "text": ""}
    yield _event({"type": "content_block_start", "index": 0, "content_block": block})
    for piece in split_text(answer.text, count):
        delta = {"type": "text_delta", "text": piece}
        yield _event({"type": "content_block_delta", "index": 0, "delta": delta})
    yield _event({"type": "content_block_stop", "index": 0})
    stop = {"stop_reason": _STOP_REASONS[answer.finish_reason], "stop_sequence": None}
    usage = {"output_tokens": answer.completion_tokens}
    yield _event({"type": "message_delta", "delta": stop, "usage": usage})


def _event(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: ".encode() + encode(data) + b"\n\n"
