"""A shard's time, and the number of its last event (design 02, *Events*)."""

from __future__ import annotations

import asyncio


class ShardTime:
    """The time and the last event of a shard, as of its last reply to this process."""

    __slots__ = ("_ahead_us", "_loop", "_sequence")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ahead_us: float | None = None
        self._sequence: int | None = None

    def note(self, now_us: int, sequence: int) -> None:
        """Note what a reply says, as it arrives."""
        self._ahead_us = now_us - self._loop.time() * 1e6
        self._sequence = sequence

    @property
    def now_us(self) -> int | None:
        """About the shard's time in microseconds; None before the first reply."""
        ahead_us = self._ahead_us
        return None if ahead_us is None else round(self._loop.time() * 1e6 + ahead_us)

    def instant(self) -> tuple[float | None, int | None]:
        """Return about the shard's time in seconds, and the number of the shard's last event.

        Both are None before the first reply.
        """
        if self._ahead_us is None:
            return None, None
        return round(self._loop.time() * 1e6 + self._ahead_us) / 1e6, self._sequence
