"""Headers with an account's budgets: limit, remaining amount and reset time.

Their names differ little (``x-ratelimit-limit-tokens``, ``anthropic-ratelimit-tokens-limit``,
``x-tokenlimit-limit``, ``x-ratelimit-limit-tokens-minute``), so that each is read by its parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from forebay.contracts.quotas import MAX_BUDGET, QuotaBudget, QuotaReading
from forebay.workers.providers.durations import INSTANT_PATTERN, seconds_of
from forebay.workers.providers.facts import Budget, Form, Period, Unit
from forebay.workers.providers.registry import GENERIC, PreparedProfile

_FAMILY: Final = re.compile(r"rate-?limit|tokenlimit")
_ROLES: Final = ("limit", "remaining", "reset")
_PERIODS: Final = {period.value: period for period in Period if period is not Period.AT_ONCE}
_BUDGETS: Final = {
    Budget(Unit.REQUESTS, Period.MINUTE): QuotaBudget.REQUESTS_PER_MINUTE,
    Budget(Unit.REQUESTS, Period.DAY): QuotaBudget.REQUESTS_PER_DAY,
    Budget(Unit.TOKENS, Period.MINUTE): QuotaBudget.TOKENS_PER_MINUTE,
    Budget(Unit.TOKENS, Period.DAY): QuotaBudget.TOKENS_PER_DAY,
}
_FULL_MINUTE_SECONDS = 75.0
"""A minute's budget is full within a minute, and some debt."""
_FAR_DATE_SECONDS = 600.0
"""As `_FULL_MINUTE_SECONDS`, for a reset given as a date: clocks may be minutes off."""
_DAILY_FROM_SECONDS = 600.0
_LONGEST_PERIOD_SECONDS = 2 * 86_400.0
_LONGEST_RESET = 40
_DATE: Final = re.compile(INSTANT_PATTERN)
_WHOLE: Final = re.compile(r"[0-9]{1,13}")


class _Place(NamedTuple):
    """The budget and the role of a header, by its name."""

    family: str
    unit: Unit | None
    period: Period | None
    role: str


class StatedBudget(NamedTuple):
    """The values of one budget in the headers of one answer.

    Attributes:
        budget: which one; its unit is None where no name says so.
        limit: what a whole period holds, None if not stated.
        remaining: what is left, None if not stated.
        reset_seconds: the time until it is whole again, None if not stated.
    """

    budget: Budget
    limit: int | None
    remaining: int | None
    reset_seconds: float | None


def quota_readings(
    headers: Mapping[str, str], now: float, profile: PreparedProfile = GENERIC
) -> list[QuotaReading]:
    """Return the quota readings of headers; invalid values are ignored.

    Where neither a name nor the profile says whether a minute or a day is meant, the reset does, as
    `_is_daily` infers. Where in doubt it is a minute: a day's limit taken for a minute's bounds
    nothing, but a minute's limit taken for a day's would starve the fleet (design 03, *Quotas*).

    Args:
        headers: names in any case.
        now: Unix time in seconds, for a reset that is a date.
        profile: of the provider that answered.
    """
    return [
        QuotaReading(budget=_BUDGETS[stated.budget], limit=stated.limit, remaining=stated.remaining)
        for stated in stated_budgets(headers, now, profile)
        if stated.budget in _BUDGETS and not (stated.limit is None and stated.remaining is None)
    ]


def stated_budgets(
    headers: Mapping[str, str], now: float, profile: PreparedProfile
) -> Iterator[StatedBudget]:
    """Yield each budget in the headers."""
    stated: dict[tuple[str, Unit | None, Period | None], dict[str, str]] = {}
    for name, value in headers.items():
        place = _place_of(name)
        if place is not None:
            stated.setdefault(place[:3], {})[place.role] = value
    for (_, unit, named_period), values in stated.items():
        reset = values.get("reset", "")
        is_usable = isinstance(reset, str) and 0 < len(reset) <= _LONGEST_RESET
        seconds = longest_of(reset, Form.DURATION, now) if is_usable else None
        limit = _count(values.get("limit"), 1)
        remaining = _count(values.get("remaining"), 0)
        period = named_period or (None if unit is None else profile.periods.get(unit))
        if period is None:
            least = _FAR_DATE_SECONDS if _DATE.match(reset) else _FULL_MINUTE_SECONDS
            period = Period.DAY if _is_daily(limit, remaining, seconds, least) else Period.MINUTE
        yield StatedBudget(Budget(unit, period), limit, remaining, seconds)


def exhausted_budget(
    headers: Mapping[str, str], now: float, profile: PreparedProfile = GENERIC
) -> StatedBudget | None:
    """Return the budget that has nothing left by the headers, None for none.

    Of several it is the last one to be whole again.

    Args:
        headers: names in any case.
        now: Unix time in seconds.
        profile: of the provider that answered.
    """
    empty = [stated for stated in stated_budgets(headers, now, profile) if stated.remaining == 0]
    return max(empty, key=lambda stated: stated.reset_seconds or 0.0, default=None)


def reset_seconds(
    headers: Mapping[str, str], now: float, profile: PreparedProfile, unit: Unit | None
) -> float | None:
    """Return the seconds until a refusal's budget is full, by its headers; None if unknown.

    Of a budget of which something is left only if the refusal names its unit.
    """
    found = [
        stated.reset_seconds
        for stated in stated_budgets(headers, now, profile)
        if not stated.remaining or (unit is not None and stated.budget.unit is unit)
    ]
    return max((seconds for seconds in found if seconds is not None and seconds > 0), default=None)


@lru_cache(1024)
def _place_of(name: str) -> _Place | None:
    """Return the budget and role of a header's name, None for other headers."""
    lowered = name.lower()
    family = _FAMILY.search(lowered)
    if family is None:
        return None
    parts = re.split(r"[-_]", lowered[family.end() :])
    role = next((role for role in _ROLES if role in parts), None)
    if role is None:
        return None
    period = next((_PERIODS[part] for part in parts if part in _PERIODS), None)
    unit = _unit_of(parts, is_of_tokens=family[0] == "tokenlimit")
    # Of "project-tokens" and the like nothing is known but when they are whole again.
    rest = [part for part in parts if part and part not in {role, *_PERIODS, *_UNIT_WORDS}]
    return _Place("-".join((lowered[: family.end()], *rest)), None if rest else unit, period, role)


_UNIT_WORDS: Final = frozenset({"req", "request", "requests", "token", "tokens", "input", "output"})


def _unit_of(parts: list[str], *, is_of_tokens: bool) -> Unit | None:
    if is_of_tokens or "tokens" in parts or "token" in parts:
        if "input" in parts:
            return Unit.INPUT_TOKENS
        return Unit.OUTPUT_TOKENS if "output" in parts else Unit.TOKENS
    return Unit.REQUESTS if {"req", "request", "requests"} & {*parts} else None


def _is_daily(
    limit: int | None, remaining: int | None, reset: float | None, least_seconds: float
) -> bool:
    """Return whether a budget is of a day, by the seconds until it is full.

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


def longest_of(text: str, form: Form, now: float) -> float | None:
    """Return the wait in a header; the longest of several that a gateway joined."""
    seconds = seconds_of(text, form, now)
    if seconds is not None or "," not in text:
        return seconds
    found = (seconds_of(part.strip(), form, now) for part in text.split(","))
    return max((one for one in found if one is not None), default=None)


def _count(text: object, least: int) -> int | None:
    """Return the number in a header; the smallest of several that a gateway joined."""
    parts = text.split(",") if isinstance(text, str) else []
    numbers = [int(part) for part in parts if _WHOLE.fullmatch(part.strip())]
    usable = [number for number in numbers if least <= number <= MAX_BUDGET]
    return min(usable, default=None) if len(usable) == len(parts) else None
