"""Events as log lines, by structlog."""

from __future__ import annotations

from typing import Any

import structlog

from forebay.contracts.events import RuntimeEvent
from forebay.sinks.base import BothStreams


class LogSink(BothStreams):
    """Logs each event at level debug or another: the kind is the line's event name.

    Args:
        logger: of structlog; None is ``forebay.events``.
        level: name of the logger's method.
    """

    def __init__(self, logger: Any = None, level: str = "debug") -> None:
        self._log = getattr(
            structlog.get_logger("forebay.events") if logger is None else logger, level
        )

    def take(self, event: RuntimeEvent) -> None:
        """Log an event."""
        fields = event.as_json()
        self._log(fields.pop("event_kind"), **fields)
