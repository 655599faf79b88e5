"""Error responses of the proxy's own, in the shape of the API that was called."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from forebay.contracts.errors import (
    ConfigurationError,
    CoordinatorError,
    CoordinatorFull,
    CoordinatorUnavailable,
    MembershipLost,
)
from forebay.contracts.requests import RequestAdmissionError, RequestDenialReason
from forebay.proxy.headers import Header, own_headers

MOST_HEAD_BYTES: Final = 65_536
"""Largest path, query and headers of a request in all; providers take 8 to 64 kB."""
LONGEST_RETRY_SECONDS: Final = 60
"""SDKs ignore a larger hint, and retry at once."""
AWAY_RETRY_SECONDS: Final = 5
_RETRY_SECONDS: Final = 1

_OPENAI_TYPES: Final = {
    401: "authentication_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}
_CLIENT_ERROR: Final = "invalid_request_error"
_SERVER_ERRORS: Final = {"openai": "server_error", "anthropic": "api_error"}
_FIRST_SERVER_ERROR: Final = 500
_UPSTREAM_MESSAGES: Final = {
    "invalid_path": "the path is no path of a URL; correct it.",
    "upstream_invalid": (
        "{upstream} broke the connection off, or its answer is no HTTP/1.1 or has headers of more"
        " than 100 kB; look at --upstream, or try again."
    ),
    "upstream_timeout": "{upstream} did not answer in time ({kind}); try again.",
    "upstream_unreachable": (
        "{upstream} could not be reached, or broke the connection off ({kind}); look at --upstream"
        " and the network, or try again."
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorResponse:
    """An error that the proxy answers itself, without the provider.

    Attributes:
        status: of HTTP.
        code: a stable snake_case name.
        message: one sentence with a remedy; never a header or a body of the call.
        retry_after_seconds: when to try again; None where another try is of no use.
    """

    status: int
    code: str
    message: str
    retry_after_seconds: int | None = None

    def body(self, *, is_anthropic: bool) -> bytes:
        """Return the body, in Anthropic's shape or in OpenAI's."""
        message = f"forebay proxy: {self.message}"
        api, types = ("anthropic", _ANTHROPIC_TYPES) if is_anthropic else ("openai", _OPENAI_TYPES)
        is_clients = self.status < _FIRST_SERVER_ERROR
        kind = types.get(self.status, _CLIENT_ERROR if is_clients else _SERVER_ERRORS[api])
        if is_anthropic:
            document: dict[str, Any] = {
                "type": "error",
                "error": {"type": kind, "message": message, "code": self.code},
            }
        else:
            document = {
                "error": {"message": message, "type": kind, "param": None, "code": self.code}
            }
        return json.dumps(document).encode()

    def headers(self, body: bytes, own: Mapping[str, str]) -> list[Header]:
        """Return the headers of the answer.

        Args:
            body: what is sent with them.
            own: of the proxy, such as the wait in the queue.
        """
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *own_headers({**own, "refusal": self.code}),
        ]
        if self.retry_after_seconds is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after_seconds))
        return headers


NOT_HTTP: Final = ErrorResponse(
    status=400,
    code="invalid_http",
    message=(
        "what arrived is no HTTP/1.1 request; call http://, not https://, unless TLS is put in"
        " front of the proxy."
    ),
)
NO_FORWARD_PROXY: Final = ErrorResponse(
    status=405,
    code="no_forward_proxy",
    message=(
        "the request names a host of its own, as for HTTP_PROXY or HTTPS_PROXY; set this proxy's"
        " URL as the SDK's base_url instead."
    ),
)
NO_WEBSOCKETS: Final = ErrorResponse(
    status=501,
    code="no_websockets",
    message="WebSockets (such as OpenAI's realtime API) do not pass; call the provider itself.",
)
TOO_LARGE_TO_KEEP: Final = ErrorResponse(
    status=502,
    code="answer_too_large",
    message=(
        "the answer is too large to be kept, as HTTP/1.0 asks for; call with HTTP/1.1 (in nginx:"
        " proxy_http_version 1.1)."
    ),
)
HEAD_TOO_LARGE: Final = ErrorResponse(
    status=431,
    code="head_too_large",
    message=f"path and headers are larger than {MOST_HEAD_BYTES} bytes; send less in them.",
)
STOPPING: Final = ErrorResponse(
    status=503,
    code="shutdown",
    message="this proxy is stopping; try again, at another one.",
    retry_after_seconds=_RETRY_SECONDS,
)
_BY_ERROR: Final[Sequence[tuple[type[Exception], int, str, int | None]]] = (
    (CoordinatorUnavailable, 503, "coordinator_unavailable", AWAY_RETRY_SECONDS),
    (CoordinatorFull, 503, "coordinator_full", AWAY_RETRY_SECONDS),
    (MembershipLost, 503, "membership_lost", _RETRY_SECONDS),
    (CoordinatorError, 500, "coordinator_error", None),
    (ConfigurationError, 400, "invalid_request", None),
    (httpx2.InvalidURL, 400, "invalid_path", None),
    (httpx2.ConnectTimeout, 502, "upstream_unreachable", None),
    (httpx2.TimeoutException, 504, "upstream_timeout", None),
    (httpx2.RemoteProtocolError, 502, "upstream_invalid", None),
    (httpx2.TransportError, 502, "upstream_unreachable", None),
)
"""Class of an error, status, code, seconds until the next try; the first that fits counts."""


def error_response_of(error: Exception, upstream: str) -> ErrorResponse | None:
    """Return the proxy's answer to a call that failed before its provider answered.

    Args:
        error: what sending the call raised.
        upstream: the provider's name.

    Returns:
        None for an error that nobody foresaw.
    """
    if isinstance(error, RequestAdmissionError):
        return _denied(error)
    for kind, status, code, retry_after_seconds in _BY_ERROR:
        if isinstance(error, kind):
            message = _UPSTREAM_MESSAGES.get(code, "{error}").format(
                upstream=upstream, error=error, kind=type(error).__name__
            )
            return ErrorResponse(
                status=status, code=code, message=message, retry_after_seconds=retry_after_seconds
            )
    return None


def _denied(error: RequestAdmissionError) -> ErrorResponse:
    denied = error.denied
    match denied.reason:
        case RequestDenialReason.HARD_POLICY_DENIAL:
            return ErrorResponse(status=400, code=str(denied.reason), message=str(error))
        case RequestDenialReason.SHUTDOWN:
            return STOPPING
        case _:
            hint = denied.retry_after_seconds or _RETRY_SECONDS
            return ErrorResponse(
                status=429,
                code=str(denied.reason),
                message=str(error).replace("queue_wait_timeout_seconds", "--queue-timeout"),
                retry_after_seconds=min(max(1, math.ceil(hint)), LONGEST_RETRY_SECONDS),
            )
