"""Reads the text of a refusal: its wait, its budget, and whether the request can fit.

Providers word these alike, so the patterns are the same for all; a profile adds what its provider
words otherwise. Of a text nothing but these comes out: it could quote a prompt.
"""

from __future__ import annotations

import re
from typing import Final

from forebay.workers.providers.durations import DURATION_PATTERN, INSTANT_PATTERN, seconds_of
from forebay.workers.providers.facts import Budget, Form, Period, Unit

MOST_CHARACTERS: Final = 4_096
"""Most characters of a message that are read."""

_WAIT: Final = re.compile(
    r"\b(?:try(?: it| your request)?(?: again)?|retry(?:ing)?|retry your request|wait|come back|"
    r"resets?|available again|regain access|replenished)"
    r"(?:ing)?\W{1,3}(?:again )?(?:(?:in|after|for|at|on|until)\W{1,3})?"
    r"(?:(?:about|approximately|at least) )?"
    rf"(?P<wait>{DURATION_PATTERN}|{INSTANT_PATTERN}|[0-9]{{1,6}}(?:\.[0-9]+)?(?![\w.]))",
    re.IGNORECASE,
)

_NUMBER = r"[0-9][0-9,_]*(?:\.[0-9]+)?"
_TOO_LARGE: Final = re.compile(
    r"\b(?:request|prompt|input|message|payload|body)s?(?: \w+){0,2} (?:is |are |was )?too"
    r" (?:large|long|big)\b|\btoo large for\b|\bnever fits?\b|"
    r"\brequired for long context\b",
    re.IGNORECASE,
)
_LIMIT: Final = re.compile(
    rf"\b(?:limit|maximum|allowed|cannot exceed)\b(?: value| tokens?| is| of|:|=|\(){{0,3}} ?"
    rf"(?P<number>{_NUMBER})|(?P<before>{_NUMBER}) (?:maximum|max\b|limit)",
    re.IGNORECASE,
)
_ASKED: Final = re.compile(
    rf"\brequested\b(?: tokens?| is| of|:|=){{0,2}} ?(?P<number>{_NUMBER})|"
    rf"\brequest(?:s|ing)? (?:for |of |with )?(?P<with>{_NUMBER}) tokens",
    re.IGNORECASE,
)
_OVERLOAD: Final = re.compile(
    r"\boverloaded\b|\bserver(?: is)?(?: too)? busy\b|\b(?:at|over) capacity\b|\bhigh demand\b|"
    r"\btoo many (?:concurrent )?requests\b|\bmaximum pending requests\b|\brate limit",
    re.IGNORECASE,
)
_NOTHING: Final = re.compile(r"\blimit(?: is| of|:)? ?0\b(?![.,]?[0-9])", re.IGNORECASE)
_NO_FUNDS: Final = re.compile(
    r"\bcredit balance is too low\b|\b(?:insufficient|out of|no|not enough) (?:account )?"
    r"(?:balance|credits?|funds)\b|\bcredits? (?:are|is|have been) (?:depleted|exhausted)\b",
    re.IGNORECASE,
)
_REFILL: Final = re.compile(
    r"\bregain access (?:on|at|in)\b|\bquota will be replenished\b", re.IGNORECASE
)

_SHORT: Final = re.compile(r"\b(?P<io>[IO]?)(?P<unit>[TRI])P(?P<period>[SMHD])\b")
_CAMEL_PER: Final = re.compile(r"(?:Per|By)(?=[A-Z])")
_PER_SECONDS: Final = re.compile(r"\bper (?P<seconds>60|3600|86400)s\b")
_PERIOD: Final = re.compile(
    r"(?:\bper[ -]?|/ ?|_per_|-per-)(?P<name>second|sec|minute|min|hour|day|month)|"
    r"(?:\b|_)(?P<adverb>hourly|daily|monthly)(?:\b|_)",
)
_AT_ONCE: Final = re.compile(
    r"concurren|simultaneous|in[ -]flight|parallel requests", re.IGNORECASE
)
_UNIT: Final = re.compile(
    r"(?:(?P<side>input|output|prompt|completion)[ _-]?)?tokens?|requests?|\bcalls\b",
)
_NAMES_OF_SECONDS: Final = {"60": "minute", "3600": "hour", "86400": "day"}
_PERIODS: Final = {
    "second": Period.SECOND,
    "sec": Period.SECOND,
    "s": Period.SECOND,
    "minute": Period.MINUTE,
    "min": Period.MINUTE,
    "m": Period.MINUTE,
    "hour": Period.HOUR,
    "hourly": Period.HOUR,
    "h": Period.HOUR,
    "day": Period.DAY,
    "daily": Period.DAY,
    "d": Period.DAY,
    "month": Period.MONTH,
    "monthly": Period.MONTH,
}


def wait_in(text: str, now: float) -> float | None:
    """Return the seconds that a text asks to wait, None where it names none."""
    found = _WAIT.search(text[:MOST_CHARACTERS])
    seconds = None if found is None else seconds_of(found["wait"], Form.SECONDS, now)
    return seconds if seconds is not None and seconds > 0 else None


def never_fits(text: str) -> bool:
    """Whether a text says that the request is larger than what the limit can ever hold."""
    text = text[:MOST_CHARACTERS]
    asked, limit = _first(_ASKED, text), _first(_LIMIT, text)
    if asked is not None and limit is not None:
        return asked > limit
    return bool(_TOO_LARGE.search(text))


def allows_nothing(text: str) -> bool:
    """Whether a text names a limit of 0, so that the account has no such quota."""
    return bool(_NOTHING.search(text[:MOST_CHARACTERS]))


def lacks_funds(text: str) -> bool:
    """Whether a text says that the account has nothing left to pay with."""
    return bool(_NO_FUNDS.search(text[:MOST_CHARACTERS]))


def names_refill(text: str) -> bool:
    """Whether a text says when a used up quota is whole again, which not only a 429 does."""
    return bool(_REFILL.search(text[:MOST_CHARACTERS]))


def says_overload(text: str) -> bool:
    """Whether a text says that the provider is overloaded."""
    return bool(_OVERLOAD.search(text[:MOST_CHARACTERS]))


def budget_in(text: str) -> Budget | None:
    """Return the budget that a text or an identifier names, None where it names no period."""
    text = text[:MOST_CHARACTERS]
    short = _SHORT.search(text)
    if short is not None:
        return Budget(_unit_of_letters(short), _PERIODS[short["period"].lower()])
    if _AT_ONCE.search(text):
        return Budget(Unit.REQUESTS, Period.AT_ONCE)
    spaced = _CAMEL_PER.sub(" per ", text).lower()
    spaced = _PER_SECONDS.sub(lambda match: f"per {_NAMES_OF_SECONDS[match['seconds']]}", spaced)
    found = _PERIOD.search(spaced)
    if found is None:
        return None
    unit = _unit_in(spaced[: found.start()], spaced)
    return Budget(unit, _PERIODS[found["name"] or found["adverb"]])


def _unit_of_letters(short: re.Match[str]) -> Unit:
    if short["unit"] != "T":
        return Unit.REQUESTS
    return {"I": Unit.INPUT_TOKENS, "O": Unit.OUTPUT_TOKENS}.get(short["io"], Unit.TOKENS)


def _unit_in(before: str, text: str) -> Unit | None:
    """Return the unit of a budget: the last one before the period, else the first."""
    last = list(_UNIT.finditer(before))[-1:]
    found = last[0] if last else _UNIT.search(text)
    if found is None:
        return None
    if "token" not in found[0]:
        return Unit.REQUESTS
    if found["side"] in {"input", "prompt"}:
        return Unit.INPUT_TOKENS
    return Unit.OUTPUT_TOKENS if found["side"] else Unit.TOKENS


def _first(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.search(text)
    if found is None:
        return None
    number = next(group for group in found.groups() if group is not None)
    return float(number.replace(",", "").replace("_", "").rstrip("."))
