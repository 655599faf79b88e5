from __future__ import annotations

import json

import pytest

from forebay.contracts.outcomes import TokenUsage
from forebay.workers.providers.faults import fault_in_body

USED = TokenUsage(input_tokens=25, output_tokens=15)
SECRET = "the prompt and sk-secret"


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
    assert fault_in_body(json.dumps(body).encode()).code == code


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff\xfe", b"[" * 60_000, b'{"error": {"code": "' + b"x" * 70_000]
)
def test_a_body_that_is_no_json_has_no_code(body: bytes) -> None:
    assert fault_in_body(body).code is None
