"""Checks of values that users give: names, numbers, choices, types; errors say the expected.

A check returns the value or None, and raises `ConfigurationError` with the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, TypeVar

from forebay.contracts.errors import ConfigurationError

MAX_NAME_BYTES = 512
"""Longest name from outside, in UTF-8 bytes: provider, model, group, task id, run, column."""

MIN_WEIGHT, MAX_WEIGHT = 0.001, 1000.0
"""Bounds of every fair-queue weight (design 03, *Order*)."""

MAX_SPAN_SECONDS: Final = 3e9
"""Longest span, some 95 years: added to a server's clock, it keeps microseconds in a double."""

MAX_INSTANT_SECONDS: Final = 253_402_300_800
"""The end of the year 9999, which is the last one of a ``datetime``, in seconds since the epoch."""

_LONGEST_SHOWN: Final = 80
_MOST_LISTED: Final = 12

E = TypeVar("E", bound=StrEnum)


def shown(value: object) -> str:
    """Return the text of a value for an error message: bounded, and never raises."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - integers of 4,300 digits and foreign classes refuse
        text = f"something of type {type(value).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def listed(names: Sequence[str]) -> str:
    """Return names as an error message lists them: the first twelve, and how many follow."""
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_name(what: str, name: str) -> str:
    """Return ``name`` if it can be part of a key, else raise.

    Args:
        what: what the name names, for the message ("provider name").
        name: any text; braces, spaces, newlines and non-ASCII are fine, keys encode them.

    Raises:
        ConfigurationError: not a string, empty, or above ``MAX_NAME_BYTES`` bytes.
    """
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{what} must be a non-empty string, not {shown(name)}; name it.")
    try:
        length = len(name) if name.isascii() else len(name.encode())
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"{what} {name[:40]!r} holds a lone surrogate; use text that UTF-8 can encode."
        ) from error
    if length > MAX_NAME_BYTES:
        raise ConfigurationError(
            f"{what} {name[:40]!r}... is {length} bytes long, the most is {MAX_NAME_BYTES};"
            " shorten it."
        )
    return name


def check_weight(what: str, weight: float) -> float:
    """Return ``weight`` as a float if a fair queue can use it, else raise ConfigurationError."""
    if not _is_number(weight) or not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        raise ConfigurationError(
            f"{what} has weight {shown(weight)}, expected a number from {MIN_WEIGHT} to"
            f" {MAX_WEIGHT:g}; only the ratio of weights matters."
        )
    return float(weight)


def check_cap(what: str, cap: int, largest: int) -> int:
    """Return ``cap`` if it is a whole number from 1 to ``largest``, else raise.

    Raises:
        ConfigurationError: it is not.
    """
    if isinstance(cap, bool) or not isinstance(cap, int) or not 1 <= cap <= largest:
        raise ConfigurationError(
            f"{what} is {shown(cap)}, expected a whole number from 1 to {largest}; give one."
        )
    return cap


def check_span(what: str, seconds: float) -> float:
    """Return a span of time if a server's clock can be moved on by it, else raise.

    Raises:
        ConfigurationError: not a number, or above ``MAX_SPAN_SECONDS``.
    """
    if not _is_number(seconds) or not seconds <= MAX_SPAN_SECONDS:
        raise ConfigurationError(
            f"{what} is {shown(seconds)}, expected seconds, at most {MAX_SPAN_SECONDS:g}; give a"
            " number of them."
        )
    return seconds


def check_instant(what: str, seconds: float) -> float:
    """Return an instant in seconds since the epoch if a server can wait for it, else raise.

    Raises:
        ConfigurationError: not a number, or after the year 9999.
    """
    if not _is_number(seconds) or not abs(seconds) <= MAX_INSTANT_SECONDS:
        raise ConfigurationError(
            f"{what} is {shown(seconds)}, expected seconds since the epoch, up to the year 9999;"
            " give such an instant."
        )
    return seconds


def check_choice(what: str, value: Any, choices: type[E]) -> E:
    """Return the member of ``choices`` that ``value`` is or names, else raise.

    Args:
        what: what was chosen, for the message ("request domain").
        value: a member, or its text.
        choices: the names that the design allows.

    Raises:
        ConfigurationError: none of them.
    """
    try:
        return choices(value)
    except ValueError as error:
        raise ConfigurationError(
            f"{what} is {shown(value)}, expected one of {', '.join(choices)}; use"
            f" {choices.__name__}."
        ) from error


def check_type(what: str, value: object, kind: type) -> None:
    """Refuse a value of another class than the contract names.

    Raises:
        ConfigurationError: not a ``kind``.
    """
    if not isinstance(value, kind):
        raise ConfigurationError(f"{what} is {shown(value)}, expected {kind.__name__}; pass one.")


def check_methods(what: str, value: object, names: tuple[str, ...], remedy: str) -> None:
    """Refuse a value that is no object with the methods of a protocol; a class is none.

    Args:
        what: what it is given as, for the message ("classifier").
        value: shown by its type alone: it may be a URL with a password.
        names: of the methods.
        remedy: ends the message.

    Raises:
        ConfigurationError: a class, or a method is not there.
    """
    if isinstance(value, type):
        raise ConfigurationError(
            f"{what} is the class {value.__name__}, expected an object of it; {remedy}."
        )
    lacking = [name for name in names if not callable(getattr(value, name, None))]
    if lacking:
        raise ConfigurationError(
            f"{what} is of type {type(value).__name__}, expected an object with the methods"
            f" {', '.join(names)}; {remedy}."
        )


def check_seconds(what: str, value: object) -> None:
    """Raise unless the value is a number of seconds; the caller handles None itself.

    Raises:
        ConfigurationError: no number.
    """
    if not _is_number(value):
        raise ConfigurationError(
            f"{what} is {shown(value)}, expected a number of seconds or None; convert it."
        )


def check_wait(seconds: float) -> None:
    """Raise unless the value is a queue wait in seconds; the caller handles None, for ever.

    Raises:
        ConfigurationError: no number of seconds from 0 on.
    """
    check_seconds("queue_wait_timeout_seconds", seconds)
    if not seconds >= 0:  # not "<": NaN is below nothing
        raise ConfigurationError(
            f"queue_wait_timeout_seconds is {shown(seconds)}, expected a number from 0 on; use 0 to"
            " take only what is free now, None to wait for ever."
        )


def check_tokens(what: str, count: object) -> None:
    """Raise unless the value is a number of tokens.

    Raises:
        ConfigurationError: no whole number from 0 on.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ConfigurationError(
            f"{what} is {shown(count)}, expected a whole number of tokens from 0 on; round it."
        )
