"""JSON from outside that can be written again as JSON."""

from __future__ import annotations

import json
import math
from typing import Any


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: not JSON, a number that is not finite, text that UTF-8 cannot encode, or nested
            too deep; the message shows nothing of the text.
    """
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
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
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is not finite")
    return number
