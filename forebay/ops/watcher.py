"""Looks at the fleet twice a second, keeps ten minutes of its windows, and streams each look."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final, Self

from forebay.contracts.errors import CoordinatorError
from forebay.coordinator.logs import Logger
from forebay.coordinator.supervision import Background, Guard
from forebay.ops.fleet import Fleet, FleetReader
from forebay.ops.rows import fleet_rows

HISTORY_SAMPLES: Final = 1200
"""Samples of each window: ten minutes, at two looks a second."""
KEPT_EVENTS: Final = 200

log = Logger("forebay.ops")
Row = dict[str, Any]


class History:
    """The last ten minutes of every window.

    A sample is ``[at, window, in_flight, waiting, refusals]``, the refusals being the rate limits
    since the sample before.
    """

    def __init__(self) -> None:
        self._samples: dict[str, deque[list[float]]] = {}
        self._refused: dict[str, int] = {}

    def add(self, at: float, models: list[Row]) -> None:
        """Note one look; windows that are no longer there are forgotten."""
        names = {name_of(row) for row in models}
        self._samples = {name: kept for name, kept in self._samples.items() if name in names}
        for row in models:
            name, count = name_of(row), row["rate_limited"]
            refusals = max(0, count - self._refused.get(name, count))
            self._refused[name] = count
            kept = self._samples.setdefault(name, deque(maxlen=HISTORY_SAMPLES))
            kept.append([round(at, 3), row["window"], row["in_flight"], row["waiting"], refusals])

    def rows(self) -> dict[str, list[list[float]]]:
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

    Attributes:
        fleet: the last look that succeeded; None before the first.
        error: why the last look failed; None where it succeeded.
        history: of every window.
        events: the newest of all shards, the oldest first.
    """

    def __init__(self, reader: FleetReader, interval_seconds: float) -> None:
        self._reader = reader
        self._interval_seconds = interval_seconds
        self._looked = asyncio.Event()
        self._looking = Background("forebay-ops-look", self._look_again_and_again, Guard(log))
        self.fleet: Fleet | None = None
        self.error: str | None = None
        self.history = History()
        self.events: deque[Row] = deque(maxlen=KEPT_EVENTS)
        self._message: Row = {"error": "not looked yet", "fleet": None}

    async def __aenter__(self) -> Self:
        self._looking.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._looking.stop()
        self._tell()  # who watches must not wait for a look that never comes

    async def messages(self) -> AsyncIterator[Row]:
        """Yield the last look, then each new one; a slow reader misses those between."""
        yield self._message
        while self._looking.is_running:
            looked = self._looked
            await looked.wait()
            yield self._message

    async def _look_again_and_again(self) -> None:
        while True:
            await self._look()
            self._tell()
            await asyncio.sleep(self._interval_seconds)

    async def _look(self) -> None:
        try:
            fleet = await self._reader.look()
        except CoordinatorError as error:
            if self.error is None:
                log.warning("ops_cannot_look", error=str(error))
            self.error = str(error)
            self._message = {"error": self.error, "fleet": None}
            return
        if self.error is not None:
            log.warning("ops_looks_again")
        self.fleet, self.error = fleet, None
        rows = fleet_rows(fleet)
        self.history.add(fleet.at, rows["models"])
        self.events.extend(rows["events"])
        self._message = {"error": None, "fleet": rows}

    def _tell(self) -> None:
        looked, self._looked = self._looked, asyncio.Event()
        looked.set()
