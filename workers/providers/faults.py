"""Reads code, wait and budget of an error in a provider's answer.

Only numbers and short identifiers come out of here, never text: it could quote a prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from forebay.workers.providers import messages
from forebay.workers.providers.durations import seconds_of
from forebay.workers.providers.facts import Budget, Form, Period
from forebay.workers.providers.registry import GENERIC, PreparedProfile

REQUEST_TOO_LARGE: Final = "request_too_large"
"""Code of a refusal that names what was requested and a limit that can never hold it."""

NO_QUOTA: Final = "no_quota"
"""Code of a refusal that names a limit of 0: the account has none of what was asked for."""

NO_FUNDS: Final = "no_funds"
"""Code of a refusal that says that nothing is left to pay with."""

QUOTA_USED_UP: Final = "quota_used_up"
"""Code of a refusal, of any status, that states when a quota is full again."""

INVALID: Final = frozenset(
    {"authentication_error", "invalid_request_error", "not_found_error", "permission_error"}
)
"""Codes that, within a good status, say that the request can never be served."""

OVERLOADED: Final = "overloaded"
"""Code of an error whose message reports an overload, and whose own code does not."""

_SAY_LITTLE: Final = frozenset(
    {"api_error", "error", "internal_error", "internal_server_error", "internalservererror"}
    | {"server_error", "servererror", "unknown_error"}
)

UNNAMED_ERROR: Final = "unnamed_error"
"""Error code of an error without a code inside an answer with a good status."""

LONGEST_ERROR_BODY: Final = 65_536
_CODE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_HTTP_STATUSES: Final = range(100, 600)
_MESSAGES: Final = ("message", "Message", "detail", "error", "msg", "metadata.raw", "delta.error")
_REASONS: Final = (
    "choices.finish_reason",
    "finish_reason",
    "delta.finish_reason",
    "response.finish_reason",
)
_MOST_VALUES: Final = 64


class Fault(NamedTuple):
    """Code, wait and budget of an error.

    Attributes:
        code: its short code; None where it has none.
        wait_seconds: how long it asks to wait.
        budget: which budget it speaks of.
    """

    code: str | None = None
    wait_seconds: float | None = None
    budget: Budget | None = None


NO_FAULT: Final = Fault()


def fault_in_body(body: bytes, profile: PreparedProfile = GENERIC, *, now: float = 0.0) -> Fault:
    """Return the error in a body, `NO_FAULT` for one above 64 kB or without JSON."""
    if len(body) > LONGEST_ERROR_BODY:
        return NO_FAULT
    try:
        return fault_in(json.loads(body), profile, now=now)
    except (ValueError, RecursionError):
        return NO_FAULT


def fault_in(document: Any, profile: PreparedProfile = GENERIC, *, now: float = 0.0) -> Fault:
    """Return the error in a JSON document.

    Args:
        document: a parsed body, or the event of a stream.
        profile: of the provider that answered.
        now: Unix time in seconds, for instants in it.
    """
    if isinstance(document, list) and len(document) == 1:  # Google wraps its errors so
        document = document[0]
    if not isinstance(document, Mapping):
        return NO_FAULT
    errors = list(_errors_in(document, profile))
    code = _code_of(errors, profile) or next(_known_reasons(document, profile), None)
    text = _text_of(errors)
    if messages.never_fits(text):
        code = REQUEST_TOO_LARGE
    elif messages.allows_nothing(text) or _has_no_limit(document, profile):
        code = NO_QUOTA
    elif messages.lacks_funds(text):
        code = NO_FUNDS
    elif messages.names_refill(text):
        code = QUOTA_USED_UP
    elif _says_no_more(code, profile) and messages.says_overload(text):
        code = OVERLOADED
    return Fault(
        code, _wait_of(document, text, profile, now), _budget_of(document, code, text, profile)
    )


def _says_no_more(code: str | None, profile: PreparedProfile) -> bool:
    """Whether a code is unspecific: any server's error, an unknown code, or none."""
    lowered = (code or "").lower()
    return lowered in _SAY_LITTLE or lowered not in profile.known_codes | INVALID


def _has_no_limit(document: Mapping[str, Any], profile: PreparedProfile) -> bool:
    """Whether the field with the limit of a refused budget is 0."""
    return any(
        value in {0, "0"}
        for path in profile.refusals.limits
        for value in values_at(document, path)
        if isinstance(value, int | str)
    )


def has_error(document: Mapping[str, Any], profile: PreparedProfile) -> bool:
    """Whether a document of an answer with a good status holds an error."""
    kind = document.get("type")
    if (isinstance(kind, str) and kind in profile.streams.failed) or document.get(
        "object"
    ) == "error":
        return True
    if next(_errors_in_places(document, profile), None) is not None:
        return True
    return next(_failed_choices(document, profile), None) is not None


def values_at(document: Any, path: str) -> Iterator[Any]:
    """Yield the values at a dotted path; each item of a list is followed."""
    found = [document]
    for name in path.split(".") if path else ():
        items = [item for one in found for item in (one if isinstance(one, list) else [one])]
        found = [
            item[name]
            for item in items[:_MOST_VALUES]
            if isinstance(item, Mapping) and name in item
        ]
    for one in found:
        yield from one if isinstance(one, list) else [one]


def short_code(value: Any) -> str | None:
    """Return a value as a code, None for free text and for numbers that are no HTTP status."""
    if type(value) is int:
        return str(value) if value in _HTTP_STATUSES else None
    if not isinstance(value, str):
        return None
    value = value.rpartition("#")[2]  # AWS puts a namespace before it
    return value if _CODE.fullmatch(value) else None


def _errors_in(
    document: Mapping[str, Any], profile: PreparedProfile
) -> Iterator[Mapping[str, Any]]:
    """Yield the error objects of a document, the innermost of a place first."""
    for found in _errors_in_places(document, profile):
        if isinstance(found, Mapping | str):
            yield found if isinstance(found, Mapping) else {"message": found}
    kinds = {*profile.streams.failed, *profile.streams.last, "message"}
    if isinstance(kind := document.get("type"), str) and kind in kinds:  # no code, but the event's
        document = {**document, "type": None}
    yield document


def _errors_in_places(document: Mapping[str, Any], profile: PreparedProfile) -> Iterator[Any]:
    """Yield the texts and objects at the places where a document may hold its error."""
    for place in profile.refusals.places:
        for found in values_at(document, place) if place else ():
            if any(found.values()) if isinstance(found, Mapping) else found:
                yield found
    for key, value in document.items():  # AWS: {"ThrottlingException": {...}}
        if isinstance(key, str) and key.endswith("Exception") and value is not None:
            yield {"code": key, **(value if isinstance(value, Mapping) else {})}


def _failed_choices(document: Mapping[str, Any], profile: PreparedProfile) -> Iterator[str]:
    """Yield the reasons for which choices ended that are errors."""
    for place in _REASONS:
        for reason in values_at(document, place):
            if isinstance(reason, str) and reason in profile.streams.failed_choice:
                yield reason


def _known_reasons(document: Mapping[str, Any], profile: PreparedProfile) -> Iterator[str]:
    """Yield the reasons of failed choices that are codes of the profile."""
    return (one for one in _failed_choices(document, profile) if one.lower() in profile.known_codes)


def _code_of(errors: list[Mapping[str, Any]], profile: PreparedProfile) -> str | None:
    """Return the most telling code: a known reason, an account's, a known one, a name, a number."""
    refusals = profile.refusals
    for reason in (
        value for error in errors for field in refusals.reasons for value in values_at(error, field)
    ):
        if isinstance(reason, str) and reason.lower() in profile.known_codes:
            return reason
    named: list[str] = []
    numbers: list[str] = []
    for error in errors:
        for field in refusals.codes:
            for value in values_at(error, field):
                code = short_code(value)
                if code is not None:
                    (numbers if code.isdigit() else named).append(code)
        if named or numbers:
            break
    codes = named + numbers
    accounts = (code for code in codes if code.lower() in refusals.account)
    known = (code for code in codes if code.lower() in profile.known_codes | INVALID)
    return next(accounts, next(known, codes[0] if codes else None))


def _text_of(errors: list[Mapping[str, Any]]) -> str:
    texts = (text for error in errors for field in _MESSAGES for text in values_at(error, field))
    found = [text[: messages.MOST_CHARACTERS] for text in texts if isinstance(text, str)]
    return "\n".join(dict.fromkeys(found[:4]))


def _wait_of(document: Any, text: str, profile: PreparedProfile, now: float) -> float | None:
    found = [
        seconds_of(value, form, now)
        for path, form in profile.waits.fields
        for value in values_at(document, path)
    ]
    for pattern in profile.waits.texts:
        told = re.search(pattern, text, re.IGNORECASE)
        found.append(None if told is None else seconds_of(told["wait"], Form.SECONDS, now))
    # Google tells the seconds of the next minute in a field and those of the day in the text.
    found.append(messages.wait_in(text, now))
    return max((seconds for seconds in found if seconds is not None and seconds > 0), default=None)


def _budget_of(
    document: Any, code: str | None, text: str, profile: PreparedProfile
) -> Budget | None:
    for path in profile.waits.budget_fields:
        for value in values_at(document, path):
            found = messages.budget_in(value) if isinstance(value, str) else None
            if found is not None:
                return found
    for named, budget in profile.refusals.budgets:
        if named == (code or "").lower():
            return budget
    for pattern, budget in profile.waits.budget_texts:
        if re.search(pattern, text, re.IGNORECASE):
            return budget
    found = messages.budget_in(text) or (None if code is None else messages.budget_in(code))
    return found if found is None or found.period is not Period.SECOND else None
