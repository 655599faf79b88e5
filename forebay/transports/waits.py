"""Frees the leases of dropped streams when a call waits long (ADR 0008).

A stream of OpenAI's SDK is in a reference cycle: dropped and never closed, it is garbage only once
the cyclic collector has found it. A program whose calls all wait for such leases makes no garbage
that would start the collector, so it would wait for itself for ever.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.threads import LoopCaller
from forebay.coordinator.supervision import Guard

LONG_WAIT_SECONDS: Final = 1.0
"""Wait of a call for its lease after which this process checks its own open bodies."""
PAUSED_SECONDS: Final = 1.0
"""Time after which a body without a reader's request may have been dropped."""
LEAST_PAUSE_SECONDS: Final = 5.0
"""Shortest pause between two collections; at least 100 times as long as the last one took."""

_PAUSE_PER_COLLECTION: Final = 100.0

Clock = Callable[[], float]


class Pausable(Protocol):
    """A body that holds a lease; hashed by identity.

    Attributes:
        paused_since: when its reader last took something without asking for more; infinity while
            the reader waits for more.
    """

    paused_since: float


class OpenBodies:
    """The bodies of this process that hold leases; dropped ones can be freed.

    Any thread may call. That a body is kept here does not keep alive what was dropped.

    Args:
        clock: the clock of ``paused_since``.
        collect: frees what is garbage.
    """

    def __init__(
        self, clock: Clock = time.monotonic, collect: Callable[[], object] = gc.collect
    ) -> None:
        self._clock = clock
        self._collect = collect
        self._open: set[Pausable] = set()
        self._not_before = 0.0
        self._is_first = True

    def opened(self, body: Pausable) -> None:
        """Note that a body holds a lease."""
        self._open.add(body)

    def closed(self, body: Pausable) -> None:
        """Note that a body no longer holds its lease."""
        self._open.discard(body)

    def free_dropped(self) -> None:
        """Collect garbage if a body is paused for long, so may be garbage; seldom, for it costs."""
        started = self._clock()
        if started < self._not_before:
            return
        # One step: bodies come and go in other threads.
        if all(started - body.paused_since < PAUSED_SECONDS for body in list(self._open)):
            return
        self._collect()
        ended = self._clock()
        # The next is not put off where this is the first: an async generator that it found is
        # closed by its event loop, and only then is what that held found in turn.
        self._is_first = not self._is_first
        if self._is_first:
            pause = _PAUSE_PER_COLLECTION * (ended - started)
            self._not_before = ended + max(LEAST_PAUSE_SECONDS, pause)


OPEN_BODIES: Final = OpenBodies()
"""The open bodies of all clients in this process."""


class LongWaits:
    """Reports, on the controller's loop, a call that waits long for its lease.

    Any thread may call.

    Args:
        on_long_wait: told so about once a second for as long as one does.
        clock: seconds that only grow.
    """

    def __init__(self, on_long_wait: Callable[[], None], clock: Clock = time.monotonic) -> None:
        self._on_long_wait = on_long_wait
        self._clock = clock
        self._since: dict[object, float] = {}
        self._is_looking = False
        self._guard = Guard(Logger("forebay.transports"))

    def begin(self, caller: LoopCaller) -> object:
        """Note that a call begins to wait; return the key for `end`."""
        wait = object()
        self._since[wait] = self._clock()
        if not self._is_looking:
            self._is_looking = True
            caller.soon(self._look_later)
        return wait

    def end(self, wait: object) -> None:
        """Note that a call's wait has ended."""
        del self._since[wait]

    def _look_later(self) -> None:
        asyncio.get_running_loop().call_later(
            LONG_WAIT_SECONDS, partial(self._guard.call, self.look)
        )

    def look(self) -> None:
        """Report a call that waits long, and check again while any call waits."""
        self._is_looking = False  # before it looks: who begins meanwhile looks for itself
        waits = list(self._since.values())
        if not waits:
            return
        self._is_looking = True
        self._look_later()
        if self._clock() - min(waits) >= LONG_WAIT_SECONDS:
            self._on_long_wait()
