"""How an attempt ended, read from a response or an exception (spec 03, *Executor and transport*).

Pure functions: no clock, no I/O and no HTTP library. Exceptions of ``httpx``, ``httpx2`` and of the
SDKs built on them are known by name, so that a program needs none of them to classify the others.
What comes out carries statuses, short codes and class names, never a body, a prompt or a key.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Protocol

from contracts.errors import (
    CoordinatorFull,
    CoordinatorUnavailable,
    MembershipLost,
    RequestAdmissionError,
)
from contracts.requests import (
    RequestDenialReason,
    RequestOutcomeKind,
    RequestReleaseOutcome,
    TokenUsage,
)
from workers.provider_answers import BILLING_CODES, error_code_of, retry_after_seconds

_OVERLOAD = frozenset({429, 503, 529})
_HTTP_PACKAGES = frozenset({"httpx", "httpx2", "openai", "anthropic"})
_KIND_BY_CLASS = {
    "PoolTimeout": RequestOutcomeKind.LOCAL_TIMEOUT,
    "ConnectTimeout": RequestOutcomeKind.PROVIDER_FAILURE,
    "TimeoutException": RequestOutcomeKind.PROVIDER_TIMEOUT,
    "NetworkError": RequestOutcomeKind.PROVIDER_FAILURE,
    "ProxyError": RequestOutcomeKind.PROVIDER_FAILURE,
    "RemoteProtocolError": RequestOutcomeKind.PROVIDER_FAILURE,
    "APITimeoutError": RequestOutcomeKind.PROVIDER_TIMEOUT,
    "APIConnectionError": RequestOutcomeKind.PROVIDER_FAILURE,
}

NOT_SENT = RequestReleaseOutcome(
    kind=RequestOutcomeKind.LOCAL_CANCELLED,
    usage=TokenUsage(),
    diagnostics={"sent": False, "retryable": True},
)
"""No byte went out: a usage of zero gives the whole cost back to the quota."""


class Classifier(Protocol):
    """What the executor asks how an attempt ended; replace it for a provider with other habits."""

    def classify_response(
        self,
        status: int,
        headers: Mapping[str, str],
        body_error_code: str | None = None,
        *,
        now: float,
    ) -> RequestReleaseOutcome:
        """Classify an answer; ``now`` is the Unix time in seconds, for dates in headers."""
        ...

    def classify_exception(
        self, error: BaseException, *, sent: bool, now: float
    ) -> RequestReleaseOutcome:
        """Classify what the call raised; ``sent`` says whether the request may have gone out."""
        ...

    def is_retryable(self, outcome: RequestReleaseOutcome) -> bool:
        """Say whether another attempt may end better."""
        ...


def classify_response(
    status: int,
    headers: Mapping[str, str],
    body_error_code: str | None = None,
    *,
    now: float,
) -> RequestReleaseOutcome:
    """Classify a provider's answer.

    Args:
        status: HTTP status.
        headers: response headers; names in any case.
        body_error_code: what `error_code_of` read from the body of an error.
        now: Unix time in seconds, for a ``retry-after`` that is a date.

    Returns:
        2xx ``success``; 429, 503 and 529 ``rate_limited``, with the provider's hint; everything
        else, and an exhausted account whatever its status, ``provider_failure``.
    """
    if 200 <= status < 300:  # noqa: PLR2004
        return RequestReleaseOutcome(kind=RequestOutcomeKind.SUCCESS, provider_status=status)
    lowered = {name.lower(): value for name, value in headers.items()}
    diagnostics: dict[str, Any] = {}
    if body_error_code is not None:
        diagnostics["error_code"] = body_error_code
    billing = body_error_code in BILLING_CODES
    # OpenAI's word for "the same request will fail again", which its own SDK respects.
    if billing or lowered.get("x-should-retry") == "false":
        diagnostics["retryable"] = False
    overloaded = status in _OVERLOAD and not billing
    return RequestReleaseOutcome(
        kind=RequestOutcomeKind.RATE_LIMITED if overloaded else RequestOutcomeKind.PROVIDER_FAILURE,
        retry_after_seconds=None if billing else retry_after_seconds(lowered, now),
        provider_status=status,
        diagnostics=diagnostics,
    )


def classify_exception(error: BaseException, *, sent: bool, now: float) -> RequestReleaseOutcome:
    """Classify what a call raised.

    Args:
        error: any exception; one that carries an answer (``status``, or ``response`` as in httpx
            and the SDKs on it) is classified by that answer.
        sent: whether bytes of the request may have gone out.
        now: Unix time in seconds.

    Returns:
        Connection errors ``provider_failure``; a timeout ``provider_timeout`` once the request was
        sent, else ``local_timeout``, as is a queue's timeout; cancellation, and what kept the
        attempt from being sent at all, ``local_cancelled``; the rest ``unexpected_exception``.
    """
    diagnostics: dict[str, Any] = {"error_type": type(error).__qualname__}
    if isinstance(error, asyncio.CancelledError):
        return RequestReleaseOutcome(
            kind=RequestOutcomeKind.LOCAL_CANCELLED,
            usage=None if sent else TokenUsage(),
            diagnostics=diagnostics | {"retryable": False},
        )
    answer = _answer_of(error)
    if answer is not None:
        return _classify_answered(*answer, diagnostics=diagnostics, now=now)
    if isinstance(error, MembershipLost | CoordinatorUnavailable | CoordinatorFull):
        return RequestReleaseOutcome(
            kind=NOT_SENT.kind,
            usage=NOT_SENT.usage,
            diagnostics={**diagnostics, **NOT_SENT.diagnostics},
        )
    if isinstance(error, RequestAdmissionError):
        reason = error.denied.reason
        timed_out = reason is RequestDenialReason.QUEUE_TIMEOUT
        return RequestReleaseOutcome(
            kind=RequestOutcomeKind.LOCAL_TIMEOUT
            if timed_out
            else RequestOutcomeKind.LOCAL_CANCELLED,
            usage=TokenUsage(),
            diagnostics=diagnostics | {"reason": str(reason), "retryable": timed_out},
        )
    kind = _kind_by_class(error)
    if kind is RequestOutcomeKind.PROVIDER_TIMEOUT and not sent:
        kind = RequestOutcomeKind.LOCAL_TIMEOUT
    return RequestReleaseOutcome(kind=kind, diagnostics=diagnostics)


def is_retryable(outcome: RequestReleaseOutcome) -> bool:
    """Say whether another attempt may end better.

    Overload, timeouts, connection errors and 5xx may; other statuses, cancellations and
    exceptions nobody foresaw may not. ``diagnostics["retryable"]`` overrides the rule by kind.
    """
    stated = outcome.diagnostics.get("retryable")
    if isinstance(stated, bool):
        return stated
    if outcome.kind is RequestOutcomeKind.PROVIDER_FAILURE:
        return outcome.provider_status is None or outcome.provider_status >= 500  # noqa: PLR2004
    return outcome.kind in {
        RequestOutcomeKind.RATE_LIMITED,
        RequestOutcomeKind.PROVIDER_TIMEOUT,
        RequestOutcomeKind.LOCAL_TIMEOUT,
    }


class DefaultClassifier:
    """The rules of this module, as a `Classifier`."""

    classify_response = staticmethod(classify_response)
    classify_exception = staticmethod(classify_exception)
    is_retryable = staticmethod(is_retryable)


def _classify_answered(
    status: int,
    headers: Mapping[str, str],
    error_code: str | None,
    *,
    diagnostics: dict[str, Any],
    now: float,
) -> RequestReleaseOutcome:
    outcome = classify_response(status, headers, error_code, now=now)
    kind = outcome.kind
    if kind is RequestOutcomeKind.SUCCESS:
        # A 2xx that raised is an answer nobody could read; the next one may be readable.
        kind = RequestOutcomeKind.PROVIDER_FAILURE
        diagnostics = diagnostics | {"error_code": error_code, "retryable": True}
    return RequestReleaseOutcome(
        kind=kind,
        retry_after_seconds=outcome.retry_after_seconds,
        provider_status=status,
        diagnostics={**diagnostics, **outcome.diagnostics},
    )


def _answer_of(error: BaseException) -> tuple[int, Mapping[str, str], str | None] | None:
    """Return status, headers and error code of the answer that an exception carries, if any."""
    response = getattr(error, "response", None)
    source = error if response is None else response
    status = getattr(source, "status_code", getattr(source, "status", None))
    if not isinstance(status, int) or not 100 <= status <= 599:  # noqa: PLR2004
        return None
    headers = getattr(source, "headers", None)
    code = getattr(error, "error_code", None)
    if not isinstance(code, str):
        code = _code_in(response)
    return status, headers if isinstance(headers, Mapping) else {}, code


def _code_in(response: Any) -> str | None:
    try:
        content = getattr(response, "content", b"")
    except RuntimeError:  # httpx's ResponseNotRead: a stream that nobody has read
        return None
    return error_code_of(content) if isinstance(content, bytes) else None


def _kind_by_class(error: BaseException) -> RequestOutcomeKind:
    for cls in type(error).__mro__:
        if cls.__module__.partition(".")[0] in _HTTP_PACKAGES and cls.__name__ in _KIND_BY_CLASS:
            return _KIND_BY_CLASS[cls.__name__]
    if isinstance(error, TimeoutError):
        return RequestOutcomeKind.PROVIDER_TIMEOUT
    if isinstance(error, ConnectionError | socket.gaierror | ssl.SSLError):
        return RequestOutcomeKind.PROVIDER_FAILURE
    return RequestOutcomeKind.UNEXPECTED_EXCEPTION
