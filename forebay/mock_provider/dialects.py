"""Refusals in providers' dialects: statuses, headers and bodies as in `workers/providers`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from forebay.mock_provider import responses
from forebay.mock_provider.budget import BudgetLeft
from forebay.mock_provider.responses import Headers, encode
from forebay.mock_provider.state import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The HTTP answer to a refused call.

    Attributes:
        status: HTTP status.
        headers: besides those of the budgets.
        body: JSON.
    """

    status: int
    headers: Headers
    body: bytes


Wording = Callable[[Refusal, Sequence[BudgetLeft]], Refused]
"""Words a refusal in a provider's dialect."""


def _seconds(refusal: Refusal) -> float | None:
    """Return the wait to send as a hint; None where there is none, or no wait would help."""
    seconds = refusal.retry_after_seconds
    return None if seconds is None or math.isinf(seconds) else seconds


def _is_hopeless(refusal: Refusal) -> bool:
    """Whether the request is larger than the limit, so that no waiting helps."""
    return math.isinf(refusal.retry_after_seconds or 0.0)


def _fault(message: str, **fields: Any) -> bytes:
    return encode({"error": {"message": message, **fields}})


def openai(refusal: Refusal, left: Sequence[BudgetLeft]) -> Refused:
    """Word a refusal as OpenAI does: hints in headers, and again in the text."""
    seconds = _seconds(refusal)
    empty = next((budget for budget in left if budget.remaining == 0), None)
    message = refusal.message
    if empty is not None and seconds is not None:
        short = "RPM" if empty.unit == "requests" else "TPM"
        message = (
            f"Rate limit reached on {empty.unit} per min ({short}): Limit {empty.limit}, Used"
            f" {empty.limit}. Please try again in {responses.format_duration(seconds)}."
        )
    body = responses.error_body(message, kind="rate_limit_error", code="rate_limit_exceeded")
    return Refused(status=refusal.status, headers=responses.refusal_headers(refusal), body=body)


def azure(refusal: Refusal, _left: Sequence[BudgetLeft]) -> Refused:
    """Word a refusal as Azure does: the wait in ``x-ms-retry-after-ms`` and in the text."""
    seconds = _seconds(refusal)
    if seconds is None:
        return Refused(status=429, headers=[], body=_fault(refusal.message, code="429"))
    message = (
        "Requests to the ChatCompletions_Create Operation have exceeded call rate limit of your"
        f" current pricing tier. Please retry after {math.ceil(seconds)} seconds."
    )
    headers = [(b"x-ms-retry-after-ms", b"%d" % math.ceil(seconds * 1000))]
    return Refused(status=429, headers=headers, body=_fault(message, code="429"))


def gemini(refusal: Refusal, _left: Sequence[BudgetLeft]) -> Refused:
    """Word a refusal as Google does: the wait in the details of the body."""
    if _is_hopeless(refusal):
        message = "The input token count exceeds the maximum number of tokens allowed."
        return Refused(
            status=400, headers=[], body=_fault(message, code=400, status="INVALID_ARGUMENT")
        )
    violation = {"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}
    details: list[Any] = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}
    ]
    seconds = _seconds(refusal)
    if seconds is not None:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        details.append({"@type": kind, "retryDelay": f"{seconds:.3f}s"})
    body = _fault(refusal.message, code=429, status="RESOURCE_EXHAUSTED", details=details)
    return Refused(status=429, headers=[], body=body)


def bedrock(refusal: Refusal, _left: Sequence[BudgetLeft]) -> Refused:
    """Word a refusal as Bedrock does: a type in a header, and no wait."""
    if _is_hopeless(refusal):
        body = encode({"message": "Input is too long for requested model."})
        headers = [(b"x-amzn-errortype", b"ValidationException")]
        return Refused(status=400, headers=headers, body=body)
    body = encode({"message": "Too many requests, please wait before trying again."})
    headers = [(b"x-amzn-errortype", b"ThrottlingException")]
    return Refused(status=429, headers=headers, body=body)


def cohere(refusal: Refusal, _left: Sequence[BudgetLeft]) -> Refused:
    """Word a refusal as Cohere does: a message alone."""
    if _is_hopeless(refusal):
        return Refused(status=400, headers=[], body=encode({"message": "too many tokens"}))
    message = "You are past the per minute request limit, please wait and try again later."
    return Refused(status=429, headers=[], body=encode({"message": message}))


def openrouter(refusal: Refusal, _left: Sequence[BudgetLeft]) -> Refused:
    """Word a refusal as OpenRouter does: a number as the code, and ``retry-after``."""
    seconds = _seconds(refusal)
    headers = [] if seconds is None else [(b"retry-after", b"%d" % math.ceil(seconds))]
    body = _fault(refusal.message, code=429)
    return Refused(status=429, headers=headers, body=body)


def groq(refusal: Refusal, left: Sequence[BudgetLeft]) -> Refused:
    """Word a refusal as Groq does: ``retry-after`` in seconds."""
    worded = openai(refusal, left)
    headers = [pair for pair in worded.headers if pair[0] != b"retry-after-ms"]
    return Refused(status=429, headers=headers, body=worded.body)


def tgi(refusal: Refusal, _left: Sequence[BudgetLeft]) -> Refused:
    """Word a refusal as Text Generation Inference does."""
    if _is_hopeless(refusal):
        body = encode({"error": "Input validation error", "error_type": "validation"})
        return Refused(status=422, headers=[], body=body)
    body = encode({"error": "Model is overloaded", "error_type": "overloaded"})
    return Refused(status=429, headers=[], body=body)


def ollama(refusal: Refusal, _left: Sequence[BudgetLeft]) -> Refused:
    """Word a refusal as Ollama does: a full queue is a 503."""
    if _is_hopeless(refusal):
        body = encode({"error": "the input length exceeds the context length"})
        return Refused(status=400, headers=[], body=body)
    body = encode({"error": "server busy, please try again.  maximum pending requests exceeded"})
    return Refused(status=503, headers=[], body=body)


def together(refusal: Refusal, left: Sequence[BudgetLeft]) -> Refused:
    """Word a refusal as Together does: limits in ``x-ratelimit-*`` and ``x-tokenlimit-*``."""
    headers: Headers = []
    for budget in left:
        family = "x-ratelimit" if budget.unit == "requests" else "x-tokenlimit"
        told = (("limit", budget.limit), ("remaining", budget.remaining))
        headers += [(f"{family}-{name}".encode(), b"%d" % value) for name, value in told]
        headers.append((f"{family}-reset".encode(), b"%d" % math.ceil(budget.full_in_seconds)))
    body = _fault(refusal.message, code="dynamic_request_limited", type="rate_limit")
    return Refused(status=429, headers=headers, body=body)


WORDINGS: Final[dict[str, Wording]] = {
    "openai": openai,
    "azure": azure,
    "bedrock": bedrock,
    "vertex": gemini,
    "gemini": gemini,
    "mistral": groq,
    "cohere": cohere,
    "groq": groq,
    "together": together,
    "openrouter": openrouter,
    "deepseek": openrouter,
    "vllm": openrouter,
    "tgi": tgi,
    "ollama": ollama,
}
"""Profile name -> wording of its refusals; Anthropic's path has its own."""
