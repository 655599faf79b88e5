"""JSON from outside that can be written again as JSON, and that is cheap to walk."""

from __future__ import annotations

import json
import math
from typing import Any, Final

MOST_DEPTH: Final = 100
"""Most levels of nested lists and objects."""
MOST_DIGITS: Final = 1_000
"""Most digits of a whole number: the cost of reading grows with their square."""


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: not JSON, a number that is not finite or very long, text that UTF-8 cannot
            encode, or nested too deep; the message shows nothing of the text.
    """
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_bounded)
        if "\\" in text or not text.isascii():
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(
            f"not JSON at line {error.lineno} column {error.colno}: {error.msg}"
        ) from None
    except UnicodeEncodeError:
        raise ValueError("a text holds a lone surrogate") from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    if _is_deep(value):
        raise ValueError("nested too deep")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [item for part in level for item in _items(part) if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _items(part: Any) -> Any:
    if isinstance(part, dict):
        return part.values()
    return part if isinstance(part, list) else ()


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is not finite")
    return number


def _bounded(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a whole number has more than {MOST_DIGITS:,} digits")
    return int(text)
