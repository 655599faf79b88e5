"""Reads the token usage of an answer (design 03, *Quotas*)."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from forebay.contracts.outcomes import TokenUsage
from forebay.workers.providers.token_usage import (
    LONGEST_USAGE,
    MOST_TOKENS,
    NO_COUNTS,
    Counts,
    counts_within,
    token_usage,
)

USED = TokenUsage(input_tokens=25, output_tokens=15)
SAID = {"input_tokens": 25, "output_tokens": 15}


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 25, "completion_tokens": 15, "total_tokens": 40}, USED),
        ({"input_tokens": 25, "output_tokens": 15}, USED),
        ({"input_tokens": 20, "cache_creation_input_tokens": 5, "output_tokens": 15}, USED),
        ({"prompt_tokens": 25}, TokenUsage(input_tokens=25)),
        ({"prompt_tokens": -1, "completion_tokens": True}, None),
        ({"prompt_tokens": 7, "completion_tokens": "3"}, TokenUsage(input_tokens=7)),
        ({"prompt_tokens": 7, "completion_tokens": MOST_TOKENS + 1}, None),
        ({"prompt_tokens": 10**30, "completion_tokens": 3}, None),
        ({"input_tokens": MOST_TOKENS, "cache_creation_input_tokens": 1}, None),
        (
            {"prompt_tokens": MOST_TOKENS, "completion_tokens": 1},
            TokenUsage(input_tokens=MOST_TOKENS, output_tokens=1),
        ),
        ({"prompt_tokens": None}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_a_bodys_usage_is_read_and_none_is_invented(
    usage: object, counted: TokenUsage | None
) -> None:
    assert token_usage(usage) == counted


def test_an_sdks_usage_is_read() -> None:
    assert token_usage(SimpleNamespace(prompt_tokens=25, completion_tokens=15)) == USED
    assert token_usage(USED) is USED
    assert token_usage(object()) is None


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        (json.dumps({"data": [], "usage": SAID}), Counts(25, 15)),
        ('1]], "usage" : {"prompt_tokens": 3}, "x": [1,', Counts(3)),
        (json.dumps({"usage": {"prompt_tokens": 1}, "more": {"usage": SAID}}), Counts(25, 15)),
        (
            json.dumps({"usage": {**SAID, "parts": [{"usage": {"input_tokens": 1}}]}}),
            Counts(25, 15),
        ),
        (
            json.dumps({"usage": {"input_tokens": 1}, "text": json.dumps({"usage": SAID})}),
            Counts(1),
        ),
        (json.dumps({"usage": SAID, "metadata": {"usage": {}}}), Counts(25, 15)),
        (json.dumps({"usage": SAID, "metadata": {"usage": "much"}}), Counts(25, 15)),
        (json.dumps({"usage": SAID})[:-3], NO_COUNTS),
        (json.dumps({"usage": {"x": " " * LONGEST_USAGE, **SAID}}), NO_COUNTS),
        ('{"usage":' * 100_000, NO_COUNTS),
        ("", NO_COUNTS),
    ],
)
def test_the_last_usage_in_a_part_of_a_document_is_found(text: str, counted: Counts) -> None:
    assert counts_within(text.encode()) == counted
