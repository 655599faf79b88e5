"""The table of `test_odd_answers`: what each provider sends, as its pages or SDKs tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

SSE: Final = {"content-type": "text/event-stream"}
JSON: Final = {"content-type": "application/json"}
OPENAI: Final = "api.openai.com"
ANTHROPIC: Final = "api.anthropic.com"
GEMINI: Final = "generativelanguage.googleapis.com"
VERTEX: Final = "us-central1-aiplatform.googleapis.com"
BEDROCK: Final = "bedrock-runtime.eu-west-1.amazonaws.com"
AZURE: Final = "x.openai.azure.com"


@dataclass(frozen=True, slots=True)
class Odd:
    """An answer of a host, and in a few words what is to be made of it."""

    host: str
    status: int
    body: Any
    says: str
    headers: Mapping[str, str]


def answer(host: str, status: int, body: Any, says: str, **headers: str) -> Odd:
    """Make a row; a name of a header has ``_`` for ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Odd(host, status, body, says, JSON | named)


def stream(host: str, *events: object, says: str) -> Odd:
    """Make a row of a 200 that streams; an event that is no text is written as JSON."""
    texts = [one if isinstance(one, str) else f"data: {json.dumps(one)}\n\n" for one in events]
    return Odd(host, 200, texts, says, SSE)


def google(code: int, reason: str, **fields: Any) -> dict[str, Any]:
    """Return an error of Google's old form."""
    told = {"domain": "usageLimits", "reason": reason, "message": "x"}
    return {"error": {"code": code, "message": "x", "errors": [told], **fields}}


def info(code: int, status: str, reason: str, **metadata: str) -> dict[str, Any]:
    """Return an error of Google's new form, with an ``ErrorInfo``."""
    kind = "type.googleapis.com/google.rpc.ErrorInfo"
    detail = {"@type": kind, "reason": reason, "domain": "googleapis.com", "metadata": metadata}
    return {"error": {"code": code, "message": "x", "status": status, "details": [detail]}}


GOOGLE: Final = [
    answer(GEMINI, 403, google(403, "rateLimitExceeded"), "overload"),
    answer(
        GEMINI, 403, google(403, "userRateLimitExceeded", status="PERMISSION_DENIED"), "overload"
    ),
    answer(VERTEX, 403, google(403, "rateLimitExceeded"), "overload, 7 s", retry_after="7"),
    answer(GEMINI, 403, google(403, "dailyLimitExceeded"), "quota requests_per_day, 76000 s"),
    answer(GEMINI, 403, google(403, "accessNotConfigured"), "about the account"),
    answer(GEMINI, 403, google(403, "forbidden"), "about the request"),
    answer(GEMINI, 400, info(400, "INVALID_ARGUMENT", "API_KEY_INVALID"), "about the request"),
    answer(GEMINI, 403, info(403, "PERMISSION_DENIED", "SERVICE_DISABLED"), "about the account"),
    answer(VERTEX, 403, info(403, "PERMISSION_DENIED", "RATE_LIMIT_EXCEEDED"), "overload"),
]

ODD: Final = [*GOOGLE]
