"""What an answer says besides its content: when to come back, what went wrong, what is left."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

BILLING_CODES = frozenset(
    {
        "access_terminated",
        "account_deactivated",
        "billing_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "credit_balance_too_low",
        "insufficient_balance",
        "insufficient_quota",
    }
)
"""Error codes of an exhausted account: waiting does not help, so they are no overload."""

LONGEST_HINT_SECONDS = 86_400.0
"""A ``retry-after`` beyond a day is taken for a mistake and ignored."""

_LONGEST_ERROR_BODY = 65_536
_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_KEPT_HEADERS = (
    "retry-after",
    "x-should-retry",
    "x-ratelimit-",
    "anthropic-ratelimit-",
    "x-request-id",
    "request-id",
)


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers worth keeping, in lower case: hints, limits and the request's id.

    The others (cookies, the account's name) are dropped, so that no log can show them.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    return {name: value for name, value in lowered.items() if name.startswith(_KEPT_HEADERS)}


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """Return the provider's hint in seconds from now, None unless it can be believed.

    Args:
        headers: names in lower case; ``retry-after-ms`` goes before ``retry-after``, which holds
            seconds or an HTTP date.
        now: Unix time in seconds.
    """
    milliseconds = _decimal(headers.get("retry-after-ms", ""))
    hints = (
        milliseconds / 1000 if milliseconds is not None else None,
        _seconds_or_date(headers.get("retry-after", ""), now),
    )
    return next((h for h in hints if h is not None and 0 < h <= LONGEST_HINT_SECONDS), None)


def error_code_of(body: bytes) -> str | None:
    """Return the machine-readable code of a provider's error body, or None.

    Reads ``error.code``, ``error.type`` and ``error.status``, a billing code first. Only a short
    identifier is returned: free text could quote the prompt.
    """
    if len(body) > _LONGEST_ERROR_BODY:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    fault = document.get("error", document) if isinstance(document, dict) else None
    if not isinstance(fault, dict):
        return None
    named = (fault.get(name) for name in ("code", "type", "status"))
    codes = [code for code in named if isinstance(code, str) and _CODE.fullmatch(code)]
    return next((code for code in codes if code in BILLING_CODES), codes[0] if codes else None)


def _seconds_or_date(text: str, now: float) -> float | None:
    seconds = _decimal(text)
    if seconds is not None:
        return seconds
    try:
        date = parsedate_to_datetime(text)
        # Without a zone it is UTC, as HTTP dates always are (RFC 9110, 5.6.7).
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (TypeError, ValueError, OverflowError):
        return None


def _decimal(text: str) -> float | None:
    # Not float() alone: it also takes "nan", "1e9", "1_000" and digits of other scripts.
    stripped = text.strip()
    return float(stripped) if _DECIMAL.fullmatch(stripped) else None
