"""Logs once each refusal that no wait can cure, and each hint that was clamped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from forebay.contracts.identity import RequestResourceKey
from forebay.contracts.outcomes import RequestReleaseOutcome
from forebay.coordinator.logs import Logger

MOST_TOLD: Final = 1_000
"""Most different refusals that are logged."""

log = Logger("forebay.providers")

_REMEDIES: Final = {
    "request": "change the request: its size, its content or its key; the same one fails again",
    "account": "look at the account's billing and limits; the same request fails until they change",
}


class RefusalLog:
    """Logs each refusal of a provider/model once.

    Args:
        warn: takes an event and its fields.
    """

    def __init__(self, warn: Callable[..., None] = log.warning) -> None:
        self._warn = warn
        self._told: set[tuple[object, ...]] = set()

    def saw(self, resource: RequestResourceKey, outcome: RequestReleaseOutcome) -> None:
        """Log an outcome that concerns the request or the account, or whose hint was clamped."""
        diagnostics = outcome.diagnostics
        about = diagnostics.get("about")
        if about in _REMEDIES:
            code = diagnostics.get("error_code")
            self._once(
                "request_refused",
                resource,
                provider_status=outcome.provider_status,
                error_code=code,
                about=about,
                remedy=_REMEDIES[about],
            )
        elif "hint_clamped_from_seconds" in diagnostics:
            self._once(
                "hint_clamped",
                resource,
                provider_status=outcome.provider_status,
                to_seconds=outcome.retry_after_seconds,
            )

    def _once(self, event: str, resource: RequestResourceKey, **fields: Any) -> None:
        told = (event, resource, *fields.values())
        if told not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(told)
            self._warn(event, resource=str(resource), **fields)


REFUSALS: Final = RefusalLog()
"""The log of refusals of all transports and executors of this process."""
