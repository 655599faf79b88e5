"""Overload events of providers within a stream that began well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from forebay.mock_provider.responses import encode

_MESSAGE: Final = "The server is overloaded; try again later."


def _data(document: Mapping[str, Any], event: str = "") -> bytes:
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + encode(document) + b"\n\n"


_OPENAI: Final = _data(
    {"error": {"message": _MESSAGE, "type": "server_error", "code": "server_is_overloaded"}}
)
_GEMINI: Final = _data({"error": {"code": 503, "message": _MESSAGE, "status": "UNAVAILABLE"}})
_CHOICE: Final = {"index": 0, "delta": {"content": ""}}

OVERLOADS: Final[Mapping[str, bytes]] = {
    "openai": _OPENAI,
    "azure": _OPENAI,
    "anthropic": _data(
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "error"
    ),
    "vertex": _GEMINI,
    "gemini": _GEMINI,
    "mistral": _data(
        {
            "object": "error",
            "message": "Service tier capacity exceeded for this model.",
            "type": "service_tier_capacity_exceeded",
            "code": "3505",
        }
    ),
    "cohere": _data(
        {"type": "message-end", "delta": {"error": _MESSAGE, "finish_reason": "ERROR"}},
        "message-end",
    ),
    "groq": _data({"error": {"message": _MESSAGE, "code": "capacity_exceeded"}}, "error"),
    "together": _data({"error": {"message": _MESSAGE, "type": "service_unavailable"}}),
    "openrouter": _data(
        {
            "id": "gen-1",
            "error": {"code": 503, "message": _MESSAGE},
            "choices": [{**_CHOICE, "finish_reason": "error"}],
        }
    ),
    "deepseek": _data({"choices": [{**_CHOICE, "finish_reason": "insufficient_system_resource"}]}),
    "vllm": _data({"object": "error", "message": _MESSAGE, "type": "overloaded", "code": 503}),
    "tgi": _data({"error": "Model is overloaded", "error_type": "overloaded"}),
}
"""The event, by dialect; the calls of the others do not stream here."""
