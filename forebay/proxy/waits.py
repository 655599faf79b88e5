"""The wait of a proxy's call for its lease, and the reason that delayed it.

A grant does not say what it waited for. So a call that has waited a while looks at a snapshot of
its provider/model, one for all calls that wait there, and keeps the last answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from forebay.contracts.errors import CoordinatorError
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.snapshots import GlobalSnapshot
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider

log = Logger("forebay.proxy")

LOOK_AFTER_SECONDS: Final = 0.1
"""A call that waits less costs no look at the server."""
LOOK_AGAIN_SECONDS: Final = 1.0


def reason_of(shard: GlobalSnapshot, resource: RequestResourceKey) -> str:
    """Return the reason why the next call of a resource waits now.

    Returns:
        ``cooldown``, ``quota``, ``cap`` (the static cap, or what clamps allow), ``window`` (the
        adaptive limit) or ``order`` (there is room, and other calls come first).
    """
    window = shard.domains[resource.domain]
    if window.cooldown_remaining_seconds > 0:
        return "cooldown"
    budget = window.minute_budget
    if any(one.level < 1 for one in shard.budgets) or (budget and window.minute_served >= budget):
        return "quota"
    if shard.aggregate_in_flight >= shard.static_cap:
        return "cap"
    if window.in_flight_count >= window.effective_max:
        return "cap"
    if window.in_flight_count >= window.current_limit:
        return "window"
    return "order"


def _log_fault(look: asyncio.Task[None]) -> None:
    """Log an exception of a look; its call goes on, and its answer names no reason."""
    if not look.cancelled() and (fault := look.exception()) is not None:
        log.unexpected("unexpected_exception", fault, during="look at what holds a call up")


class HoldReasons:
    """Reads the reasons for waits, once for all calls of a provider/model.

    Args:
        pressure: shows shards.
    """

    def __init__(self, pressure: RequestPressureSnapshotProvider) -> None:
        self._pressure = pressure
        self._looks: dict[ProviderModelKey, asyncio.Task[GlobalSnapshot | None]] = {}

    async def reason_of(self, resource: RequestResourceKey) -> str | None:
        """Return the reason why a resource's calls wait now; None if unknown."""
        key = resource.provider_model
        look = self._looks.get(key)
        if look is None:
            look = self._looks[key] = asyncio.create_task(self._look(key))
            look.add_done_callback(lambda _done: self._looks.pop(key, None))
        shard = await asyncio.shield(look)
        return None if shard is None else reason_of(shard, resource)

    async def _look(self, key: ProviderModelKey) -> GlobalSnapshot | None:
        try:
            return await self._pressure.global_snapshot(key, max_rows=0)
        except CoordinatorError:  # the call itself gets this error
            return None


class QueueWait:
    """The wait of one call for its lease: its duration and its reason.

    Args:
        reasons: says what holds calls up.
    """

    def __init__(self, reasons: HoldReasons) -> None:
        self._reasons = reasons
        self._began_at: float | None = None
        self._seconds = 0.0
        self._held_by: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.Task[None] | None = None

    def begin(self, resource: RequestResourceKey) -> None:
        """Note that the call asks for a lease of this resource."""
        self._began_at = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(
            LOOK_AFTER_SECONDS, self._begin_looking, resource
        )

    def end(self) -> None:
        """Note that the wait is over, however it ended."""
        if self._began_at is not None:
            self._seconds = time.monotonic() - self._began_at
        if self._timer is not None:
            self._timer.cancel()
        if self._look is not None:
            self._look.cancel()

    def headers(self) -> Mapping[str, str]:
        """Return the wait as headers: whole milliseconds, and the reason where one was seen."""
        headers = {"queue-ms": str(int(self._seconds * 1000))}
        if self._held_by is not None:
            headers["held-by"] = self._held_by
        return headers

    def _begin_looking(self, resource: RequestResourceKey) -> None:
        self._look = asyncio.create_task(self._look_on(resource))
        self._look.add_done_callback(_log_fault)

    async def _look_on(self, resource: RequestResourceKey) -> None:
        while True:
            self._held_by = await self._reasons.reason_of(resource) or self._held_by
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
