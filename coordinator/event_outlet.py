"""Hands every event of a process to its sinks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

from forebay.contracts.checks import shown
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.event_kinds import RequestEventKind, SchedulerEventKind
from forebay.contracts.events import (
    EventSink,
    EventStream,
    RequestEventSink,
    RuntimeEvent,
    SchedulerEventSink,
)
from forebay.coordinator.logs import Logger

Take = Callable[[RuntimeEvent], None]

log = Logger("forebay.events")


class EventOutlet:
    """Builds events and hands each to the sinks of its stream; may be used by any thread.

    Whoever has something to tell asks ``takes_tasks`` or ``takes_requests`` first, so that nothing
    is built that no sink takes. No lock is held meanwhile.

    Args:
        sinks: take events of one stream or of both.

    Raises:
        ConfigurationError: something among them takes neither.

    Attributes:
        takes_tasks: whether a sink takes events of the stream ``scheduler``.
        takes_requests: whether a sink takes events of the stream ``request``.
        lost: events that a sink raised at, by the name of its class.
    """

    def __init__(self, sinks: Sequence[EventSink] = ()) -> None:
        for sink in sinks:
            if isinstance(sink, type) or not isinstance(
                sink, SchedulerEventSink | RequestEventSink
            ):
                raise ConfigurationError(
                    f"an event sink is {shown(sink)}, expected an object with emit_scheduler_event"
                    " or emit_request_event; pass one of forebay.sinks or your own."
                )
        self._of_tasks: tuple[Take, ...] = tuple(
            sink.emit_scheduler_event for sink in sinks if isinstance(sink, SchedulerEventSink)
        )
        self._of_requests: tuple[Take, ...] = tuple(
            sink.emit_request_event for sink in sinks if isinstance(sink, RequestEventSink)
        )
        self.takes_tasks = bool(self._of_tasks)
        self.takes_requests = bool(self._of_requests)
        self.lost: Counter[str] = Counter()
        self._ordinals = count(1)

    def emit_task(self, kind: SchedulerEventKind, at_us: int | None, **fields: Any) -> None:
        """Emit an event of the stream ``scheduler``; the fields are those of `RuntimeEvent`."""
        self._emit(self._of_tasks, kind, EventStream.SCHEDULER, at_us, fields)

    def emit_request(self, kind: RequestEventKind, at_us: int | None, **fields: Any) -> None:
        """Emit an event of the stream ``request``; the fields are those of `RuntimeEvent`.

        Args:
            kind: what happened.
            at_us: server time in microseconds; None where it is not known yet.
            fields: further ones.
        """
        self._emit(self._of_requests, kind, EventStream.REQUEST, at_us, fields)

    def _emit(
        self,
        takers: Sequence[Take],
        kind: str,
        stream: EventStream,
        at_us: int | None,
        fields: dict[str, Any],
    ) -> None:
        if not takers:
            return
        if at_us is None:
            fields["diagnostics"] = {**fields.get("diagnostics", {}), "clock": "process"}
        event = RuntimeEvent(
            event_kind=kind,
            stream=stream,
            captured_at=time.time() if at_us is None else at_us / 1e6,
            ordinal=next(self._ordinals),
            **fields,
        )
        for take in takers:
            try:
                take(event)
            except Exception as error:  # noqa: BLE001 - a sink disturbs no work
                self._note_lost(take, error)

    def _note_lost(self, take: Take, error: Exception) -> None:
        name = type(getattr(take, "__self__", take)).__qualname__
        self.lost[name] += 1
        if self.lost[name] == 1:
            log.warning("event_sink_raised", sink=name, error_type=type(error).__qualname__)


SILENT: Final = EventOutlet()
"""The outlet of a process without sinks."""
