"""Rechecks of attempts that wait: a wake-up may have been lost (design 06, *Wake-ups*)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Final

from forebay.contracts.errors import ForebayError
from forebay.contracts.identity import RequestDomain
from forebay.coordinator.requests.denials import timed_out
from forebay.coordinator.requests.operations import (
    Answer,
    Attempt,
    Cancel,
    State,
    Waiting,
    group_key,
)
from forebay.coordinator.shard.operation import Ended, Outcome
from forebay.coordinator.shard.session import Session
from forebay.coordinator.supervision import Guard

SHORTEST_WAKE_SECONDS: Final = 0.001
PORTION: Final = 64
"""Attempts that are asked for at once: a call's worth, so that no crowd of waiters fills calls."""

Line = tuple[RequestDomain, str]
Waiters = OrderedDict[str, Attempt]
"""Waiters by encoded id; finding the first entry is O(1) after removals, unlike in a dict."""


class Rechecks:
    """Asks a request shard at intervals about the attempts of one member that wait there.

    The shard grants in order of arrival within a line, which is a group in a domain. So once each
    recheck interval it is enough to ask for the first attempt of each line, and for others in turn
    where a `PORTION` has room for them. A lost grant costs one interval with up to 64 lines; where
    an answer tells of a loss, the next portion is asked for at once.

    Args:
        session: of the shard.
        attempts: those that are open, by encoded id.
        recheck_seconds: the recheck interval.
        guard: logs what a timer raises.

    Attributes:
        wake: the timer of the next instant at which time alone may change something.
    """

    def __init__(
        self,
        session: Session,
        attempts: Mapping[str, Attempt],
        recheck_seconds: float,
        guard: Guard,
    ) -> None:
        self._session = session
        self._attempts = attempts
        self._recheck_seconds = recheck_seconds
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._waiting: Waiters = OrderedDict()
        self._lines: OrderedDict[Line, Waiters] = OrderedDict()  # the longest unasked first
        self._due: Waiters = OrderedDict()  # to be rechecked as soon as a portion has room
        self._round: list[Attempt] = []  # to be rechecked in turn, the next one last
        self._under_way = 0
        self._has_found_loss = False
        self.wake: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def close(self) -> None:
        """Stop all rechecks."""
        self._is_closed = True
        for timer in (self.wake, self._timer):
            if timer is not None:
                timer.cancel()

    # -- waiting attempts

    def note_waiting(self, attempt: Attempt) -> None:
        """Recheck an attempt at intervals from now on; soon where a wake-up may be lost."""
        attempt.is_waiting = True
        self._waiting[attempt.encoded_id] = attempt
        self._lines.setdefault(_line(attempt), OrderedDict())[attempt.encoded_id] = attempt
        if self._timer is None and not self._is_closed:
            self._timer = self._loop.call_later(
                self._recheck_seconds, self._guard.call, self._on_interval
            )
        if attempt.is_in_doubt:
            self._recheck_soon(attempt)

    def forget(self, attempt: Attempt) -> None:
        """Recheck an attempt no more, as it waits no more."""
        if self._waiting.pop(attempt.encoded_id, None) is None:
            return  # most are granted at once, and never waited
        self._due.pop(attempt.encoded_id, None)
        key = _line(attempt)
        line = self._lines[key]
        del line[attempt.encoded_id]
        if not line:
            del self._lines[key]

    def reopen(self, attempt: Attempt) -> bool:
        """Allow a new acquire of an attempt; return False where its wait is over."""
        self.forget(attempt)
        return attempt.reopen(self._loop.time())

    # -- when time alone changes something

    def wake_in(self, seconds: float | None) -> None:
        """Recheck at the instant at which time alone may have changed something."""
        if self.wake is not None:
            self.wake.cancel()
            self.wake = None
        if seconds is not None and self._attempts:  # one of them may be about to hear that it waits
            pause = max(SHORTEST_WAKE_SECONDS, seconds)
            self.wake = self._loop.call_later(pause, self._guard.call, self.recheck_first)

    def recheck_first(self) -> None:
        """Recheck one attempt that waits, if there is one: its call settles the whole shard."""
        self.wake = None
        for attempt in islice(self._waiting.values(), 1):
            self.recheck(attempt)

    # -- when a wake-up may have been lost

    def recheck_all(self) -> None:
        """Recheck all attempts that wait or may wait, one portion after another."""
        for attempt in self._attempts.values():
            attempt.is_in_doubt = True
        for attempt in self._waiting.values():
            self._due[attempt.encoded_id] = attempt
        self._recheck_due()

    def _recheck_soon(self, attempt: Attempt) -> None:
        self._due[attempt.encoded_id] = attempt
        self._recheck_due()

    def _recheck_due(self) -> None:
        while self._due and self._under_way < PORTION:
            self.recheck(self._due.popitem(last=False)[1])

    def recheck(self, attempt: Attempt) -> None:
        """Ask for the state of a waiting attempt, unless such a question is under way."""
        if attempt.is_waiting and attempt.end is None and not attempt.is_rechecked:
            attempt.is_rechecked = True
            attempt.is_in_doubt = False
            self._under_way += 1
            self._session.submit(State(attempt.item), partial(self._rechecked, attempt))

    def _rechecked(self, attempt: Attempt, outcome: Outcome[Answer]) -> bool:
        attempt.is_rechecked = False
        self._under_way -= 1
        if isinstance(outcome, ForebayError):
            # The server answers nobody: what it would say of the others is no secret.
            for other in list(self._waiting.values()):
                other.deliver(outcome)
        elif attempt.end is None and not isinstance(outcome, Waiting | Ended):
            self._has_found_loss = True
        is_taken = attempt.deliver(outcome)
        self._recheck_due()
        if not self._under_way and self._has_found_loss and not self._is_closed:
            self._loop.call_soon(self._guard.call, self._recheck_portion)
        return is_taken

    # -- once an interval

    def _on_interval(self) -> None:
        self._timer = None
        if not self._waiting or self._is_closed:
            return
        self._timer = self._loop.call_later(
            self._recheck_seconds, self._guard.call, self._on_interval
        )
        self._end_overdue()
        self._recheck_portion()

    def _end_overdue(self) -> None:
        """End waits that are over although no notice of the shard said so."""
        before = self._loop.time() - self._recheck_seconds
        for attempt in list(self._waiting.values()):
            if attempt.deadline is not None and attempt.deadline <= before and attempt.end is None:
                attempt.deliver(timed_out(attempt.item))
                self._session.submit(Cancel(attempt.encoded_id))

    def _recheck_portion(self) -> None:
        """Recheck the first attempt of each line, and others in turn, a portion in all."""
        self._has_found_loss = False
        before = self._loop.time() - self._recheck_seconds
        for line in list(islice(self._lines, PORTION)):
            self._lines.move_to_end(line)
            self._recheck_older(next(iter(self._lines[line].values())), before)
        if not self._round:
            self._round = list(reversed(self._waiting.values()))
        for _ in range(min(PORTION, len(self._round))):
            if self._under_way >= PORTION:
                return
            self._recheck_older(self._round.pop(), before)

    def _recheck_older(self, attempt: Attempt, before: float) -> None:
        if self._under_way < PORTION and attempt.asked_at <= before:
            self.recheck(attempt)


def _line(attempt: Attempt) -> Line:
    return attempt.item.resource.domain, group_key(attempt.item)
