"""Events in a file, one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from forebay.contracts.events import RuntimeEvent
from forebay.sinks.base import BothStreams

_encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""The JSON encoder, made once, as `json.dumps` with options makes one in each call."""


class JsonLinesSink(BothStreams):
    """Appends each event to a file as one line; several processes may append to the same file.

    Args:
        path: the file, which is made where it is missing.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 - until `close`

    def take(self, event: RuntimeEvent) -> None:
        """Append an event; the line is one write, so that lines of processes never mix."""
        self._file.write(_encode(event.as_json()).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
