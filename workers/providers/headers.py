"""Hints in an answer's headers, in the form that every classifier reads.

A provider's own way of telling a wait or a budget, in headers or in its error's body, becomes
``retry-after-ms`` and `BUDGET_HEADER` here. Budgets are read in
`forebay.workers.providers.budget_headers`, bodies in `forebay.workers.providers.faults`.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, Final

from forebay.workers.providers.budget_headers import exhausted_budget, longest_of, reset_seconds
from forebay.workers.providers.facts import Budget, Period
from forebay.workers.providers.faults import OVERLOADED, Fault
from forebay.workers.providers.registry import GENERIC, PreparedProfile

LONGEST_HINT_SECONDS: Final = 31 * 86_400.0
"""Longest ``retry-after``; a longer one is clamped."""

UNSTATED_REFILL_SECONDS: Final = 3_600.0
"""Pause between two probes of a day's or month's budget without a stated reset."""

BUDGET_HEADER: Final = "forebay-budget"
"""Header that `with_stated_wait` adds: the exhausted budget, such as ``tokens_per_day``."""

_FIRST_ERROR_STATUS: Final = 400
_FIRST_SERVER_STATUS: Final = 500
_SHORT_SECONDS: Final = 60.0
"""A shorter wait is not taken for a day's reset: some providers state the next minute's."""
_LONG_PERIODS: Final = frozenset({Period.DAY, Period.MONTH})
_PACIFIC_WITHOUT_DATA: Final = timezone(timedelta(hours=-8))
_KEPT_HEADERS: Final = (
    BUDGET_HEADER,
    "retry-after",
    "x-ms-retry-after-ms",
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
    lowered = lowered_headers(headers)
    return {name: value for name, value in lowered.items() if name.startswith(_KEPT_HEADERS)}


def retry_after_seconds(
    headers: Mapping[str, str], now: float, profile: PreparedProfile = GENERIC
) -> float | None:
    """Return the provider's hint in seconds from now, at most 31 days; None without a usable one.

    Args:
        headers: names in lower case; of several hints the most exact one counts.
        now: Unix time in seconds, for a hint that is a date.
        profile: of the provider that answered.
    """
    hint = stated_wait(headers, now, profile)
    return None if hint is None else min(hint, LONGEST_HINT_SECONDS)


def stated_wait(
    headers: Mapping[str, str], now: float, profile: PreparedProfile = GENERIC
) -> float | None:
    """Return the provider's hint in seconds, unclamped."""
    for name, form in profile.waits.headers:
        value = headers.get(name)
        seconds = None if value is None else longest_of(value, form, now)
        if seconds is not None and seconds > 0:
            return seconds
    return None


def with_stated_wait(
    headers: Mapping[str, str], fault: Fault, profile: PreparedProfile, now: float
) -> Mapping[str, str]:
    """Return a refusal's headers in lower case, with its wait and its budget in the common form.

    Args:
        headers: of the answer, names in lower case.
        fault: what its body says.
        profile: of the provider that answered.
        now: Unix time in seconds.
    """
    exhausted = exhausted_budget(headers, now, profile)
    budget = fault.budget or (None if exhausted is None else exhausted.budget)
    added = {} if budget is None or budget.period is None else {BUDGET_HEADER: str(budget)}
    wait = stated_wait(headers, now, profile)
    told = wait
    if wait is None:
        unit = None if budget is None else budget.unit
        wait = fault.wait_seconds or reset_seconds(headers, now, profile, unit)
    if budget is not None and budget.period in _LONG_PERIODS and (wait or 0.0) < _SHORT_SECONDS:
        wait = seconds_until_refill(budget, profile, now)
    if wait is not None and wait != told:
        added["retry-after-ms"] = f"{wait * 1000:.0f}"
    return {**headers, **added}


def seconds_until_refill(budget: Budget, profile: PreparedProfile, now: float) -> float:
    """Return the seconds until a day's or month's budget without a stated reset is tried again."""
    zone = profile.waits.day_ends
    if not zone or budget.period is not Period.DAY:
        return UNSTATED_REFILL_SECONDS
    local = datetime.fromtimestamp(now, UTC).astimezone(_zone(zone))
    midnight = (local + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight.timestamp() - now


def _zone(name: str) -> tzinfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except zoneinfo.ZoneInfoNotFoundError:  # a container without time zones
        return _PACIFIC_WITHOUT_DATA


def error_code_of(
    status: int, headers: Mapping[str, str], fault: Fault, profile: PreparedProfile
) -> str | None:
    """Return the code of an answer's error, by body, headers or status; None for none.

    Args:
        status: HTTP status.
        headers: names in lower case.
        fault: what the body says.
        profile: of the provider that answered.
    """
    is_overload = status in profile.refusals.overload_statuses
    code = fault.code
    if status >= _FIRST_ERROR_STATUS:
        # A 400 quotes the request, which may speak of rate limits itself.
        is_quoted = code == OVERLOADED and status < _FIRST_SERVER_STATUS and not is_overload
        code = (None if is_quoted else code) or code_in_headers(headers, profile)
    if is_overload and status not in GENERIC.refusals.overload_statuses:
        return OVERLOADED
    return code


def code_in_headers(headers: Mapping[str, str], profile: PreparedProfile = GENERIC) -> str | None:
    """Return the code of an error that a header names, None where none does.

    Args:
        headers: names in lower case.
        profile: of the provider that answered.
    """
    for name in profile.refusals.headers:
        value = headers.get(name, "").partition(":")[0].rpartition("#")[2].strip()
        if value:
            return value[:64]
    return None


def lowered_headers(headers: Any) -> dict[str, str]:
    """Return headers by their lower-case names, {} for what are none.

    Takes any mapping, and urllib's ``email.message.Message``, which is none. Of a value that came
    twice, as some gateways send it, one is left.
    """
    items = getattr(headers, "items", None)
    if not callable(items):
        return {}
    pairs: Iterator[tuple[Any, Any]] = iter(items())
    return {
        name.lower(): _once(value)
        for name, value in pairs
        if isinstance(name, str) and isinstance(value, str)
    }


def _once(value: str) -> str:
    if "," not in value:
        return value
    parts = set(value.split(", "))  # so httpx joins them
    return parts.pop() if len(parts) == 1 else value
