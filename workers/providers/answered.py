"""Status, headers and error of an answer, read from a response or an exception."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from forebay.workers.providers.faults import NO_FAULT, Fault, fault_in, fault_in_body
from forebay.workers.providers.headers import error_code_of, lowered_headers, with_stated_wait
from forebay.workers.providers.registry import GENERIC, PreparedProfile, profile_of_url

_TOLD_IN_A_STREAM: Final = 200
"""Status of an error that an SDK raises without a response, from within a stream."""
_FIRST_ERROR_STATUS: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Status, headers and error code of an answer.

    Attributes:
        status: HTTP status.
        headers: names in lower case, after `with_stated_wait` for a refusal; not in the repr.
        error_code: the short code of the error in the body, or None.
        profile: of the provider that answered.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    error_code: str | None
    profile: PreparedProfile = field(default=GENERIC, repr=False)


def answer_of(source: object, now: float | None = None) -> Answered | None:
    """Return the facts of an answer, or of an exception's answer; None without any.

    Knows the responses and exceptions of httpx, requests, aiohttp, urllib and of the SDKs, what
    botocore raises, and whatever else has a numeric ``status_code`` or ``status``. Reads nothing
    from the network and never raises.

    Args:
        source: the answer, or the exception.
        now: Unix time in seconds, for instants in it; None takes the clock's.
    """
    now = time.time() if now is None else now
    response = _attribute(source, "response")
    if isinstance(response, dict):
        return _answer_of_botocore(response, now)
    carrier = source if response is None else response
    status = _attribute(carrier, "status_code")
    if status is None:
        status = _attribute(carrier, "status")
    body = _attribute(source, "body") if isinstance(source, BaseException) else None
    if status is None and isinstance(body, Mapping):
        status = _TOLD_IN_A_STREAM
    if type(status) is not int or not 100 <= status <= 599:  # noqa: PLR2004
        return None
    profile = profile_of_url(_attribute(carrier, "url"))
    fault = _fault_of(source, carrier, body, status, profile, now)
    headers: Mapping[str, str] = lowered_headers(_attribute(carrier, "headers"))
    code = error_code_of(status, headers, fault, profile)
    if status >= _FIRST_ERROR_STATUS or fault != NO_FAULT:
        headers = with_stated_wait(headers, fault, profile, now)
    return Answered(status=status, headers=headers, error_code=code, profile=profile)


def _answer_of_botocore(response: dict[str, Any], now: float) -> Answered | None:
    """Read the parsed answer that an exception of botocore carries in place of an HTTP response."""
    told, error = response.get("ResponseMetadata"), response.get("Error")
    if not isinstance(told, dict) or type(status := told.get("HTTPStatusCode")) is not int:
        return None
    code, message = (
        (error.get("Code"), error.get("Message")) if isinstance(error, dict) else ("", "")
    )
    fault = fault_in({"code": code, "message": message}, now=now)
    headers = with_stated_wait(lowered_headers(told.get("HTTPHeaders")), fault, GENERIC, now)
    return Answered(status=status, headers=headers, error_code=fault.code)


def _fault_of(
    source: object, carrier: object, body: object, status: int, profile: PreparedProfile, now: float
) -> Fault:
    code = _attribute(source, "error_code")
    if isinstance(code, str):
        return Fault(code)
    fault = fault_in(body, profile, now=now)
    if fault == NO_FAULT and status >= _FIRST_ERROR_STATUS:  # a good body may be long
        fault = _fault_in_content(carrier, profile, now)
    return fault


def _fault_in_content(response: object, profile: PreparedProfile, now: float) -> Fault:
    # requests would read the rest from the network here, and block the event loop.
    if _attribute(response, "_content_consumed") is False:
        return NO_FAULT
    content = _attribute(response, "content")
    return fault_in_body(content, profile, now=now) if isinstance(content, bytes) else NO_FAULT


def _attribute(source: object, name: str) -> Any:
    """Return an attribute, None if there is none; those of foreign objects may raise anything."""
    try:
        return getattr(source, name, None)
    except Exception:  # noqa: BLE001 - httpx's unread streams, urllib's half-made errors
        return None
