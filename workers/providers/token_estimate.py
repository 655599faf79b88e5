"""What a request will cost in tokens, before anybody has counted them (spec 03, *Quotas*).

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

CHARACTERS_PER_TOKEN: Final = 4
TOKENS_PER_MESSAGE: Final = 4
"""What a message costs besides its text: its role and its borders."""
MOST_ENCODED_CHARACTERS: Final = 100_000
"""Of a longer text this much is encoded, some 10 ms, and the rest is taken to be like it."""

DEFAULT_ENCODING: Final = "o200k_base"

_PROMPTS = ("messages", "input", "prompt", "system", "instructions")
_TEXTS = ("content", "text", "arguments", "output")
_OUTPUT_BOUNDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


class TokenEstimator(Protocol):
    """Says about how many tokens a request will draw from the quotas."""

    def estimate(self, body: Mapping[str, Any]) -> int:
        """Return input tokens and the output's bound of a request's JSON body; never raises."""
        ...


def check_estimator(value: object) -> None:
    """Refuse what is no `TokenEstimator`.

    Raises:
        ConfigurationError: such as a class.
    """
    remedy = "pass one, such as forebay.best_estimator()"
    check_methods("estimator", value, ("estimate",), remedy)


class CharacterEstimator:
    """A token for each four characters, some for each message, and the bound of the output.

    Reads ``messages``, ``input``, ``prompt``, ``system`` and ``instructions``; images and sounds in
    them count nothing. Token numbers, as embeddings take, count one each.
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
    """Return a `TiktokenEstimator` where tiktoken and its data are there, else characters."""
    try:
        return TiktokenEstimator()
    except ConfigurationError:
        return CharacterEstimator()


class _Prompt(NamedTuple):
    texts: list[str]
    messages: int
    token_numbers: int


def _read(body: Mapping[str, Any]) -> _Prompt:
    """Collect what a model will read; without recursion, for bodies come from anywhere."""
    texts: list[str] = []
    messages = token_numbers = 0
    open_values = [body.get(name) for name in _PROMPTS]
    while open_values:
        value = open_values.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, Mapping):
            messages += "role" in value
            open_values += [value.get(name) for name in _TEXTS]
        elif isinstance(value, list | tuple):
            open_values += value
        elif type(value) is int:
            token_numbers += 1
    return _Prompt(texts, messages, token_numbers)


def _total(body: Mapping[str, Any], prompt: _Prompt, text_tokens: int) -> int:
    bounds = (_positive(body.get(name)) for name in _OUTPUT_BOUNDS)
    output = next((bound for bound in bounds if bound), 0) * (_positive(body.get("n")) or 1)
    input_tokens = text_tokens + prompt.token_numbers + TOKENS_PER_MESSAGE * prompt.messages
    return min(input_tokens + output, MAX_COST)


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
