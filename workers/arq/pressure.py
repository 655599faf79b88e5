"""Hints to task admission about providers without free capacity (design 04, *Policies*)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from forebay.contracts.identity import ProviderModelKey, SchedulerResourceKey, request_resource
from forebay.contracts.snapshots import DomainSnapshot, RequestPressure

REFRESH_SECONDS: Final = 1.0
"""Hints are at most this old, and a refresh."""


def is_under_pressure(domain: DomainSnapshot) -> bool:
    """Whether a domain cools down, or has waiters and no free slot."""
    has_room = domain.in_flight_count < min(domain.current_limit, domain.effective_max)
    return domain.cooldown_remaining_seconds > 0 or (domain.waiters > 0 and not has_room)


class RequestPressureHints:
    """Read-only hints of the provider/models that a process uses.

    Args:
        pressure: shows their windows.
        known: the provider/models.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        pressure: RequestPressure,
        known: Callable[[], Iterable[ProviderModelKey]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pressure = pressure
        self._known = known
        self._clock = clock
        self._read_at = float("-inf")
        self._resources: frozenset[SchedulerResourceKey] = frozenset()

    @property
    def resources(self) -> frozenset[SchedulerResourceKey]:
        """Scheduler resources whose provider had no room; none where the hints are too old."""
        is_fresh = self._clock() - self._read_at <= 2 * REFRESH_SECONDS
        return self._resources if is_fresh else frozenset()

    async def refresh(self) -> None:
        """Ask the server which providers have no room, at most once a second.

        With fewer than two provider/models the server is not asked: there is no task of another
        provider to prefer. A failure leaves no hints.

        Raises:
            CoordinatorError, ConfigurationError: the server could not be used.
        """
        known = list(self._known())
        if len(known) < 2 or self._clock() - self._read_at < REFRESH_SECONDS:  # noqa: PLR2004
            return
        found: set[SchedulerResourceKey] = set()
        try:
            for provider_model in known:
                shard = await self._pressure.global_snapshot(provider_model)
                if any(map(is_under_pressure, shard.domains.values())):
                    found.add(request_resource(provider_model))
        except BaseException:
            found.clear()
            raise
        finally:
            self._resources, self._read_at = frozenset(found), self._clock()
