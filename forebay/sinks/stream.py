"""Events in a Redis stream of the program's own."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from forebay.contracts.events import RuntimeEvent
from forebay.coordinator.logs import Logger
from forebay.sinks.base import BothStreams

log = Logger("forebay.events")


class RedisStreamSink(BothStreams):
    """Writes events to a capped stream from the event loop, some hundred in one call.

    A server that is slow or away holds nothing up: events wait here, and of more than
    ``most_waiting`` the oldest are dropped and counted.

    Args:
        client: of ``redis.asyncio``; it stays open.
        key: of the stream.
        most_kept: entries that the stream keeps, about.
        most_waiting: events that wait here.

    Attributes:
        dropped: events that were not written.
    """

    def __init__(
        self, client: Any, key: str, *, most_kept: int = 100_000, most_waiting: int = 10_000
    ) -> None:
        self.dropped = 0
        self._client = client
        self._key = key
        self._most_kept = most_kept
        self._waiting: deque[RuntimeEvent] = deque(maxlen=most_waiting)
        self._loop = asyncio.get_running_loop()
        self._writing: asyncio.Task[None] | None = None
        self._is_due = False

    def take(self, event: RuntimeEvent) -> None:
        """Queue an event for the next call, from any thread."""
        if len(self._waiting) == self._waiting.maxlen:
            self.dropped += 1
        self._waiting.append(event)
        if not self._is_due:  # a wake-up of the loop costs more than the event
            self._is_due = True
            self._loop.call_soon_threadsafe(self._begin)

    async def aclose(self) -> None:
        """Write the queued events; the client stays open."""
        self._begin()
        if self._writing is not None:
            await self._writing
        self.dropped += len(self._waiting)
        self._waiting.clear()

    def _begin(self) -> None:
        self._is_due = False
        if self._waiting and (self._writing is None or self._writing.done()):
            self._writing = self._loop.create_task(self._write())

    async def _write(self) -> None:
        while self._waiting:
            part = [self._waiting.popleft() for _ in range(min(256, len(self._waiting)))]
            pipe = self._client.pipeline(transaction=False)
            for event in part:
                fields = {"kind": event.event_kind, "event": event.as_json_text()}
                pipe.xadd(self._key, fields, maxlen=self._most_kept, approximate=True)
            try:
                await pipe.execute()
            except Exception as error:  # noqa: BLE001 - they are lost; the next ones may not be
                self.dropped += len(part)
                log.warning(
                    "events_not_written", events=len(part), error_type=type(error).__qualname__
                )
                return
