"""Leases for the cells of runs, which keep no slot during a cooldown (design 05, *Failures*).

A call that waits in the queue of its provider's window holds a slot of its worker, and a cooldown
may last minutes. So a cell stops waiting once the domain cools down, and is deferred until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final

from redis.exceptions import RedisError

from forebay.contracts.errors import ForebayError
from forebay.contracts.identity import RequestResourceKey
from forebay.contracts.outcomes import ReleaseResult, RequestReleaseOutcome
from forebay.contracts.quotas import QuotaReading
from forebay.contracts.requests import (
    RequestAdmissionDenied,
    RequestAdmissionError,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
)
from forebay.contracts.snapshots import RequestPressure
from forebay.coordinator.logs import Logger
from forebay.coordinator.supervision import Background, Guard
from forebay.workers.executor import LeaseHolder

LOOK_SECONDS: Final = 0.5
"""Interval at which a domain with waiting calls is read."""
SHORTEST_SECONDS: Final = 1.0
"""A shorter cooldown is waited for in the queue."""


log = Logger("forebay.runs")


class ImpatientLeases:
    """Request admission that ends a wait with ``cooldown`` when the domain cools down.

    Args:
        leases: grants and takes back; not closed here.
        pressure: shows windows.
    """

    def __init__(self, leases: LeaseHolder, pressure: RequestPressure) -> None:
        self._leases = leases
        self._pressure = pressure
        self._watches: dict[RequestResourceKey, _Watch] = {}

    async def acquire(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        """Wait for a lease, as long as the domain does not cool down.

        Raises:
            RequestAdmissionError: as `RequestAdmissionController.acquire`; with the reason
                ``cooldown`` and its ``retry_after_seconds`` where it cools down for longer than
                ``SHORTEST_SECONDS``.
        """
        watch = self._watch(item.resource)
        if watch.cooldown_seconds() < SHORTEST_SECONDS:
            try:
                async with asyncio.timeout(None) as wait:
                    watch.add(wait)
                    try:
                        return await self._leases.acquire(item)
                    finally:
                        watch.remove(wait)
            except TimeoutError:
                if not wait.expired():
                    raise
        seconds = watch.cooldown_seconds()
        denied = RequestAdmissionDenied(
            item=item, reason=RequestDenialReason.COOLDOWN, retry_after_seconds=seconds
        )
        raise RequestAdmissionError(
            denied,
            f"{item.resource.provider_model} takes no calls for {seconds:.1f} s, expected the"
            " caller to come again then.",
        )

    def release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> Awaitable[ReleaseResult]:
        """Release a lease; the release is sent at once, and never raises."""
        return self._leases.release(lease, outcome)

    def assert_held(self, lease: RequestAdmissionLease) -> None:
        """Return if the lease is still held, as `LeaseHolder.assert_held`."""
        self._leases.assert_held(lease)

    def learn(self, lease: RequestAdmissionLease, readings: Sequence[QuotaReading]) -> None:
        """Take the quota readings of an answer's headers."""
        self._leases.learn(lease, readings)

    async def cooldown_seconds(self, resource: RequestResourceKey) -> float:
        """Return the remaining cooldown of a domain in seconds; 0 for none or if unknown."""
        watch = self._watch(resource)
        await watch.look()
        return watch.cooldown_seconds()

    async def aclose(self) -> None:
        """Stop looking."""
        for watch in self._watches.values():
            await watch.aclose()

    def _watch(self, resource: RequestResourceKey) -> _Watch:
        if resource not in self._watches:
            self._watches[resource] = _Watch(resource, self._pressure)
        return self._watches[resource]


class _Watch:
    """Reads the cooldown of one domain while calls wait for it."""

    def __init__(self, resource: RequestResourceKey, pressure: RequestPressure) -> None:
        self._resource = resource
        self._pressure = pressure
        self._loop = asyncio.get_running_loop()
        self._waits: set[asyncio.Timeout] = set()
        self._cooled_at = 0.0  # loop time
        self._looking = Background(
            "forebay-cooldowns",
            self._look_again,
            Guard(log, resource=str(resource)),
            done=self._go_on,
        )

    def cooldown_seconds(self) -> float:
        """Return how long the domain cools down, by the last look."""
        return max(0.0, self._cooled_at - self._loop.time())

    def add(self, wait: asyncio.Timeout) -> None:
        self._waits.add(wait)
        self._looking.start()

    def remove(self, wait: asyncio.Timeout) -> None:
        self._waits.discard(wait)

    async def look(self) -> None:
        try:
            seconds = (await self._pressure.snapshot(self._resource)).cooldown_remaining_seconds
        except (ForebayError, RedisError, OSError):
            return  # the acquires say what is wrong with the server
        self._cooled_at = self._loop.time() + seconds
        if seconds >= SHORTEST_SECONDS:
            for wait in self._waits:
                wait.reschedule(self._loop.time())
            self._waits.clear()

    async def aclose(self) -> None:
        await self._looking.stop()

    def _go_on(self) -> None:
        if self._waits:  # one that began as the last look ended
            self._looking.start()

    async def _look_again(self) -> None:
        await asyncio.sleep(LOOK_SECONDS)  # most waits are over by then
        while self._waits:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)
