"""Simulated time: calls in the order of their instants, in microseconds."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final

SECOND_US: Final = 1_000_000


def to_us(seconds: float) -> int:
    """Return seconds in whole microseconds."""
    return round(seconds * SECOND_US)


class Timeline:
    """Calls functions at instants; at the same instant, in the order in which they were given.

    Attributes:
        now_us: the present instant.
    """

    def __init__(self) -> None:
        self.now_us = 0
        self._number = 0
        self._calls: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, us: int, call: Callable[..., None], *args: Any) -> None:
        """Call ``call(*args)`` at an instant; one that has passed is now."""
        self._number += 1
        heapq.heappush(self._calls, (max(us, self.now_us), self._number, call, args))

    def after(self, us: int, call: Callable[..., None], *args: Any) -> None:
        """Call ``call(*args)`` this many microseconds from now."""
        self.at(self.now_us + us, call, *args)

    def every(self, us: int, call: Callable[[], None]) -> None:
        """Call ``call()`` each ``us`` microseconds, for the first time after that time."""

        def again() -> None:
            call()
            self.after(us, again)

        self.after(us, again)

    def run(self, until_us: int) -> None:
        """Advance time to an instant, running the calls that are due before it."""
        calls = self._calls
        while calls and calls[0][0] < until_us:
            self.now_us, _number, call, args = heapq.heappop(calls)
            call(*args)
        self.now_us = until_us
