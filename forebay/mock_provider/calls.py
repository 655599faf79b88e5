"""Understands the body of a model request and prepares its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from forebay.mock_provider import responses
from forebay.mock_provider.answers import answer_chat, digest_embeddings, embed
from forebay.mock_provider.instance import SchemaNotSupportedError
from forebay.mock_provider.state import ProviderState
from forebay.mock_provider.wire import ChatRequest, EmbeddingRequest


class InvalidCallError(ValueError):
    """A body that cannot be understood.

    Attributes:
        param: the field at fault, if it is one.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """One understood request with the answer it will get.

    Attributes:
        model: the model it asks for.
        user: its ``user`` field.
        digest: stands for its content.
        total_tokens: prompt and completion tokens.
        body: encodes the answer as one body.
        events: encodes it as a number of streamed pieces; None when no stream was asked for.
        last_event: ends such a stream.
    """

    model: str
    user: str | None
    digest: str
    total_tokens: int
    body: Callable[[], bytes]
    events: Callable[[int], Iterator[bytes]] | None = None
    last_event: bytes = responses.STREAM_END


def understand_chat(body: bytes, state: ProviderState) -> ModelCall:
    """Read a chat request and answer it.

    Raises:
        InvalidCallError: it is no chat request, or its schema cannot be satisfied.
    """
    try:
        request = ChatRequest.model_validate_json(body)
        rate = state.truth.invalid_json_rate
        answer = answer_chat(request, seed=state.seed, invalid_json_rate=rate)
    except ValidationError as exc:
        raise invalid_call(exc) from exc
    except SchemaNotSupportedError as exc:
        message = f"response_format: {exc}; leave that out of the schema"
        raise InvalidCallError(message, "response_format") from exc
    return ModelCall(
        model=request.model,
        user=request.user,
        digest=answer.digest,
        total_tokens=answer.prompt_tokens + answer.completion_tokens,
        body=lambda: responses.chat_body(request, answer),
        events=(lambda count: responses.chat_chunks(request, answer, count))
        if request.stream
        else None,
    )


def understand_embeddings(body: bytes, state: ProviderState) -> ModelCall:
    """Read an embeddings request.

    Raises:
        InvalidCallError: it is no embeddings request.
    """
    try:
        request = EmbeddingRequest.model_validate_json(body)
    except ValidationError as exc:
        raise invalid_call(exc) from exc
    dimensions = state.truth.embedding_dimensions
    return ModelCall(
        model=request.model,
        user=request.user,
        digest=digest_embeddings(request, seed=state.seed),
        total_tokens=request.prompt_tokens(),
        body=lambda: responses.embeddings_body(
            request, embed(request, seed=state.seed, dimensions=dimensions)
        ),
    )


def invalid_call(error: ValidationError) -> InvalidCallError:
    """Name the first fault, as providers do."""
    fault = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(str(part) for part in fault["loc"])
    return InvalidCallError(f"{param}: {fault['msg']}" if param else fault["msg"], param or None)
