"""Hands every event of a process to its sinks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Final

from forebay.contracts.checks import shown
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.event_kinds import RequestEventKind, SchedulerEventKind
from forebay.contracts.events import (
    NO_DETAILS,
    EventSink,
    EventStream,
    EventSubject,
    RequestEventSink,
    RuntimeEvent,
    SchedulerEventSink,
)
from forebay.coordinator.logs import Logger

Take = Callable[[RuntimeEvent], None]
ShardInstant = tuple[float | None, int | None]
"""A shard's time in seconds, as a process knows it, and the number of the shard's last event."""

ShardClock = Callable[[], ShardInstant]


def not_known_yet() -> ShardInstant:
    """Return the instant of a shard that has not replied yet."""
    return None, None


BLOCKED_SECONDS: Final = 1.0
"""A sink that takes longer for one event is counted as blocking, and logged once."""

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
        blocked: events with which a sink blocked its caller for more than `BLOCKED_SECONDS`, by the
            name of its class.
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
        self.blocked: Counter[str] = Counter()
        self._ordinals = count(1)

    def emit(
        self,
        kind: RequestEventKind | SchedulerEventKind,
        subject: EventSubject,
        instant: ShardInstant,
        *,
        lease_id: str | None = None,
        reason: str | None = None,
        snapshot: Mapping[str, Any] = NO_DETAILS,
        diagnostics: Mapping[str, Any] = NO_DETAILS,
    ) -> None:
        """Build an event and hand it to each sink of its stream.

        Args:
            kind: what happened.
            subject: the attempt or task that it happened to.
            instant: server time in seconds, None where no reply has come yet; and the number of
                the shard's last event.
            lease_id: of an attempt's lease.
            reason: ``reason_or_outcome`` of the event.
            snapshot: numbers of the instant.
            diagnostics: further details.
        """
        takers = self._of_requests if subject.stream is EventStream.REQUEST else self._of_tasks
        if not takers:
            return
        at, sequence = instant
        if at is None:
            at, diagnostics = time.time(), {**diagnostics, "clock": "process"}
        event = RuntimeEvent(
            kind, subject, at, next(self._ordinals), sequence, lease_id, reason, snapshot,
            diagnostics,
        )  # fmt: skip
        began = time.monotonic()
        for take in takers:
            try:
                take(event)
            except (KeyboardInterrupt, SystemExit):
                raise  # the program is asked to end
            except BaseException as error:  # noqa: BLE001 - CancelledError too: nobody cancelled
                self._note_lost(take, error)
            ended = time.monotonic()
            if ended - began > BLOCKED_SECONDS:
                self._note_blocked(take, ended - began)
            began = ended

    def _note_lost(self, take: Take, error: BaseException) -> None:
        name = _name_of(take)
        self.lost[name] += 1
        if self.lost[name] == 1:
            log.warning("event_sink_raised", sink=name, error_type=type(error).__qualname__)

    def _note_blocked(self, take: Take, seconds: float) -> None:
        name = _name_of(take)
        self.blocked[name] += 1
        if self.blocked[name] == 1:
            log.warning(
                "event_sink_blocked",
                sink=name,
                seconds=round(seconds, 3),
                remedy="a sink is called by the program's event loop or threads; let it queue"
                " the event and write from a thread of its own",
            )


def _name_of(take: Take) -> str:
    return type(getattr(take, "__self__", take)).__qualname__


SILENT: Final = EventOutlet()
"""The outlet of a process without sinks."""
