"""The mock provider's answers: pure functions of the seed and the request's content."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from forebay.mock_provider.draws import below, digest_of, pick, stream_of
from forebay.mock_provider.instance import make_instance
from forebay.mock_provider.wire import ChatRequest, EmbeddingRequest, count_tokens

_CHARACTERS_PER_TOKEN = 4
_READ_CHARACTERS = 4_000
_WORD = re.compile(r"[^\W\d_]{4,}")
_WORDS = ("water", "reservoir", "current", "turbine", "channel", "valley", "season", "level")
_SENTENCES = (
    "The {} depends on the {}, while the {} keeps the {} within reach of the {}.",
    "Start with the {}, compare it with the {} and leave the {} for the end.",
    "In short, {} and {} matter more than {}, at least until the {} changes.",
    "A careful reading of the {} shows how the {} follows from the {}.",
    "Most of the {} comes down to the {}; the {} is a matter of taste.",
    "If the {} is clear, the {} needs no further {}, and the {} can wait.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAnswer:
    """The text of a chat answer, and its tokens.

    Attributes:
        digest: stands for seed, model and messages; the answer's id.
        text: the content.
        finish_reason: ``length`` when the request's token bound cut the text.
        prompt_tokens: of the messages.
        completion_tokens: of the text.
    """

    digest: str
    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


def answer_chat(request: ChatRequest, *, seed: int, invalid_json_rate: float) -> ChatAnswer:
    """Answer a chat request: the same for the same seed, model, messages and response format.

    Raises:
        SchemaNotSupportedError: the response format's schema has no instance that could be made.
    """
    identities = (part for m in request.messages for part in (m.role, m.identity()))
    digest = digest_of(seed, request.model, *identities)
    rng = stream_of(digest, "text")
    words = _words_of(request)
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        text = _paragraph(rng, words)
    else:
        if wanted.json_schema is not None:
            instance = make_instance(wanted.json_schema.schema_, rng, words)
        else:
            instance = {"answer": _paragraph(rng, words), "score": 1 + below(rng, 5)}
        text = json.dumps(instance, ensure_ascii=False)
        if stream_of(digest, "invalid_json").random() < invalid_json_rate:
            text = _broken(text)
    finish_reason: Literal["stop", "length"] = "stop"
    bound = request.max_completion_tokens or request.max_tokens
    if bound is not None and count_tokens(text) > bound:
        text, finish_reason = text[: bound * _CHARACTERS_PER_TOKEN], "length"
    return ChatAnswer(
        digest=digest,
        text=text,
        finish_reason=finish_reason,
        prompt_tokens=request.prompt_tokens(),
        completion_tokens=count_tokens(text),
    )


def split_text(text: str, count: int) -> list[str]:
    """Cut a text into at most ``count`` pieces of about the same length, none of them empty."""
    count = max(1, min(count, len(text)))
    borders = [len(text) * index // count for index in range(count + 1)]
    return [text[start:end] for start, end in itertools.pairwise(borders)]


def embed(request: EmbeddingRequest, *, seed: int, dimensions: int) -> list[list[float]]:
    """Return a unit vector for each input; the same input has the same vector in every batch."""
    length = request.dimensions or dimensions
    return [_vector(digest_of(seed, request.model, str(item)), length) for item in request.inputs()]


def digest_embeddings(request: EmbeddingRequest, *, seed: int) -> str:
    """Return a digest of an embeddings request's content."""
    return digest_of(seed, request.model, *map(str, request.inputs()))


def _vector(digest: str, length: int) -> list[float]:
    rng = stream_of(digest, "vector")
    values = [rng.random() - 0.5 for _ in range(length)]
    norm = math.hypot(*values) or 1.0
    return [value / norm for value in values]


def _words_of(request: ChatRequest) -> Sequence[str]:
    """Return the different words at the end of the last message with text, in their order."""
    for message in reversed(request.messages):
        found = _WORD.findall(message.text()[-_READ_CHARACTERS:])
        if found:
            return list(dict.fromkeys(word.lower() for word in found))
    return _WORDS


def _paragraph(rng: random.Random, words: Sequence[str]) -> str:
    # In the prompt's order from some word on, so that a sentence seldom has the same word twice.
    start = below(rng, len(words))
    cycle = itertools.cycle([*words[start:], *words[:start]])
    templates = [pick(rng, _SENTENCES) for _ in range(1 + below(rng, 3))]
    return " ".join(
        template.format(*itertools.islice(cycle, template.count("{}"))) for template in templates
    )


def _broken(text: str) -> str:
    """Make a JSON text one that cannot be parsed: cut in the middle, as by a model that stopped."""
    return text[: max(1, len(text) // 2)] if text[0] in '{["' else text + ","
