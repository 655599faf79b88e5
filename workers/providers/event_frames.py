"""Frames of ``application/vnd.amazon.eventstream``, as Bedrock streams its answers.

A frame is: its length and its headers' length (4 bytes each, big-endian), a checksum of these
(4 bytes), the headers, the payload, and a checksum of all (4 bytes). The bytes pass to the SDK
whatever is read here, so the checksums are left to it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

MOST_FRAME_BYTES: Final = 1_048_576
"""A longer frame is none."""

_PRELUDE: Final = 12
_CHECKSUM: Final = 4
_TEXT: Final = 7
_FIXED_LENGTHS: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


class Frame(NamedTuple):
    """One event of a stream.

    Attributes:
        headers: those that are texts.
        payload: mostly JSON.
    """

    headers: dict[str, str]
    payload: bytes

    @property
    def exception(self) -> str | None:
        """The type of the error that this frame is, None for any other."""
        if self.headers.get(":message-type") not in {"exception", "error"}:
            return None
        named = self.headers.get(":exception-type") or self.headers.get(":error-code")
        return named or "unnamed_error"

    def document(self) -> Any:
        """Return the payload parsed, or what it carries in base64 as a chunk does.

        Raises:
            ValueError: it is no JSON.
        """
        found = json.loads(self.payload or b"{}")
        if isinstance(found, dict) and isinstance(found.get("bytes"), str):
            try:
                return json.loads(base64.b64decode(found["bytes"]))
            except binascii.Error as error:
                raise ValueError(str(error)) from error
        return found


class FrameReader:
    """Cuts a stream, given in any parts, into frames."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def frames(self, part: bytes) -> Iterator[Frame]:
        """Yield the frames that the next bytes complete.

        Raises:
            ValueError: these bytes are no frames.
        """
        self._kept += part
        while len(self._kept) >= _PRELUDE:
            length = int.from_bytes(self._kept[:4])
            headers_length = int.from_bytes(self._kept[4:8])
            if not _PRELUDE + headers_length + _CHECKSUM <= length <= MOST_FRAME_BYTES:
                raise ValueError("not a frame of an event stream")
            if len(self._kept) < length:
                return
            frame = bytes(self._kept[:length])
            del self._kept[:length]
            payload_at = _PRELUDE + headers_length
            yield Frame(dict(_texts(frame[_PRELUDE:payload_at])), frame[payload_at:-_CHECKSUM])


def _texts(data: bytes) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(data):
        name_end = at + 1 + data[at]
        name, kind = data[at + 1 : name_end].decode(errors="replace"), data[name_end]
        at = name_end + 1
        if kind in _FIXED_LENGTHS:
            at += _FIXED_LENGTHS[kind]
            continue
        value_at = at + 2
        at = value_at + int.from_bytes(data[at:value_at])
        if kind == _TEXT:
            yield name, data[value_at:at].decode(errors="replace")
