"""Server-sent events, put together from the lines of a stream (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

MOST_DATA_BYTES: Final = 1_048_576
"""Of an event with more data, in several lines, the data is dropped."""

_MARK: Final = "\ufeff".encode()
_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")


class Event(NamedTuple):
    """One event.

    Attributes:
        name: of its ``event:`` line, "" without one.
        data: of its ``data:`` lines, joined by line feeds.
    """

    name: str
    data: bytes


class EventLines:
    """Joins the lines of a stream, given in any parts, to events.

    Some gateways send no empty line between events: an ``event:`` line ends the event before it,
    and so does a ``data:`` line that follows a whole JSON document.

    Attributes:
        name: of the event that is not complete yet, "" without one.
    """

    def __init__(self, name: str = "", data: bytes = b"") -> None:
        self.name = name
        self._data = data

    def is_left_closed_by(self, lines: bytes) -> bool:
        """Whether no event is incomplete, and none would be after these lines."""
        return not self.name and not self._data and lines.endswith(_ENDS)

    def events(self, lines: bytes) -> Iterator[Event]:
        """Yield the events that the next whole lines complete."""
        for line in lines.splitlines():
            if line.startswith(_MARK):
                line = line.removeprefix(_MARK)  # noqa: PLW2901 - the first line of some streams
            if line.startswith(b"data:"):
                data = line[5:].strip()
                if self._is_document():
                    yield self._ended()
                joined = self._data + b"\n" + data if self._data else data
                self._data = joined if len(self._data) <= MOST_DATA_BYTES else b""
            elif line.startswith(b"event:"):
                if self._data:
                    yield self._ended()
                self.name = line[6:].strip().decode(errors="replace")
            elif not line:
                if self._data:
                    yield self._ended()
                self.name = ""

    def last_events(self, lines: bytes) -> Iterator[Event]:
        """Yield the events that would be complete if the stream ended after these lines."""
        yield from EventLines(self.name, self._data).events(lines + b"\n\n")

    def end_event(self) -> None:
        """Forget the incomplete event, whose data was read elsewhere."""
        self.name, self._data = "", b""

    def _is_document(self) -> bool:
        data = self._data
        return data.startswith(b"{") and data.count(b"{") == data.count(b"}")

    def _ended(self) -> Event:
        event = Event(self.name, self._data)
        self.end_event()
        return event
