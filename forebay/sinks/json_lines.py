"""Events in a file, one JSON object a line."""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from forebay.contracts.events import RuntimeEvent
from forebay.coordinator.logs import Logger
from forebay.sinks.base import BothStreams

LINES_PER_WRITE: Final = 64
"""The lines of one write: few, as the thread keeps the event loop waiting while it makes them."""

log = Logger("forebay.events")


class JsonLinesSink(BothStreams):
    """Appends each event to a file as one line; several processes may append to the same file.

    A thread writes the lines of the last ``flush_seconds`` at once, so that a slow disk holds no
    work up; a process that is killed loses them. Lines that cannot be written, and the oldest of
    more than ``most_waiting`` events, are dropped and counted.

    Args:
        path: the file, which is made where it is missing.
        flush_seconds: longest time from an event to its line in the file.
        most_waiting: events that wait to be written.

    Raises:
        OSError: the file cannot be opened.

    Attributes:
        dropped: lines that were not written.
    """

    def __init__(
        self, path: str | Path, *, flush_seconds: float = 0.1, most_waiting: int = 100_000
    ) -> None:
        self.dropped = 0
        self._path = Path(path)
        self._flush_seconds = flush_seconds
        self._file = self._path.open("ab", buffering=0)
        self._waiting: deque[RuntimeEvent] = deque(maxlen=most_waiting)
        self._closing = threading.Event()
        self._has_events = threading.Event()
        self._lock = threading.Lock()
        self._process_id = 0
        self._writer: threading.Thread | None = None
        self._is_torn = False
        self._is_failing = False

    def take(self, event: RuntimeEvent) -> None:
        """Let an event wait for the next write.

        Raises:
            OSError: the sink was closed.
        """
        if self._closing.is_set():
            raise OSError(f"the sink of {self._path} is closed; close it after the connection.")
        if self._process_id != os.getpid():
            self._begin()
        if len(self._waiting) == self._waiting.maxlen:
            self.dropped += 1
        self._waiting.append(event)
        self._has_events.set()

    def close(self) -> None:
        """Write what waits and close the file; does nothing the second time."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._has_events.set()
        if self._writer is not None and self._process_id == os.getpid():
            self._writer.join()
        elif self._process_id:
            self._waiting.clear()  # in a forked child: the parent writes those
        self._write_all()
        self._file.close()
        atexit.unregister(self.close)

    def _begin(self) -> None:
        """Start the thread that writes, in a forked child its own."""
        with self._lock:
            if self._process_id == os.getpid():
                return  # another thread was first
            if self._process_id:
                self._waiting.clear()  # the parent writes those
                self._has_events = threading.Event()
            self._writer = threading.Thread(target=self._run, name="forebay-events", daemon=True)
            self._writer.start()
            atexit.register(self.close)
            self._process_id = os.getpid()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._has_events.wait()
            self._closing.wait(self._flush_seconds)  # more come, and travel together
            self._has_events.clear()
            self._write_all()

    def _write_all(self) -> None:
        while self._waiting:
            count = min(LINES_PER_WRITE, len(self._waiting))
            lines = []
            for event in [self._waiting.popleft() for _ in range(count)]:
                try:
                    lines.append(event.as_json_text())
                except (TypeError, ValueError) as error:  # a value that JSON has not
                    self._note_dropped(1, f"{event.event_kind}: {type(error).__qualname__}")
            self._write(lines)

    def _write(self, lines: list[str]) -> None:
        """Write whole lines at once, so that the lines of several processes never mix."""
        data = "".join([line + "\n" for line in lines]).encode()
        if self._is_torn and lines:
            data = b"\n" + data  # behind the part of a line that a full disk took
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file.fileno(), data[written:])
        except OSError as error:
            self._is_torn = written > 0 and not data[:written].endswith(b"\n")
            self._note_dropped(data.count(b"\n", written), error.strerror)
        else:
            self._is_torn = False
            if self._is_failing:
                self._is_failing = False
                log.warning("events_written_again", path=str(self._path), dropped=self.dropped)

    def _note_dropped(self, count: int, fault: str | None) -> None:
        self.dropped += count
        if not self._is_failing:
            self._is_failing = True
            log.warning(
                "events_not_written",
                path=str(self._path),
                fault=fault,
                remedy="make room or rights for the file; lines are dropped until then",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
