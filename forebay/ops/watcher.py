"""Looks at the fleet twice a second, keeps ten minutes of its windows, and streams each look."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Self

from forebay.contracts.errors import ForebayError
from forebay.coordinator.logs import Logger
from forebay.coordinator.supervision import Background, Guard
from forebay.ops.fleet import Fleet, FleetReader
from forebay.ops.rows import fleet_rows

HISTORY_SAMPLES: Final = 1200
"""Samples of each window: ten minutes, at two looks a second."""
HISTORY_SECONDS: Final = 600.0
STALE_SECONDS: Final = 15.0
"""A look that ended longer ago is not the present any more: it hangs, or it failed unforeseen."""
KEPT_EVENTS: Final = 200

log = Logger("forebay.ops")
Row = dict[str, Any]
Sample = tuple[float, int, int, int, int, int]


class History:
    """The last ten minutes of every window.

    A sample is ``(at, window, in_flight, waiting, refusals, grants)``: rate limits and grants since
    the sample before.
    """

    def __init__(self) -> None:
        self._samples: dict[str, deque[Sample]] = {}
        self._counts: dict[str, tuple[int, int]] = {}

    def add(self, at: float, models: list[Row]) -> None:
        """Note one look; a window that no look of ten minutes has shown is forgotten."""
        for row in models:
            name, counts = name_of(row), (row["rate_limited"], row["granted"])
            refused, granted = self._counts.get(name, counts)
            self._counts[name] = counts
            since = (max(0, counts[0] - refused), max(0, counts[1] - granted))
            sample = (round(at, 3), row["window"], row["in_flight"], row["waiting"], *since)
            self._samples.setdefault(name, deque(maxlen=HISTORY_SAMPLES)).append(sample)
        oldest = at - HISTORY_SECONDS
        for name in [name for name, kept in self._samples.items() if kept[-1][0] < oldest]:
            del self._samples[name], self._counts[name]

    def rows(self) -> dict[str, list[Sample]]:
        """Return the samples of each window, the oldest first."""
        return {name: list(kept) for name, kept in self._samples.items()}


def name_of(row: Row) -> str:
    """Return the name of a window in the history: provider/model and domain."""
    return f"{row['provider']}/{row['model']} {row['domain']}"


class Watcher:
    """Looks at the fleet in the background while it is open.

    Args:
        reader: what looks.
        interval_seconds: between the end of a look and the beginning of the next one.
        clock: seconds that only grow.

    Attributes:
        fleet: the last look that succeeded; None before the first.
        error: why the last look failed; None where it succeeded.
        history: of every window.
        events: the newest of all shards, the oldest first.
    """

    def __init__(
        self,
        reader: FleetReader,
        interval_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._looked = asyncio.Event()
        self._looking = Background("forebay-ops-look", self._look_again_and_again, Guard(log))
        self.fleet: Fleet | None = None
        self.error: str | None = None
        self.history = History()
        self.events: deque[Row] = deque(maxlen=KEPT_EVENTS)
        self._looked_at = float("-inf")
        self._message = _message("not looked yet", None)

    async def __aenter__(self) -> Self:
        self._looking.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._looking.stop()
        self._wake_watchers()  # who watches must not wait for a look that never comes

    @property
    def is_current(self) -> bool:
        """Whether the last look succeeded, and a short while ago."""
        is_recent = self._clock() - self._looked_at <= STALE_SECONDS
        return self.error is None and is_recent

    async def messages(self) -> AsyncIterator[str]:
        """Yield the last look as JSON, then each new one; a slow reader misses those between."""
        yield self._message
        while self._looking.is_running:
            looked = self._looked
            await looked.wait()
            yield self._message

    async def _look_again_and_again(self) -> None:
        while True:
            await self._look()
            self._wake_watchers()
            await asyncio.sleep(self._interval_seconds)

    async def _look(self) -> None:
        try:
            fleet = await self._reader.look()
        except ForebayError as error:
            if self.error is None:
                log.warning("ops_cannot_look", error=str(error))
            self.error = str(error)
            self._message = _message(self.error, None)
            return
        if self.error is not None:
            log.warning("ops_looks_again")
        self.fleet, self.error, self._looked_at = fleet, None, self._clock()
        rows = fleet_rows(fleet)
        self.history.add(fleet.at, rows["models"])
        self.events.extend(rows["events"])
        self._message = _message(None, rows)

    def _wake_watchers(self) -> None:
        looked, self._looked = self._looked, asyncio.Event()
        looked.set()


def _message(error: str | None, fleet: Row | None) -> str:
    """Return a look as JSON, encoded once for all streams."""
    return json.dumps({"error": error, "fleet": fleet})
