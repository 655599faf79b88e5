"""Waits as providers write them: ``6m0s``, ``1.2 seconds``, an HTTP date, an instant, Unix time."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from forebay.workers.providers.facts import Form

_LONGEST_TEXT: Final = 64
_DECIMAL: Final = re.compile(r"[0-9]+(\.[0-9]+)?")
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
_WORDS: Final = {
    "milliseconds": "ms",
    "millisecond": "ms",
    "seconds": "s",
    "second": "s",
    "secs": "s",
    "sec": "s",
    "minutes": "m",
    "minute": "m",
    "mins": "m",
    "min": "m",
    "hours": "h",
    "hour": "h",
    "hrs": "h",
    "hr": "h",
    "days": "d",
    "day": "d",
}
_NAMES = "|".join([*_WORDS, "ms", "us", "\u00b5s", "ns", "d", "h", "m", "s"])
_PART: Final = re.compile(rf"([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?) ?({_NAMES})", re.IGNORECASE)
DURATION_PATTERN: Final = (
    rf"[0-9]{{1,9}}(?:\.[0-9]{{1,9}})? ?(?:{_NAMES})"
    rf"(?:,? ?(?:and )?[0-9]{{1,9}}(?:\.[0-9]{{1,9}})? ?(?:{_NAMES}))*\b"
    r"|(?:[0-9]{1,4}\.)?[0-9]{2}:[0-9]{2}:[0-9]{2}\b"
)
"""A regular expression, without case, for a duration with its units, as it stands in a text."""
INSTANT_PATTERN: Final = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ](?:at )?[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?"
    r"(?: ?Z| ?UTC|[+-][0-9]{2}:[0-9]{2})?)?"
)
"""A regular expression for an instant as of RFC 3339, or near it, as it stands in a text."""
_CLOCK: Final = re.compile(r"(?:([0-9]{1,4})\.)?([0-9]{2}):([0-9]{2}):([0-9]{2})")
_DURATION: Final = re.compile(DURATION_PATTERN, re.IGNORECASE)

_INSTANT_WITHIN_SECONDS = 31 * 86_400.0
"""A number that is no further from the present, as Unix time, is no wait of decades."""
_EPOCH_FROM = 1e8
_EPOCH_MILLISECONDS_FROM = 1e11


def seconds_of(text: Any, form: Form, now: float) -> float | None:
    """Return the seconds from ``now`` (Unix time) to the instant of a text, None for other texts.

    The form says what a bare number is; a duration with units and a date are known in any form.
    """
    if type(text) is int or type(text) is float:
        text = str(text)
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT * 8:
        return None
    text = text.strip()
    number = decimal(text)
    if number is not None:
        return _of_number(number, form, now)
    if len(text) > _LONGEST_TEXT:
        return None
    if _DURATION.fullmatch(text):
        return duration_of(text)
    return _until_instant(text, now)


def duration_of(text: str) -> float:
    """Return the seconds of a text that `DURATION_PATTERN` fits."""
    if (clock := _CLOCK.fullmatch(text)) is not None:  # days.hours:minutes:seconds, as .NET writes
        days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        return days * 86_400 + hours * 3600 + minutes * 60 + seconds
    total = 0.0
    for number, unit in _PART.findall(text):
        name = unit.lower()
        total += float(number) * _UNIT_SECONDS[_WORDS.get(name, name)]
    return total


def decimal(text: str) -> float | None:
    """Return the number that a text is, None for one that is none."""
    # Not float() alone: it also takes "nan", "1e9", "1_000" and digits of other scripts.
    stripped = text.strip()
    return float(stripped) if _DECIMAL.fullmatch(stripped) else None


def _of_number(number: float, form: Form, now: float) -> float:
    if form in {Form.SECONDS, Form.MILLISECONDS}:
        seconds = number / 1000 if form is Form.MILLISECONDS else number
        # Some gateways write when instead of how long, and some of them in milliseconds.
        instants = (number, number / 1000) if seconds > _INSTANT_WITHIN_SECONDS else ()
        untils = (instant - now for instant in instants)
        return next((one for one in untils if abs(one) <= _INSTANT_WITHIN_SECONDS), seconds)
    # A reset may be a duration at one provider and Unix time at the next.
    if number >= _EPOCH_MILLISECONDS_FROM:
        return number / 1000 - now
    return number - now if number >= _EPOCH_FROM else number


def _until_instant(text: str, now: float) -> float | None:
    tidied = text.replace(" at ", " ").removesuffix("UTC").strip()
    try:
        return _until(datetime.fromisoformat(tidied), now)
    except (ValueError, OverflowError):
        pass
    try:
        return _until(parsedate_to_datetime(text), now)
    except (TypeError, ValueError, OverflowError):
        return None


def _until(date: datetime, now: float) -> float:
    # Without a zone it is UTC, as HTTP dates always are (RFC 9110, 5.6.7).
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
