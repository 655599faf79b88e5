"""The proxy's own answers: errors in the shape of the API that was called."""

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

LONGEST_RETRY_SECONDS: Final = 60
"""SDKs ignore a larger hint, and retry at once."""
AWAY_RETRY_SECONDS: Final = 5
_RETRY_SECONDS: Final = 1

_OPENAI_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}
_UPSTREAM_MESSAGES: Final = {
    "invalid_path": "the path is no path of a URL; correct it.",
    "upstream_timeout": "{upstream} did not answer in time ({kind}); try again.",
    "upstream_unreachable": (
        "{upstream} could not be reached, or broke the connection off ({kind}); look at --upstream"
        " and the network, or try again."
    ),
}
_SERVER_ERROR: Final = {"openai": "server_error", "anthropic": "api_error"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
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
        if is_anthropic:
            kind = _ANTHROPIC_TYPES.get(self.status, _SERVER_ERROR["anthropic"])
            document: dict[str, Any] = {
                "type": "error",
                "error": {"type": kind, "message": message, "code": self.code},
            }
        else:
            kind = _OPENAI_TYPES.get(self.status, _SERVER_ERROR["openai"])
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


STOPPING: Final = Refusal(
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
    (httpx2.TransportError, 502, "upstream_unreachable", None),
)
"""Class of an error, status, code, seconds until the next try; the first that fits counts."""


def refusal_of(error: Exception, upstream: str) -> Refusal | None:
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
            return Refusal(
                status=status, code=code, message=message, retry_after_seconds=retry_after_seconds
            )
    return None


def _denied(error: RequestAdmissionError) -> Refusal:
    denied = error.denied
    match denied.reason:
        case RequestDenialReason.HARD_POLICY_DENIAL:
            return Refusal(status=400, code=str(denied.reason), message=str(error))
        case RequestDenialReason.SHUTDOWN:
            return STOPPING
        case _:
            hint = denied.retry_after_seconds or _RETRY_SECONDS
            return Refusal(
                status=429,
                code=str(denied.reason),
                message=str(error).replace("queue_wait_timeout_seconds", "--queue-timeout"),
                retry_after_seconds=min(max(1, math.ceil(hint)), LONGEST_RETRY_SECONDS),
            )
