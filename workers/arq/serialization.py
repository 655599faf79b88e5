"""Payloads and results of arq jobs as JSON or msgpack, never pickle.

Rules: design 04, *From submit to finish*.

An exception is kept as type, message and traceback; reading it back gives ``TaskFailed``, except
for a cancellation, which arq must see as itself.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from forebay.contracts.checks import shown
from forebay.contracts.errors import ConfigurationError, TaskFailed
from forebay.contracts.extras import how_to_install

SerializerName = Literal["json", "msgpack"]

_ERROR: Final = "__forebay_error__"
_ERROR_FIELDS: Final = {_ERROR, "message", "traceback"}
_PICKLE: Final = b"\x80"
"""The first byte of pickles since 2003; in msgpack it is an empty map, never an arq job."""


class Decoded(bytes):
    """The stored bytes of a job or result that were read and checked already.

    Attributes:
        value: what they say; a serializer's ``load`` returns it.
    """

    value: Any

    @classmethod
    def of(cls, stored: bytes, value: Any) -> Self:
        """Return stored bytes with their value."""
        self = cls(stored)
        self.value = value
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSerializer:
    """Writes and reads jobs and results.

    Attributes:
        name: ``json`` or ``msgpack``; all of a pool must use the same.
        dump: writes; a value that it has no form for is a TypeError.
        load: reads what ``dump`` wrote, or returns the value of `Decoded`; anything else, a pickle
            above all, is a ConfigurationError.
    """

    name: SerializerName
    dump: Callable[[Any], bytes]
    load: Callable[[bytes], Any]


def _encode(value: Any) -> Any:
    if isinstance(value, BaseException):
        return {
            _ERROR: type(value).__qualname__,
            "message": text_of(value)[:2000],
            "traceback": "".join(traceback.format_exception(value))[-8000:],
        }
    raise TypeError(f"{type(value).__qualname__} is not JSON")


def text_of(error: BaseException) -> str:
    """Return the message of an exception whose own code may raise anything."""
    try:
        return str(error)
    except BaseException as raised:  # noqa: BLE001 - the code of a job's exception
        return f"its message cannot be read: {type(raised).__qualname__}"


def _decode(value: dict[str, Any]) -> Any:
    if value.keys() != _ERROR_FIELDS or not all(isinstance(text, str) for text in value.values()):
        return value
    if value[_ERROR] == "CancelledError":
        return asyncio.CancelledError(value["message"])
    return TaskFailed(value[_ERROR], value["message"], value["traceback"])


_to_json = json.JSONEncoder(default=_encode, separators=(",", ":")).encode
_from_json = json.JSONDecoder(object_hook=_decode).decode


def _dump(write: Callable[[Any], bytes], value: Any) -> bytes:
    """Return a value as it is stored; code of the value's own class may raise anything."""
    try:
        return write(value)
    except Exception:
        raise
    except BaseException as error:
        raise TypeError(f"a value's own code raised {type(error).__qualname__}") from error


def dump_job(value: Any) -> bytes:
    """Return a job or result as JSON; arguments must be JSON values.

    Raises:
        TypeError: a value that JSON has no form for.
    """
    return _dump(lambda value: _to_json(value).encode(), value)


def load_job(payload: bytes) -> Any:
    """Return the job or result that `dump_job` wrote.

    Raises:
        ConfigurationError: the payload is not JSON, such as a pickle of plain arq.
    """
    if isinstance(payload, Decoded):
        return payload.value
    try:
        return _from_json(payload.decode())
    except (ValueError, RecursionError) as error:
        raise _unreadable("JSON") from error


JSON: Final = JobSerializer(name="json", dump=dump_job, load=load_job)


def serializer_of(name: str) -> JobSerializer:
    """Return the serializer of a name.

    Raises:
        ConfigurationError: there is none of this name, or msgpack is not installed.
    """
    if name == "json":
        return JSON
    if name != "msgpack":
        raise ConfigurationError(
            f"serializer is {shown(name)}, expected 'json' or 'msgpack'; use one of them."
        )
    try:
        msgpack = importlib.import_module("msgpack")
    except ImportError as error:
        raise ConfigurationError(
            "serializer 'msgpack' expects msgpack to be installed, and it is not; run"
            f" {how_to_install('msgpack')}, or use 'json'."
        ) from error

    def dump(value: Any) -> bytes:
        return _dump(lambda value: bytes(msgpack.packb(value, default=_encode)), value)

    def load(payload: bytes) -> Any:
        if isinstance(payload, Decoded):
            return payload.value
        if payload.startswith(_PICKLE):
            raise _unreadable("msgpack")
        try:
            return msgpack.unpackb(payload, object_hook=_decode)
        except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
            raise _unreadable("msgpack") from error

    return JobSerializer(name="msgpack", dump=dump, load=load)


def _unreadable(expected: str) -> ConfigurationError:
    return ConfigurationError(
        f"a job's payload is not {expected}; jobs must be enqueued through Forebay with this pool's"
        " serializer. Pickles are never read."
    )
