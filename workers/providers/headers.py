"""What an answer's headers say besides its content: when to come back, and what is left.

What its body says is read in `forebay.workers.providers.answer_bodies`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from forebay.contracts.quotas import MAX_BUDGET, QuotaBudget, QuotaReading
from forebay.workers.providers.answer_bodies import error_code_in, error_code_of

LONGEST_HINT_SECONDS = 31 * 86_400.0
"""A longer ``retry-after`` is taken as this one: whoever asks for it wants to be left alone."""

_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?")
_KEPT_HEADERS = (
    "retry-after",
    "x-should-retry",
    "x-ratelimit-",
    "anthropic-ratelimit-",
    "x-request-id",
    "request-id",
)

_QUOTA_HEADERS: Final = {
    name: (is_anthropic, unit, field)
    for unit in ("requests", "tokens")
    for field in ("limit", "remaining", "reset")
    for is_anthropic, name in (
        (False, f"x-ratelimit-{field}-{unit}"),
        (True, f"anthropic-ratelimit-{unit}-{field}"),
    )
}
_BUDGETS: Final = {
    ("requests", False): QuotaBudget.REQUESTS_PER_MINUTE,
    ("requests", True): QuotaBudget.REQUESTS_PER_DAY,
    ("tokens", False): QuotaBudget.TOKENS_PER_MINUTE,
    ("tokens", True): QuotaBudget.TOKENS_PER_DAY,
}
_FULL_MINUTE_SECONDS = 75.0
"""A minute's budget is full within a minute, and some debt."""
_FAR_DATE_SECONDS = 600.0
"""As the one above for a reset that is a date: this machine's clock may be minutes off."""
_DAILY_FROM_SECONDS = 600.0
_LONGEST_PERIOD_SECONDS = 2 * 86_400.0
_LONGEST_DURATION = 40
_LONGEST_DATE = 64
_UNIT_SECONDS: Final = {
    "d": 86_400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "\u00b5s": 1e-6,
    "ns": 1e-9,
}
_DURATION_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|us|\u00b5s|ns|[dhms])")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_WHOLE = re.compile(r"[0-9]{1,13}")

_TOLD_IN_A_STREAM = 200
"""The status under which an SDK raises an error that has no response: one told within a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What is known of an answer.

    Attributes:
        status: HTTP status.
        headers: all of them, names in lower case; kept out of the repr.
        error_code: the short code of the error in the body, or None.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    error_code: str | None


def answer_of(source: object) -> Answered | None:
    """Return what an answer, or an exception that carries one, says of itself; None if nothing.

    Knows the responses and exceptions of httpx, requests, aiohttp, urllib and of the SDKs, and
    whatever else has a numeric ``status_code`` or ``status``. Reads nothing from the network and
    never raises.
    """
    response = _attribute(source, "response")
    carrier = source if response is None else response
    status = _attribute(carrier, "status_code")
    if status is None:
        status = _attribute(carrier, "status")
    body = _attribute(source, "body") if isinstance(source, BaseException) else None
    if status is None and isinstance(body, Mapping):
        status = _TOLD_IN_A_STREAM
    if type(status) is not int or not 100 <= status <= 599:  # noqa: PLR2004
        return None
    code = _attribute(source, "error_code")
    if not isinstance(code, str):
        code = error_code_in(body)
    if code is None and status >= 400:  # noqa: PLR2004 - a good body may be long
        code = _code_in(carrier)
    return Answered(
        status=status, headers=lowered_headers(_attribute(carrier, "headers")), error_code=code
    )


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers worth keeping, in lower case: hints, limits and the request's id.

    The others (cookies, the account's name) are dropped, so that no log can show them.
    """
    lowered = lowered_headers(headers)
    return {name: value for name, value in lowered.items() if name.startswith(_KEPT_HEADERS)}


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """Return the provider's hint in seconds from now, at most 31 days; None without a usable one.

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
    usable = (min(hint, LONGEST_HINT_SECONDS) for hint in hints if hint is not None and hint > 0)
    return next(usable, None)


def quota_readings(headers: Mapping[str, str], now: float) -> list[QuotaReading]:
    """Return what the headers say of the account's budgets; what makes no sense is ignored.

    Knows ``x-ratelimit-*`` (OpenAI and the many like it) and ``anthropic-ratelimit-*``, for
    requests and for tokens. No header says whether it means a minute or a day; the reset does, as
    `_is_daily` infers. Where in doubt it is a minute: a day's limit taken for a minute's bounds
    nothing, but a minute's limit taken for a day's would starve the fleet (spec 03, *Quotas*).

    Args:
        headers: names in any case.
        now: Unix time in seconds, for a reset that is a date.
    """
    stated: dict[tuple[bool, str], dict[str, str]] = {}
    for name, value in headers.items():
        place = _QUOTA_HEADERS.get(name.lower())
        if place is not None:
            stated.setdefault(place[:2], {})[place[2]] = value
    readings = []
    for (is_anthropic, unit), fields in stated.items():
        limit = _count(fields.get("limit"), 1)
        remaining = _count(fields.get("remaining"), 0)
        if limit is None and remaining is None:
            continue
        reset = fields.get("reset", "")
        if is_anthropic:
            is_daily = _is_daily(limit, remaining, _seconds_until(reset, now), _FAR_DATE_SECONDS)
        else:
            is_daily = _is_daily(limit, remaining, _duration(reset), _FULL_MINUTE_SECONDS)
        budget = _BUDGETS[unit, is_daily]
        readings.append(QuotaReading(budget=budget, limit=limit, remaining=remaining))
    return readings


def exhausted_budget(headers: Mapping[str, str], now: float) -> QuotaBudget | None:
    """Return a budget of which the headers say that nothing is left; None where none says so.

    Args:
        headers: names in any case.
        now: Unix time in seconds.
    """
    empty = (found.budget for found in quota_readings(headers, now) if found.remaining == 0)
    return next(empty, None)


def lowered_headers(headers: Any) -> dict[str, str]:
    """Return headers by their lower-case names, {} for what are none.

    Takes any mapping, and urllib's ``email.message.Message``, which is none.
    """
    items = getattr(headers, "items", None)
    if not callable(items):
        return {}
    pairs: Iterator[tuple[Any, Any]] = iter(items())
    return {
        name.lower(): value
        for name, value in pairs
        if isinstance(name, str) and isinstance(value, str)
    }


def _attribute(source: object, name: str) -> Any:
    """Return an attribute, None if there is none; those of foreign objects may raise anything."""
    try:
        return getattr(source, name, None)
    except Exception:  # noqa: BLE001 - httpx's unread streams, urllib's half-made errors
        return None


def _code_in(response: object) -> str | None:
    # requests would read the rest from the network here, and block the event loop.
    if _attribute(response, "_content_consumed") is False:
        return None
    content = _attribute(response, "content")
    return error_code_of(content) if isinstance(content, bytes) else None


def _is_daily(
    limit: int | None, remaining: int | None, reset: float | None, least_seconds: float
) -> bool:
    """Say whether a budget is a day's, by its reset: the seconds until it is full.

    A period lasts about ``reset / used share``. That is noise while next to nothing is used, so
    the reset itself must be longer than a minute's budget can have, and the period at most about
    a day; a day's budget passes both long before it binds.
    """
    if reset is None or reset <= least_seconds:
        return False
    if limit is None or remaining is None:
        return reset > _DAILY_FROM_SECONDS
    if remaining >= limit:
        return False
    return _DAILY_FROM_SECONDS < reset * limit / (limit - remaining) <= _LONGEST_PERIOD_SECONDS


def _count(text: Any, least: int) -> int | None:
    if not isinstance(text, str) or not _WHOLE.fullmatch(text.strip()):
        return None
    value = int(text)
    return value if least <= value <= MAX_BUDGET else None


def _duration(text: Any) -> float | None:
    """Return the seconds of ``6m0s``, ``120ms``, ``1h2m3.5s`` or ``12.5``."""
    if not isinstance(text, str) or len(text) > _LONGEST_DURATION:
        return None
    if not _DURATION.fullmatch(text.strip()):
        return _decimal(text)
    parts = _DURATION_PART.findall(text)
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def _seconds_until(text: Any, now: float) -> float | None:
    """Return the seconds until an instant as of RFC 3339."""
    if not isinstance(text, str) or len(text) > _LONGEST_DATE:
        return None
    try:
        return _until(datetime.fromisoformat(text.strip()), now)
    except (ValueError, OverflowError):
        return None


def _seconds_or_date(text: str, now: float) -> float | None:
    seconds = _decimal(text)
    if seconds is not None or len(text) > _LONGEST_DATE:
        return seconds
    try:
        return _until(parsedate_to_datetime(text), now)
    except (TypeError, ValueError, OverflowError):
        return None


def _until(date: datetime, now: float) -> float:
    # Without a zone it is UTC, as HTTP dates always are (RFC 9110, 5.6.7).
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now


def _decimal(text: str) -> float | None:
    # Not float() alone: it also takes "nan", "1e9", "1_000" and digits of other scripts.
    stripped = text.strip()
    return float(stripped) if _DECIMAL.fullmatch(stripped) else None
