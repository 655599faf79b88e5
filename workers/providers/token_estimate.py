"""Estimates the tokens of a request (design 03, *Quotas*).

An estimate only has to be near: the real usage settles it when the lease comes back.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from forebay.contracts.checks import check_methods, shown
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import how_to_install
from forebay.contracts.requests import MAX_COST
from forebay.workers.providers.facts import Part
from forebay.workers.providers.registry import GENERIC

CHARACTERS_PER_TOKEN: Final = 4
TOKENS_PER_MESSAGE: Final = 4
"""Tokens of a message besides its text."""
MOST_ENCODED_CHARACTERS: Final = 100_000
"""Most characters of a text that are encoded, some 10 ms; the rest is extrapolated."""

DEFAULT_ENCODING: Final = "o200k_base"


def _paths(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(name.split(".")) for name in names)


_PARTS: Final = {part.named: part for part in GENERIC.body.parts}
_FIELDS: Final = {
    first: tuple(path for path in _paths(GENERIC.body.prompts) if path[0] == first)
    for first, *_ in _paths(GENERIC.body.prompts)
}
"""The paths of a body's fields that a model reads, by their first field."""
_BOUNDS: Final = _paths(GENERIC.body.bounds)
_ANSWERS: Final = _paths(GENERIC.body.answers)
_NOT_READ: Final = frozenset({"type", "role", "id", "tool_call_id", "tool_use_id", "cache_control"})
"""Fields whose texts are not the model's to read, or cost next to nothing."""
_LOW_DETAIL_TOKENS: Final = 85
_HELD: Final = frozenset(name for name in _PARTS if name.lower().endswith("data"))
"""Parts that are known by the field that holds them, as Gemini names them."""


class TokenEstimator(Protocol):
    """Estimates how many tokens a request draws from the quotas."""

    def estimate(self, body: Mapping[str, Any]) -> int:
        """Return input tokens and the output's bound of a request's JSON body; never raises."""
        ...


def check_estimator(value: object) -> None:
    """Raise unless a value is a `TokenEstimator`.

    Raises:
        ConfigurationError: such as a class.
    """
    remedy = "pass one, such as forebay.best_estimator()"
    check_methods("estimator", value, ("estimate",), remedy)


class CharacterEstimator:
    """A token for each four characters, some for each message, and the bound of the output.

    Reads what the profiles say that models read: messages and earlier turns, the system's text,
    tools and the schema of an answer. Images, sounds and files count as the profiles say; token
    numbers, as embeddings take, count one each.

    Example:
        >>> body = {"messages": [{"role": "user", "content": "a" * 400}], "max_tokens": 50}
        >>> 150 <= forebay.CharacterEstimator().estimate(body) <= 160
        True
    """

    def estimate(self, body: Mapping[str, Any]) -> int:
        """Return the estimate: `TokenEstimator.estimate`."""
        prompt = _read(body)
        characters = sum(map(len, prompt.texts))
        return _total(body, prompt, math.ceil(characters / CHARACTERS_PER_TOKEN))


class TiktokenEstimator:
    """As `CharacterEstimator`, its texts counted by OpenAI's tokenizer.

    Takes the tokenizer's data from tiktoken's own cache and never from the network, on which no
    worker's start should depend.

    Args:
        encoding: a tiktoken encoding, such as ``o200k_base`` (GPT-4o and later).

    Raises:
        ConfigurationError: tiktoken is not installed, the encoding is unknown, or its data is not
            there.
    """

    def __init__(self, encoding: str = DEFAULT_ENCODING) -> None:
        self._encoding = _encoding(encoding)

    def estimate(self, body: Mapping[str, Any]) -> int:
        """Return the estimate: `TokenEstimator.estimate`."""
        prompt = _read(body)
        text = "\n".join(prompt.texts)
        tokens = len(self._encoding.encode_ordinary(text[:MOST_ENCODED_CHARACTERS]))
        if len(text) > MOST_ENCODED_CHARACTERS:
            tokens = math.ceil(tokens * len(text) / MOST_ENCODED_CHARACTERS)
        return _total(body, prompt, tokens)


def best_estimator() -> TokenEstimator:
    """Return a `TiktokenEstimator` where tiktoken and its data are there, else characters.

    Returns:
        The estimator, with ``o200k_base`` where it is tiktoken's. Never raises.

    Example:
        >>> forebay.best_estimator().estimate({"prompt": "a word", "max_tokens": 50}) > 50
        True
    """
    try:
        return TiktokenEstimator()
    except ConfigurationError:
        return CharacterEstimator()


class _Prompt(NamedTuple):
    texts: list[str]
    messages: int
    other_tokens: int


def output_bound(body: Mapping[str, Any]) -> int:
    """Return the bound of a request's output tokens, 0 where it states none."""
    return min(_first_of(body, _BOUNDS, 0) * _first_of(body, _ANSWERS, 1), MAX_COST)


def _first_of(body: Mapping[str, Any], paths: tuple[tuple[str, ...], ...], default: int) -> int:
    for path in paths:
        if path[0] in body and (found := _positive(_at(body, path))):
            return found
    return default


def _read(body: Mapping[str, Any]) -> _Prompt:
    """Collect what a model will read; without recursion, for bodies come from anywhere."""
    texts: list[str] = []
    messages = 0
    other_tokens = 0.0
    open_values = [_at(body, path) for name in body for path in _FIELDS.get(name, ())]
    while open_values:
        value = open_values.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, Mapping):
            messages += "role" in value
            part = _part_of(value)
            if part is not None:
                other_tokens += _tokens_of(part, value)
            else:
                for name, inner in value.items():
                    if name not in _NOT_READ:
                        open_values.append(inner)
        elif isinstance(value, list | tuple):
            open_values += value
        elif type(value) is int:
            other_tokens += 1
    return _Prompt(texts, messages, math.ceil(other_tokens))


def _part_of(value: Mapping[Any, Any]) -> Part | None:
    """Return the kind of part that an object is, None for one of texts."""
    kind = value.get("type")
    part = _PARTS.get(kind) if isinstance(kind, str) else None
    if part is not None or _HELD.isdisjoint(value):
        return part
    return next(_PARTS[name] for name in _HELD if name in value)


def _tokens_of(part: Part, value: Mapping[Any, Any]) -> float:
    """Return the tokens of a part: per piece, and by the length of its data."""
    if part.tokens and "low" in _details(value):
        return _LOW_DETAIL_TOKENS
    if not part.per_kilobyte:
        return part.tokens
    length, open_values = 0, list(value.values())
    while open_values:
        inner = open_values.pop()
        if isinstance(inner, str):
            length += len(inner)
        elif isinstance(inner, Mapping):
            open_values += inner.values()
        elif isinstance(inner, list | tuple):
            open_values += inner
    return part.tokens + part.per_kilobyte * length / 1000


def _details(value: Mapping[Any, Any]) -> tuple[Any, ...]:
    image = value.get("image_url")
    return (value.get("detail"), image.get("detail") if isinstance(image, Mapping) else None)


def _at(body: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = body
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _total(body: Mapping[str, Any], prompt: _Prompt, text_tokens: int) -> int:
    input_tokens = text_tokens + prompt.other_tokens + TOKENS_PER_MESSAGE * prompt.messages
    return min(input_tokens + output_bound(body), MAX_COST)


def _positive(value: object) -> int:
    return value if type(value) is int and value > 0 else 0


class _Blob(NamedTuple):
    """A tokenizer's data as tiktoken names and checks it; on a mismatch it would fetch anew."""

    file: str
    sha256: str


_CL100K = _Blob(
    "cl100k_base.tiktoken", "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
)
_O200K = _Blob(
    "o200k_base.tiktoken", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
)
_BLOBS: Final = {"cl100k_base": _CL100K, "o200k_base": _O200K, "o200k_harmony": _O200K}
_BLOBS_URL = "https://openaipublic.blob.core.windows.net/encodings/"


def _encoding(name: str) -> Any:
    if name not in _BLOBS:
        raise ConfigurationError(
            f"tiktoken encoding {shown(name)} is not known here, expected one of:"
            f" {', '.join(_BLOBS)}; choose one of them, or write a TokenEstimator of your own."
        )
    try:
        tiktoken = importlib.import_module("tiktoken")
    except ImportError as error:
        raise ConfigurationError(
            "estimating tokens with tiktoken expects it to be installed, and it is not; run"
            f" {how_to_install('tiktoken')}, or use CharacterEstimator."
        ) from error
    path = _cached_file(_BLOBS[name])
    if path is None:
        raise ConfigurationError(
            f"tiktoken encoding {name} expects its data in tiktoken's cache, and it is not there or"
            f" broken; set TIKTOKEN_CACHE_DIR to a directory that is kept, and once, where there is"
            f" a network, run python -c \"import tiktoken; tiktoken.get_encoding('{name}')\"."
        )
    return tiktoken.get_encoding(name)


def _cached_file(blob: _Blob) -> Path | None:
    """Return the file from which tiktoken would load, None where it would ask the network."""
    environ = os.environ
    folder = environ.get("TIKTOKEN_CACHE_DIR", environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        folder = str(Path(tempfile.gettempdir()) / "data-gym-cache")
    if not folder:  # tiktoken's word for "no cache"
        return None
    key = hashlib.sha1((_BLOBS_URL + blob.file).encode(), usedforsecurity=False).hexdigest()
    path = Path(folder) / key
    try:
        is_whole = hashlib.sha256(path.read_bytes()).hexdigest() == blob.sha256
    except OSError:
        return None
    return path if is_whole else None
