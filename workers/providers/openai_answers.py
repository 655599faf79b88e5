"""Answers of OpenAI-compatible providers as values, and the error for other answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from forebay.contracts.errors import ForebayError
from forebay.contracts.outcomes import TokenUsage
from forebay.workers.providers.headers import kept_headers

UNREADABLE = "unreadable_answer"
"""Error code of an answer with a good status and an unreadable body."""

_REMEDIES = {
    400: "check the request: the model may not support a parameter or the response format",
    401: "check the key in the environment variable that the provider's api_key_env names",
    402: "check the account's billing",
    403: "check the key's permissions for this model",
    404: "check the provider's base_url and the model's id",
    413: "shorten the prompt",
    429: "lower max_parallel_requests or register the account's quotas",
}


class ProviderHTTPError(ForebayError):
    """A provider answered with something other than the result that was asked for.

    Neither the message nor an attribute holds the body, which could quote the prompt.

    Attributes:
        status: HTTP status; 2xx when the body could not be read.
        headers: hints, limits and the request's id, names in lower case.
        error_code: the body's machine-readable code, or None.
    """

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        error_code: str | None = None,
        *,
        url: str = "the provider",
    ) -> None:
        remedy = _REMEDIES.get(status, "try again later, or ask the provider")
        code = f" ({error_code})" if error_code else ""
        super().__init__(f"{url} answered {status}{code} instead of a result; {remedy}.")
        self.status = status
        self.headers = kept_headers(headers)
        self.error_code = error_code


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderAnswer:
    """Usage, status and headers of an answer; the whole result of a health check.

    Attributes:
        usage: real tokens, None where the provider did not say.
        status: HTTP status.
        headers: hints, limits and the request's id, names in lower case.
    """

    usage: TokenUsage | None
    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCompletion(ProviderAnswer):
    """A chat completion.

    Attributes:
        text: the content, "" where the model gave none; kept out of the repr.
        is_cut: whether the bound of tokens ended it.
    """

    text: str = field(repr=False)
    is_cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderEmbeddings(ProviderAnswer):
    """Vectors.

    Attributes:
        vectors: in the order of the inputs; kept out of the repr.
    """

    vectors: Sequence[Sequence[float]] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderImages(ProviderAnswer):
    """Images in the order they came.

    Attributes:
        images: each a URL, or the image itself in base64, as was asked for; kept out of the repr.
    """

    images: Sequence[str] = field(repr=False)


class Wire(BaseModel):
    """Base of parsed answer bodies."""

    # Providers add fields of their own; the input stays out of errors, for it is the answer.
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class _Message(Wire):
    content: str | None = None


class _Choice(Wire):
    message: _Message
    finish_reason: Any = None


class ChatCompletion(Wire):
    """Body of a chat completion."""

    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None


class _Embedding(Wire):
    index: int
    embedding: list[float]


class Embeddings(Wire):
    """Body of an answer with embeddings."""

    data: list[_Embedding]
    usage: Any = None


class _Image(Wire):
    url: str | None = None
    b64_json: str | None = None


class Images(Wire):
    """Body of an answer with images."""

    data: list[_Image] = Field(min_length=1)
    usage: Any = None
