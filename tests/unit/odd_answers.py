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


def error(message: str = "x", **fields: Any) -> dict[str, Any]:
    """Return an error as OpenAI and those compatible with it send it."""
    return {"error": {"message": message, **fields}}


def claude(kind: str, message: str = "x") -> dict[str, Any]:
    """Return an error as Anthropic sends it."""
    return {"type": "error", "error": {"type": kind, "message": message}}


def quota(quota_id: str, value: str = "5", wait: str | None = None) -> dict[str, Any]:
    """Return a refusal of Gemini's for a quota."""
    base = "type.googleapis.com/google.rpc."
    violation = {"quotaId": quota_id, "quotaValue": value, "quotaMetric": "x/requests"}
    details: list[Any] = [{"@type": base + "QuotaFailure", "violations": [violation]}]
    if wait is not None:
        details.append({"@type": base + "RetryInfo", "retryDelay": wait})
    return {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": details}}


OPENAI_ROWS: Final = [
    answer(OPENAI, 429, error(code="insufficient_quota"), "about the account"),
    answer(OPENAI, 429, error("Limit 30000, Requested 40000", code="x"), "about the request"),
    answer(OPENAI, 400, error(code="billing_hard_limit_reached"), "about the account"),
    answer(OPENAI, 401, error(code="invalid_api_key"), "about the request"),
    answer(OPENAI, 500, error("The model is at capacity", type="server_error"), "overload"),
    answer(OPENAI, 500, error("An error occurred", type="server_error"), "failure, again"),
    answer(OPENAI, 502, "<html>Bad gateway</html>", "failure, again"),
    answer(OPENAI, 400, error("Invalid value: 'rate limit exceeded'", type="x"), "failure"),
    answer(OPENAI, 422, {"detail": [{"msg": "too many requests", "type": "v"}]}, "failure"),
    answer(OPENAI, 429, "", "overload, 7 s", retry_after="5, 7"),
    answer(OPENAI, 200, {"status": "failed", "error": {"code": "server_error"}}, "failure, again"),
    answer(OPENAI, 200, error(None, code=None), "good"),
    answer(OPENAI, 200, {"someException": None, "usage": {"prompt_tokens": 5}}, "good, used 5+0"),
    stream(OPENAI, {"type": "error", "code": "server_is_overloaded"}, says="overload"),
    stream(OPENAI, {"type": "error", "error": {"code": "context_length_exceeded"}},
           says="about the request"),
    stream(OPENAI, {"type": "response.failed", "response": {"error": {"code": "slow_down"}}},
           says="overload"),
    stream(OPENAI, 'data: {"error":\ndata:  {"code": "server_is_overloaded"}}\n\n',
           says="overload"),
    stream(OPENAI, {"error": {"code": 503, "type": "ServiceUnavailableError"}}, says="overload"),
]  # fmt: skip
_TOO_LITTLE: Final = "Your credit balance is too low to access the Anthropic API."
_USED_UP: Final = "You will regain access on 2025-12-01 at 00:00 UTC."
ANTHROPIC_ROWS: Final = [
    answer(ANTHROPIC, 529, claude("overloaded_error"), "overload"),
    answer(ANTHROPIC, 400, claude("invalid_request_error", _TOO_LITTLE), "about the account"),
    answer(ANTHROPIC, 400, claude("invalid_request_error", _USED_UP),
           "quota of some kind, 47200 s"),
    answer(ANTHROPIC, 400, claude("invalid_request_error", "prompt is too long: 3 > 2 maximum"),
           "about the request"),
    answer(ANTHROPIC, 429,
           claude("rate_limit_error", "Extra usage is required for long context requests."),
           "about the request"),
    answer(ANTHROPIC, 429,
           claude("rate_limit_error", "Number of concurrent connections has exceeded"),
           "overload, requests_at_once"),
    answer(ANTHROPIC, 429, claude("rate_limit_error"), "quota input_tokens_per_minute, 12 s",
           retry_after="12", anthropic_ratelimit_input_tokens_remaining="0"),
    answer(ANTHROPIC, 413, "<html>Request Entity Too Large</html>", "about the request"),
    stream(ANTHROPIC, "event: error\n", claude("rate_limit_error"), says="overload"),
    stream(ANTHROPIC, "event: error\n", claude("invalid_request_error"),
           says="about the request"),
    stream(ANTHROPIC, "event: error\n", claude("api_error"), says="failure, again"),
]  # fmt: skip
MODELS_AZURE: Final = "models.inference.ai.azure.com"
AZURE_ROWS: Final = [
    answer(AZURE, 429, error("Requests have exceeded token rate limit.", code="429"),
           "quota tokens_per_minute, 6.5 s", retry_after="7", retry_after_ms="6500"),
    answer(AZURE, 429, error("Your request exceeds the maximum usage size", code="NoCapacity"),
           "overload"),
    answer(AZURE, 429, error(code="EngineOverloaded"), "overload"),
    answer(MODELS_AZURE, 429,
           error("Rate limit of 150 per 86400s exceeded for UserByModelByDay."),
           "quota calls_per_day, 37554 s", retry_after="37554"),
    answer(MODELS_AZURE, 429, error("Rate limit of 0 per 60s exceeded for UserByModel."),
           "about the account"),
    answer("y.azure-api.net", 403,
           {"statusCode": 403,
            "message": "Out of call volume quota. Quota will be replenished in 00:12:34."},
           "quota of some kind, 754 s"),
    answer("y.azure-api.net", 403, {"message": "Quota will be replenished in 12.23:45:12."},
           "quota of some kind, 1.12231e+06 s"),
    answer("y.azure-api.net", 429, {"message": "Rate limit is exceeded. Try again in 5 seconds."},
           "overload, 5 s"),
    answer(AZURE, 400, error(code="content_filter"), "about the request"),
    answer(AZURE, 401, {"statusCode": 401, "message": "Access denied"}, "failure"),
    stream(AZURE, {"choices": []}, error("Please retry after 9 seconds.", code="429"),
           says="overload, 9 s"),
]  # fmt: skip
GOOGLE_ROWS: Final = [
    *GOOGLE,
    answer(GEMINI, 429, quota("GenerateRequestsPerMinutePerProjectPerModel", wait="38s"),
           "quota requests_per_minute, 38 s"),
    answer(GEMINI, 429, quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", wait="38s"),
           "quota requests_per_day, 76000 s"),
    answer(GEMINI, 429, quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", value="0"),
           "about the account"),
    answer(GEMINI, 429, [quota("GenerateContentInputTokensPerModelPerMinute")],
           "quota input_tokens_per_minute"),
    answer(GEMINI, 429, error("Your prepayment credits are depleted.", status="RESOURCE_EXHAUSTED"),
           "about the account"),
    answer(GEMINI, 402, error(status="RESOURCE_EXHAUSTED"), "about the account"),
    answer(GEMINI, 504, error(status="DEADLINE_EXCEEDED"), "failure, again"),
    answer(VERTEX, 429, info(429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED",
                             quota_limit="InputTokensPerMinutePerProject", quota_limit_value="0"),
           "about the account"),
    answer(VERTEX, 529, claude("overloaded_error"), "overload"),
    answer(
        GEMINI,
        200,
        {
            "status": "completed",
            "usage": {
                "total_input_tokens": 5,
                "total_output_tokens": 2,
                "total_thought_tokens": 1,
            },
        },
        "good, used 5+3",
    ),
    answer(GEMINI, 200, {"status": "failed", "errors": [{"code": "unavailable"}]}, "overload"),
    stream(
        GEMINI,
        {
            "event_type": "interaction.completed",
            "interaction": {"usage": {"total_input_tokens": 5, "total_output_tokens": 3}},
        },
        says="good, used 5+3",
    ),
    stream(GEMINI, {"event_type": "error", "error": {"code": "unavailable"}}, says="overload"),
    stream(GEMINI, {"usageMetadata": {"promptTokenCount": 5}}, error(code=503),
           says="overload, used 5+0"),
    Odd(GEMINI, 200, '[{"candidates":[]}\n,{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}]',
        "overload", JSON),
]  # fmt: skip


def amazon(status: int, kind: str, message: str, says: str) -> Odd:
    """Make a row of Bedrock's, whose error is named by a header."""
    return answer(BEDROCK, status, {"message": message}, says, x_amzn_errortype=kind)


BEDROCK_ROWS: Final = [
    amazon(429, "ThrottlingException:http://internal.amazon.com/", "Too many connections",
           "overload"),
    amazon(429, "ThrottlingException", "Too many tokens per day, please wait",
           "quota tokens_per_day, 3600 s"),
    amazon(429, "ModelNotReadyException", "x", "overload"),
    amazon(503, "ServiceUnavailableException", "x", "overload"),
    amazon(500, "InternalServerException", "x", "failure, again"),
    amazon(400, "ServiceQuotaExceededException", "x", "about the account"),
    amazon(400, "ValidationException", "Malformed: 'what is a rate limit'", "about the request"),
    amazon(400, "ValidationException", "Input is too long for requested model.",
           "about the request"),
    answer(BEDROCK, 400, {"__type": "com.amazon.coral.availability#ThrottlingException"},
           "overload"),
    answer(BEDROCK, 200, {"throttlingException": {"message": "slow"}}, "overload"),
    answer(BEDROCK, 200, {"throttlingException": None, "usage": {"inputTokens": 5}},
           "good, used 5+0"),
]  # fmt: skip
MISTRAL: Final = "api.mistral.ai"
COHERE: Final = "api.cohere.com"
GROQ: Final = "api.groq.com"
TOGETHER: Final = "api.together.xyz"
OPENROUTER: Final = "openrouter.ai"
DEEPSEEK: Final = "api.deepseek.com"
SERVER: Final = "gpu-7:8000"
_CAPACITY: Final = {"object": "error", "type": "service_tier_capacity_exceeded", "code": "3505"}
_TRIAL: Final = "You are using a Trial key, which is limited to 1000 API calls / month."
OTHER_ROWS: Final = [
    answer(SERVER, 503, {"error": "Model x is loading", "estimated_time": 20.0}, "overload, 20 s"),
    answer(SERVER, 429, error(retry_after=12), "overload, 12 s"),
    answer(SERVER, 429, {"error": "Too many requests", "retryAfter": 12}, "overload, 12 s"),
    stream(SERVER, '\ufeffdata: {"error": {"code": "slow_down"}}\n\n', says="overload"),
    answer(MISTRAL, 429, _CAPACITY, "overload"),
    stream(MISTRAL, _CAPACITY, says="overload"),
    answer(MISTRAL, 429, {"type": "rate_limited", "code": "1300"},
           "quota tokens_per_minute", x_ratelimit_limit_tokens_minute="500",
           x_ratelimit_remaining_tokens_minute="0", x_ratelimit_remaining_req_minute="7",
           x_ratelimit_tokens_query_cost="52"),
    answer(MISTRAL, 429, {"message": "x"}, "quota calls_per_month, 3600 s",
           x_ratelimitbysize_limit_month="1000", x_ratelimitbysize_remaining_month="0"),
    answer(MISTRAL, 402, {"detail": "Payment required"}, "about the account"),
    answer(MISTRAL, 503, "upstream connect error", "overload"),
    answer(COHERE, 429, {"message": _TRIAL}, "quota requests_per_month, 3600 s"),
    answer(COHERE, 498, {"message": "invalid token"}, "failure"),
    answer(COHERE, 402, {"message": "Please add a payment method"}, "about the account"),
    answer(COHERE, 200, {"finish_reason": "TIMEOUT"}, "failure, again"),
    stream(COHERE, {"type": "message-end",
                    "delta": {"finish_reason": "ERROR", "error": "model is overloaded"}},
           says="overload"),
    Odd(COHERE, 200, '{"event_type":"stream-end","finish_reason":"ERROR"}\n', "failure, again",
        {"content-type": "application/stream+json"}),
    answer(GROQ, 498, "", "overload"),
    answer(GROQ, 498, error(type="invalid_request_error", code="capacity_exceeded"), "overload"),
    answer(GROQ, 429, error("on tokens per day (TPD): Limit 100000, Used 99950, Requested 200."),
           "quota tokens_per_day, 130 s", retry_after="130"),
    stream(GROQ, {"x_groq": {"error": "Over capacity, try again"}}, says="overload"),
    stream(GROQ, "event: error\n", error("Over capacity", code="over_capacity"), says="overload"),
    answer(TOGETHER, 402, error(type="credit_limit"), "about the account"),
    answer(TOGETHER, 429, error(code="dynamic_request_limited"), "quota calls_per_minute, 3 s",
           x_ratelimit_limit="10", x_ratelimit_remaining="0", x_ratelimit_reset="3"),
    answer(TOGETHER, 503, error(code="503", type="service_unavailable"), "overload"),
    answer(OPENROUTER, 402, error(metadata={"error_type": "in_flight_budget_exhausted"}),
           "overload, 4 s", retry_after="4"),
    answer(OPENROUTER, 402, error(metadata={"error_type": "payment_required"}),
           "about the account"),
    answer(OPENROUTER, 403, error(code=403, metadata={
        "limit_source": "openrouter_workspace_budget", "resets_at": "2025-12-01T00:00:00Z"}),
        "quota calls_per_day, 47200 s"),
    answer(OPENROUTER, 403, error("flagged", code=403), "about the request"),
    answer(OPENROUTER, 200, error(code=429), "overload"),
    stream(OPENROUTER, ": OPENROUTER PROCESSING\n\n",
           {"choices": [{"finish_reason": "error", "error": {"code": 502}}]},
           says="failure, again"),
    answer(DEEPSEEK, 402, error("Insufficient Balance", code="invalid_request_error"),
           "about the account"),
    answer(DEEPSEEK, 200, '\n\n\n{"usage":{"prompt_tokens":5,"completion_tokens":3}}',
           "good, used 5+3"),
    stream(DEEPSEEK, ": keep-alive\n\n",
           {"choices": [{"finish_reason": "insufficient_system_resource"}]}, says="overload"),
    answer(SERVER, 429, {"error": "Model is overloaded", "error_type": "overloaded"}, "overload"),
    answer(SERVER, 422, {"error": "Input validation error", "error_type": "validation"},
           "about the request"),
    answer(SERVER, 400, {"object": "error", "type": "BadRequestError", "code": 400},
           "about the request"),
    stream(SERVER, {"object": "error", "type": "InternalServerError", "code": 500},
           says="failure, again"),
    answer("localhost:11434", 503, {"error": "server busy, please try again."}, "overload"),
    Odd("localhost:11434", 200, '{"done":false}\n{"error":"CUDA error"}\n', "failure, again",
        {"content-type": "application/x-ndjson"}),
]  # fmt: skip

ODD: Final = [
    *OPENAI_ROWS,
    *ANTHROPIC_ROWS,
    *AZURE_ROWS,
    *GOOGLE_ROWS,
    *BEDROCK_ROWS,
    *OTHER_ROWS,
]
