"""Base of sinks that take both streams."""

from __future__ import annotations

from forebay.contracts.events import RuntimeEvent


class BothStreams:
    """Takes the events of both streams alike."""

    def take(self, event: RuntimeEvent) -> None:
        """Take one event of either stream."""
        raise NotImplementedError

    def emit_scheduler_event(self, event: RuntimeEvent) -> None:
        """Take one event of the stream ``scheduler``."""
        self.take(event)

    def emit_request_event(self, event: RuntimeEvent) -> None:
        """Take one event of the stream ``request``."""
        self.take(event)
