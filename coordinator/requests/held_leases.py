"""The leases that this process holds of one provider/model, and the notice of a lost one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.nesting import warn_of_nested_lease

LeaseLost = Callable[[RequestAdmissionLease, str], None]

log = Logger("forebay.requests")


class HeldLeases(dict[str, RequestAdmissionLease]):
    """Leases by encoded id, with the tasks that hold them.

    Args:
        on_lease_lost: called with each lease that ended without being released, and the reason.

    Attributes:
        holders: the tasks that hold leases, by encoded id, until one was warned.
        holding: the same tasks.
        has_warned: whether one was warned that asked for a second lease.
    """

    def __init__(self, on_lease_lost: LeaseLost) -> None:
        super().__init__()
        self.on_lease_lost = on_lease_lost
        self.holders: dict[str, asyncio.Task[Any]] = {}
        self.holding: set[asyncio.Task[Any]] = set()
        self.has_warned = False

    def warn_of_nesting(self, item: RequestAdmissionItem) -> None:
        """Log, once, that a task acquires a second lease while it holds one."""
        if not self.has_warned:
            self.has_warned = True
            warn_of_nested_lease(item)

    def let_go(self, encoded_id: str) -> RequestAdmissionLease | None:
        """Remove and return a lease; None where this process does not hold it."""
        if encoded_id in self.holders:
            self.holding.discard(self.holders.pop(encoded_id))
        return self.pop(encoded_id, None)

    def lose(self, encoded_id: str, why: str) -> RequestAdmissionLease | None:
        """Remove a lease that was lost, and report the loss; None if not held."""
        lease = self.let_go(encoded_id)
        if lease is None:
            return None
        log.warning("request_lease_lost", lease_id=lease.lease_id, reason=why)
        try:
            self.on_lease_lost(lease, why)
        except Exception as error:  # noqa: BLE001 - the caller's code; others wait to be told
            log.unexpected("on_lease_lost_raised", error, lease_id=lease.lease_id)
        return lease
