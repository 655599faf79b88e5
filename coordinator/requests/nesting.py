"""The warning of a task that asks for a request lease while it holds one (design 03)."""

from __future__ import annotations

from forebay.contracts.requests import RequestAdmissionItem
from forebay.coordinator.logs import Logger

log = Logger("forebay.requests")


def warn_of_nested_lease(item: RequestAdmissionItem) -> None:
    """Log that a task acquires a lease while it holds another one."""
    log.warning(
        "request_lease_nested",
        resource=str(item.resource),
        hint="this task holds a lease and asks for another: at a small cap it may wait for itself,"
        " for ever if no queue_wait_timeout_seconds is set; close what it streams first, with"
        " `async with`",
    )
