"""Payloads and results of arq jobs as JSON, never pickle (spec 04).

An exception is kept as type, message and traceback; reading it back gives ``TaskFailed``, except
for a cancellation, which arq must see as itself.
"""

from __future__ import annotations

import asyncio
import json
import traceback
from typing import Any, Final

from contracts.errors import ConfigurationError, TaskFailed

_ERROR: Final = "__forebay_error__"


def _encode(value: Any) -> Any:
    if isinstance(value, BaseException):
        return {
            _ERROR: type(value).__qualname__,
            "message": str(value)[:2000],
            "traceback": "".join(traceback.format_tb(value.__traceback__))[-8000:],
        }
    raise TypeError(f"{type(value).__qualname__} is not JSON")


def _decode(value: dict[str, Any]) -> Any:
    if _ERROR not in value:
        return value
    if value[_ERROR] == "CancelledError":
        return asyncio.CancelledError(value["message"])
    return TaskFailed(value[_ERROR], value["message"], value["traceback"])


def dump_job(value: Any) -> bytes:
    """Return a job or result as JSON; arguments must be JSON values.

    Raises:
        TypeError: a value that JSON has no form for.
    """
    return json.dumps(value, default=_encode, separators=(",", ":")).encode()


def load_job(payload: bytes) -> Any:
    """Return what ``dump_job`` was given.

    Raises:
        ConfigurationError: the payload is not JSON, such as a pickle of plain arq.
    """
    try:
        return json.loads(payload, object_hook=_decode)
    except (ValueError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            "a job's payload is not JSON; jobs must be enqueued through Forebay, which never reads"
            " pickles."
        ) from error
