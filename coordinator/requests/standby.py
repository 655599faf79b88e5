"""What a request shard tells whatever goes on while its server is away (docs/adr/0024)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from forebay.contracts.outcomes import ReleaseResult, RequestReleaseOutcome
from forebay.contracts.requests import (
    RequestAdmissionDecision,
    RequestAdmissionItem,
    RequestAdmissionLease,
)
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.shard.operation import Submitted

Acquiring = Callable[[RequestAdmissionItem, str], Awaitable[RequestAdmissionDecision]]
"""Decides about an item within a wait, as ``Acquire`` says it."""


class Standby(Protocol):
    """Answers callers of one shard while its server is away."""

    @property
    def is_degraded(self) -> bool:
        """Whether this member's part alone is used now."""

    def on_registering(self) -> None:
        """Note that a registration is sent with the next call."""

    def on_joined(self, membership: Membership, /) -> Sequence[Submitted]:
        """Return the operations that follow the registrations in a new membership."""

    def on_notice(self, kind: str, encoded_id: str, terms: Sequence[Any], /) -> bool:
        """Take a notice that concerns no attempt of the shard; return whether it was taken."""

    def on_lost(self, encoded_id: str, lease: RequestAdmissionLease, /) -> None:
        """Note that a lease was lost; its call may still run."""

    def knows(self, encoded_id: str, /) -> bool:
        """Whether an attempt is answered here, so that the server's grant is not taken back."""

    def is_held(self, encoded_id: str, /) -> bool:
        """Whether a lease was given here and lasts."""

    def release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome, /
    ) -> asyncio.Future[ReleaseResult] | None:
        """End a lease that was given here; None where it is the server's, held or lost."""

    def close(self) -> None:
        """Deny everybody who waits here."""
