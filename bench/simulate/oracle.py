"""The oracle: admission with knowledge of the provider's limits, an upper bound of goodput."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from bench.simulate.provider import Provider
from forebay.contracts.outcomes import RequestReleaseOutcome
from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.simulation.timeline import Timeline

_SOONEST_US: Final = 1000

OnGranted = Callable[[RequestAdmissionLease], None]


class Oracle:
    """Grants exactly what the provider would admit, in weighted order, to callers of all fleets.

    A place at the provider is taken at the grant and is free again when the release is here, as
    with a window that has the limit's size. Only refusals at random are met, which nobody can know.

    Args:
        timeline: when things happen.
        provider: whose limits it knows.
        cap: leases at most, as the fleet's own.
    """

    def __init__(self, timeline: Timeline, provider: Provider, cap: int) -> None:
        self.is_alive = True
        self._timeline = timeline
        self._provider = provider
        self._cap = cap
        self._out = 0
        self._next_look_us: int | None = None
        self._waiting: dict[str, deque[tuple[RequestAdmissionItem, OnGranted]]] = {}
        self._turns: dict[str, float] = {}
        self._virtual_time = 0.0

    def acquire(self, item: RequestAdmissionItem, on_granted: OnGranted) -> None:
        """Wait for a lease."""
        tenant = item.group.key or ""
        waiting = self._waiting.setdefault(tenant, deque())
        if not waiting:
            self._turns[tenant] = max(self._turns.get(tenant, 0.0), self._virtual_time)
        waiting.append((item, on_granted))
        self._grant()

    def release(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome) -> None:  # noqa: ARG002
        """Release the slot."""
        self._out -= 1
        self._provider.leave()
        self._grant()

    def admits(self) -> bool:
        """The limits were asked at the grant."""
        return not self._provider.refuses_at_random()

    def leave(self) -> None:
        """The place is given up when the release is here."""

    def _grant(self) -> None:
        now_us = self._timeline.now_us
        while self._out < self._cap and any(self._waiting.values()):
            if self._provider.would_refuse(now_us):
                self._look_later(now_us)
                return
            self._provider.admits(now_us)
            self._out += 1
            tenants = [tenant for tenant, waiting in self._waiting.items() if waiting]
            tenant = min(tenants, key=self._turns.__getitem__)
            item, on_granted = self._waiting[tenant].popleft()
            self._virtual_time = self._turns[tenant]
            self._turns[tenant] += 1 / item.group.weight
            on_granted(_lease(item))

    def _look_later(self, now_us: int) -> None:
        """Look again when time alone may let a call in."""
        next_us = self._provider.next_us(now_us)
        if next_us is None or (self._next_look_us is not None and self._next_look_us <= next_us):
            return
        self._next_look_us = max(next_us, now_us + _SOONEST_US)
        self._timeline.at(self._next_look_us, self._look, self._next_look_us)

    def _look(self, at_us: int) -> None:
        if self._next_look_us == at_us:
            self._next_look_us = None
        self._grant()


def _lease(item: RequestAdmissionItem) -> RequestAdmissionLease:
    return RequestAdmissionLease(
        lease_id=item.attempt_id,
        item=item,
        acquired_at=0.0,
        limit_at_admission=1,
        cuts_at_admission=0,
        effective_max=1,
        generation="oracle",
        member_id="oracle",
    )
