"""OpenAI's chat and embeddings requests, as far as the mock provider reads them.

Other fields of the API (``temperature``, ``tools``, ...) are accepted and have no effect, since
clients send many of them; hence these models ignore what they do not name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_CHARACTERS_PER_TOKEN = 4

_MODEL = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


def count_tokens(text: str) -> int:
    """Return the mock's token count: a quarter of the characters, rounded up."""
    return -(-len(text) // _CHARACTERS_PER_TOKEN)


class ChatMessage(BaseModel):
    """One message; content is text, or parts of which only the text parts are read."""

    model_config = _MODEL

    role: Annotated[str, Field(min_length=1)]
    content: str | list[dict[str, Any]] | None = None

    def text(self) -> str:
        """Return the text of the message, "" when it has none."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join(part["text"] for part in self.content if isinstance(part.get("text"), str))

    def identity(self) -> str:
        """Return a string that differs when the content does, images included."""
        if isinstance(self.content, str):
            return self.content
        return json.dumps(self.content, sort_keys=True)


class JsonSchemaFormat(BaseModel):
    """The inner table of a ``json_schema`` response format."""

    model_config = _MODEL

    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class ResponseFormat(BaseModel):
    """The wanted form of the answer."""

    model_config = _MODEL

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class StreamOptions(BaseModel):
    """Whether a stream ends with a chunk that carries the usage."""

    model_config = _MODEL

    include_usage: bool = False


class ChatRequest(BaseModel):
    """The body of ``POST /v1/chat/completions``; one choice only."""

    model_config = _MODEL

    model: Annotated[str, Field(min_length=1)]
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Literal[1] | None = None
    user: str | None = None

    def prompt_tokens(self) -> int:
        """Return the tokens of all messages, at least one."""
        return max(1, sum(count_tokens(message.text()) for message in self.messages))


class EmbeddingRequest(BaseModel):
    """The body of ``POST /v1/embeddings``: a text, texts, or the same as token numbers."""

    model_config = _MODEL

    model: Annotated[str, Field(min_length=1)]
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=2048)]
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[list[int]], Field(min_length=1, max_length=2048)]
    )
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Annotated[int, Field(ge=1, le=4096)] | None = None
    user: str | None = None

    def inputs(self) -> Sequence[str | list[int]]:
        """Return the inputs one by one, in the order of the vectors to come."""
        if isinstance(self.input, str):
            return [self.input]
        # A flat list of numbers is one input, given as tokens.
        numbers = [item for item in self.input if isinstance(item, int)]
        return [numbers] if numbers else [item for item in self.input if not isinstance(item, int)]

    def prompt_tokens(self) -> int:
        """Return the tokens of all inputs."""
        return sum(
            count_tokens(item) if isinstance(item, str) else len(item) for item in self.inputs()
        )
