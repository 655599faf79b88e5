"""Events in memory, for tests and for a look at the last ones."""

from __future__ import annotations

from collections import deque

from forebay.contracts.events import RuntimeEvent
from forebay.sinks.base import BothStreams


class MemorySink(BothStreams):
    """Keeps the last events.

    Args:
        most: how many; older ones are dropped.

    Attributes:
        events: the kept ones, the oldest first.
    """

    def __init__(self, most: int = 10_000) -> None:
        self.events: deque[RuntimeEvent] = deque(maxlen=most)

    def take(self, event: RuntimeEvent) -> None:
        """Keep an event."""
        self.events.append(event)

    def kinds(self) -> list[str]:
        """Return the kinds of the kept events, the oldest first."""
        return [event.event_kind for event in self.events]
