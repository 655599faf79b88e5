from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from contracts.requests import TokenUsage
from workers.answer_bodies import error_code_of, token_usage

USED = TokenUsage(input_tokens=25, output_tokens=15)
SECRET = "the prompt and sk-secret"


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 25, "completion_tokens": 15, "total_tokens": 40}, USED),
        ({"input_tokens": 25, "output_tokens": 15}, USED),
        ({"input_tokens": 20, "cache_creation_input_tokens": 5, "output_tokens": 15}, USED),
        ({"prompt_tokens": 25}, TokenUsage(input_tokens=25)),
        ({"prompt_tokens": -1, "completion_tokens": True}, None),
        ({"prompt_tokens": 10**30, "completion_tokens": "3"}, None),
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
    ("body", "code"),
    [
        ({"error": {"code": "rate_limit_exceeded", "type": "requests"}}, "rate_limit_exceeded"),
        ({"error": {"code": "generic", "type": "insufficient_quota"}}, "insufficient_quota"),
        ({"type": "error", "error": {"type": "overloaded_error"}}, "overloaded_error"),
        ({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, "RESOURCE_EXHAUSTED"),
        ({"code": "top_level"}, "top_level"),
        ({"error": {"code": "a text that quotes the prompt"}}, None),
        ({"error": {"code": "x" * 65}}, None),
        ({"error": SECRET}, None),
        ([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}], "RESOURCE_EXHAUSTED"),
        ({"error": {"code": 429, "message": "no"}}, "429"),
        ({"error": {"code": 7, "message": "no"}}, None),
        ({"error": {"code": True, "message": "no"}}, None),
        ([], None),
        ("text", None),
    ],
)
def test_only_a_short_identifier_is_read_from_a_body(body: object, code: str | None) -> None:
    assert error_code_of(json.dumps(body).encode()) == code


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff\xfe", b"[" * 60_000, b'{"error": {"code": "' + b"x" * 70_000]
)
def test_a_body_that_is_no_json_has_no_code(body: bytes) -> None:
    assert error_code_of(body) is None
