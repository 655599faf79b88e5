from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.requests import MAX_COST
from forebay.workers.providers import token_estimate
from forebay.workers.providers.token_estimate import (
    MOST_ENCODED_CHARACTERS,
    CharacterEstimator,
    TiktokenEstimator,
    best_estimator,
)

DATA = b"tokens of a test"
URL = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
KEY = hashlib.sha1(URL.encode(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({}, 0),
        ({"prompt": "x" * 40}, 10),
        ({"prompt": "x" * 41}, 11),
        ({"prompt": ["x" * 2, "y" * 2]}, 1),
        ({"messages": [{"role": "user", "content": "x" * 40}]}, 14),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 5),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 8}]}]}, 6),
        (
            {
                "system": [{"type": "text", "text": "x" * 8}],
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image", "source": {"type": "base64", "data": "x" * 9999}},
                            {"type": "image_url", "image_url": {"url": "x" * 9999}},
                            {"type": "tool_result", "content": [{"type": "text", "text": "y" * 8}]},
                        ],
                    }
                ],
            },
            8 + 1_446 + 1_229,
        ),
        (
            {
                "messages": [],
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "find",
                            "description": "x" * 40,
                            "parameters": {"properties": {"q": {"description": "y" * 36}}},
                        },
                    }
                ],
            },
            20,
        ),
        (
            {
                "input": [
                    {"type": "function_call_output", "call_id": "c", "output": "x" * 39},
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_image", "image_url": "data:" + "x" * 9999},
                            {"type": "input_image", "detail": "low", "image_url": "x" * 9999},
                            {"type": "input_audio", "input_audio": {"data": "x" * 2_000}},
                            {"type": "input_file", "file_data": "data:" + "x" * 1_995},
                        ],
                    },
                ],
                "text": {"format": {"type": "json_schema", "schema": {"description": "z" * 40}}},
            },
            20 + 4 + 1_229 + 85 + 2 + 31,
        ),
        (
            {
                "systemInstruction": {"parts": [{"text": "x" * 40}]},
                "contents": [
                    {"role": "user", "parts": [{"text": "y" * 40}, {"inlineData": {"data": "z"}}]}
                ],
                "generationConfig": {"maxOutputTokens": 100, "candidateCount": 2},
            },
            20 + 4 + 1_090 + 200,
        ),
        (
            {
                "system": [{"text": "x" * 40}],
                "messages": [{"role": "user", "content": [{"text": "y" * 40}]}],
                "toolConfig": {"tools": [{"toolSpec": {"name": "z" * 40}}]},
                "inferenceConfig": {"maxTokens": 100},
            },
            30 + 4 + 100,
        ),
        ({"inputs": "x" * 40, "parameters": {"max_new_tokens": 30}}, 40),
        ({"prompt": "x" * 40, "options": {"num_predict": 30}}, 40),
        ({"message": "x" * 40, "chat_history": [{"role": "USER", "message": "y" * 40}]}, 24),
        ({"input": ["x" * 40, "y" * 40]}, 20),
        ({"input": [1, 2, 3]}, 3),
        ({"input": [[1, 2], [3]]}, 3),
        ({"instructions": "x" * 4, "input": [{"role": "user", "content": "y" * 4}]}, 6),
        ({"prompt": "x" * 4, "max_tokens": 7}, 8),
        ({"prompt": "x" * 4, "max_completion_tokens": 5, "max_tokens": 7}, 6),
        ({"prompt": "x" * 4, "max_output_tokens": 7, "n": 3}, 22),
        ({"prompt": "x" * 4, "max_tokens": None, "n": 3}, 1),
        ({"prompt": "x" * 4, "max_tokens": -7}, 1),
        ({"prompt": "x" * 4, "max_tokens": True, "n": "3"}, 1),
        ({"prompt": "", "max_tokens": 10**30}, MAX_COST),
    ],
)
def test_characters_messages_and_the_outputs_bound_are_counted(
    body: dict[str, Any], tokens: int
) -> None:
    assert CharacterEstimator().estimate(body) == tokens


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("content"), inner),
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.sampled_from(["messages", "input", "max_tokens", "n"]), JSON_VALUES))
def test_no_body_makes_it_raise(body: dict[str, Any]) -> None:
    assert 0 <= CharacterEstimator().estimate(body) <= MAX_COST


def test_a_deep_body_is_read_without_recursion() -> None:
    content: Any = "x" * 4
    for _ in range(100_000):
        content = [content]
    assert CharacterEstimator().estimate({"input": content}) == 1
    # Taken apart here, since ending it at once would recurse.
    while isinstance(content, list):
        content = content.pop()


@pytest.fixture
def tiktoken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A tiktoken with one token per word, and its data in the cache that is returned."""
    encoding = SimpleNamespace(encode_ordinary=str.split)
    module = SimpleNamespace(get_encoding=lambda _: encoding)
    monkeypatch.setitem(sys.modules, "tiktoken", module)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    blob = token_estimate._Blob("o200k_base.tiktoken", hashlib.sha256(DATA).hexdigest())
    monkeypatch.setitem(token_estimate._BLOBS, "o200k_base", blob)
    (tmp_path / KEY).write_bytes(DATA)
    return tmp_path


@pytest.mark.usefixtures("tiktoken")
def test_tiktoken_counts_the_texts() -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a b c"}]
    assert TiktokenEstimator().estimate({"messages": messages, "max_tokens": 10}) == 5 + 8 + 10
    assert isinstance(best_estimator(), TiktokenEstimator)


@pytest.mark.usefixtures("tiktoken")
def test_the_rest_of_a_very_long_text_is_taken_to_be_like_its_beginning() -> None:
    text = "ab " * MOST_ENCODED_CHARACTERS
    estimate = TiktokenEstimator().estimate({"prompt": text})
    assert estimate == pytest.approx(MOST_ENCODED_CHARACTERS, rel=0.001)


@pytest.mark.parametrize("data", [None, b"broken"])
def test_data_that_is_not_there_or_broken_is_not_fetched(
    tiktoken: Path, data: bytes | None
) -> None:
    sys.modules["tiktoken"].get_encoding = None
    (tiktoken / KEY).unlink()
    if data is not None:
        (tiktoken / KEY).write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"o200k_base .* set TIKTOKEN_CACHE_DIR"):
        TiktokenEstimator()
    assert isinstance(best_estimator(), CharacterEstimator)


def test_a_tiktoken_without_a_cache_is_refused(
    tiktoken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiktoken)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    with pytest.raises(ConfigurationError, match="TIKTOKEN_CACHE_DIR"):
        TiktokenEstimator()


def test_the_other_places_of_tiktokens_cache_are_known(
    tiktoken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", str(tiktoken))
    assert TiktokenEstimator().estimate({"prompt": "a b"}) == 2
    monkeypatch.delenv("DATA_GYM_CACHE_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tiktoken))
    tiktoken.joinpath("data-gym-cache").mkdir()
    tiktoken.joinpath(KEY).rename(tiktoken / "data-gym-cache" / KEY)
    assert TiktokenEstimator().estimate({"prompt": "a b"}) == 2


def test_without_tiktoken_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(ConfigurationError, match=r"run pip install '\.\[tiktoken\]' in "):
        TiktokenEstimator()


def test_an_unknown_encoding_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"'gpt-9' .* o200k_base"):
        TiktokenEstimator("gpt-9")
