"""Lanes: the library's own transports that send requests (ADR 0008).

A connection pool looks at each of its connections whenever a request comes or ends, and asks the
kernel about those that are idle. A request that waits for its lease leaves a connection idle, so
below leases a pool of 64 spends a fifth of an SDK's time on looking. A lane is a transport that
sends one request at a time: its pool has one connection.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from forebay.contracts.errors import CoordinatorUnavailable

UNUSED_SECONDS: Final = 5.0
"""A lane that was not used for this long is closed; httpx keeps an idle connection as long."""


class Lanes(Protocol):
    """Gives each request a transport to send it, and takes it back."""

    def take(self) -> Any:
        """Return a transport for one request."""
        ...

    def release(self, lane: Any) -> None:
        """Note that a request's answer was closed, and not before; from any thread."""
        ...

    def unused(self) -> Any | None:
        """Remove and return a transport that is long unused, for the caller to close."""
        ...

    def anew(self) -> Lanes:
        """Return new lanes without connections, for another event loop or a forked child."""
        ...

    def close(self) -> list[Any]:
        """End the lanes; return every open transport, for the caller to close."""
        ...


class OneLane:
    """One transport for all requests at the same time.

    Args:
        transport: sends them.
        make: makes another for another event loop or process; None where it is the program's own.
    """

    def __init__(self, transport: Any, make: Callable[[], Any] | None = None) -> None:
        self._transport = transport
        self._make = make

    def take(self) -> Any:
        """Return it."""
        return self._transport

    def release(self, lane: Any) -> None:
        """Do nothing: the transport is shared."""

    def unused(self) -> Any | None:
        """Return None: the transport is always in use."""
        return None

    def anew(self) -> OneLane:
        """Return new lanes, unless the transport is the program's own."""
        return self if self._make is None else OneLane(self._make(), self._make)

    def close(self) -> list[Any]:
        """Return it."""
        return [self._transport]


class ManyLanes:
    """As many transports as there are requests at the same time; the last one used goes first.

    Args:
        make: makes a transport.
        clock: seconds that only grow.
    """

    def __init__(
        self, make: Callable[[], Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._make = make
        self._clock = clock
        self._lock = threading.RLock()  # a body that is garbage releases its lane within any call
        self._free: deque[tuple[Any, float]] = deque()
        self._open: set[Any] = set()
        self._is_closed = False

    def take(self) -> Any:
        """Return a transport that sends nothing now.

        Raises:
            CoordinatorUnavailable: all were closed.
        """
        with self._lock:
            if self._is_closed:
                raise CoordinatorUnavailable(
                    "this client was closed while the request waited; nothing was sent."
                )
            if self._free:
                return self._free.pop()[0]
            lane = self._make()
            self._open.add(lane)
            return lane

    def release(self, lane: Any) -> None:
        """Free a transport for the next request."""
        with self._lock:
            if lane in self._open:
                self._free.append((lane, self._clock()))

    def unused(self) -> Any | None:
        """Return the longest unused transport, if it is unused for long."""
        with self._lock:
            if not self._free or self._clock() - self._free[0][1] < UNUSED_SECONDS:
                return None
            lane = self._free.popleft()[0]
            self._open.discard(lane)
            return lane

    def anew(self) -> ManyLanes:
        """Return new lanes; takes no lock, as a fork may have left one taken."""
        others = ManyLanes(self._make, self._clock)
        others._is_closed = self._is_closed
        return others

    def close(self) -> list[Any]:
        """Return every transport that was made and not handed out to be closed."""
        with self._lock:
            self._is_closed = True
            self._free.clear()
            closing, self._open = list(self._open), set()
            return closing


class Exchange:
    """One request and its answer on a lane, from before it is sent until the body is closed.

    This class is for requests without a lease. Any thread may call its methods.
    """

    __slots__ = ("_lane_held",)

    def __init__(self) -> None:
        self._lane_held: list[tuple[Lanes, Any]] = []

    def before_sending(self, lanes: Lanes) -> Any:
        """Return the transport for the request."""
        lane = lanes.take()
        self._lane_held.append((lanes, lane))
        return lane

    def answered(self, response: Any) -> None:
        """Take the status and headers of an answer, whose body is still to come."""

    @property
    def needs_body(self) -> bool:
        """Whether a refusal's body is read before its reader has the answer."""
        return False

    def advise(self, response: Any) -> None:
        """Add a header for the SDK about retrying."""

    def opened(self) -> None:
        """Note that the body is given to its reader."""

    def asked(self) -> None:
        """Note that the reader waits for the next bytes of the body."""

    def saw(self, chunk: bytes) -> None:
        """Read the next bytes of the body before its reader gets them."""

    def ended(self) -> None:
        """Note that the body was read to its end."""

    def failed(self, error: BaseException) -> None:
        """Note the exception of the request, before or while it was sent or read."""

    def closed(self) -> None:
        """Note that the body was closed or never came, so that the lane is free."""
        with contextlib.suppress(IndexError):  # one step, so that two threads release it once
            lanes, lane = self._lane_held.pop()
            lanes.release(lane)

    def soon(self, callback: Callable[[], None]) -> None:
        """Run something on the event loop of the lease's controller, if there is one."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing is left to be closed."""
        return not self._lane_held
