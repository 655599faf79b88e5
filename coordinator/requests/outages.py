"""Acquires while the Redis server is away: the modes ``wait`` and ``local_share``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from forebay.contracts.errors import CoordinatorUnavailable
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.outcomes import ReleaseReason, ReleaseResult, RequestReleaseOutcome
from forebay.contracts.requests import (
    RequestAdmissionDecision,
    RequestAdmissionItem,
    RequestAdmissionLease,
)
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.keys import encode
from forebay.coordinator.requests.denials import timed_out
from forebay.coordinator.requests.held_leases import HeldLeases
from forebay.coordinator.requests.local_leases import LocalLeases
from forebay.coordinator.requests.operations import Cancel
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.shard.operation import Submitted
from forebay.coordinator.shard.session import WITHDRAWN, Session
from forebay.coordinator.supervision import pause_seconds

DENIED_WITHIN_SECONDS: Final = 0.15
"""Time that the server has, after the end of a wait, to answer itself; with the time that taking
the attempt back may last, a call ends within half a second (docs/reliability.md)."""

DEFERRED: Final = ReleaseResult(
    released=False,
    reason=ReleaseReason.DEFERRED,
    diagnostics={"error": WITHDRAWN},
)

Acquiring = Callable[[RequestAdmissionItem, str], Awaitable[RequestAdmissionDecision]]
"""A function that decides about an item within a wait in ``Acquire``'s form."""


class Outages:
    """Answers acquires of one shard, also while its server is away.

    ``wait``: the shard is asked again, up to the end of the item's own wait. ``local_share``: this
    member's share is used (`LocalLeases`).

    Args:
        acquire: decides while the server answers.
        session: of the shard.
        held: the server's leases of this process.
        settings: say which of the two.
        provider_model: for the log.
        redirect: ends each acquire that the server was asked for with `CoordinatorUnavailable`.
    """

    def __init__(
        self,
        acquire: Acquiring,
        session: Session,
        held: HeldLeases,
        settings: MemberSettings,
        provider_model: ProviderModelKey,
        redirect: Callable[[], None],
    ) -> None:
        self._acquire = acquire
        self._session = session
        self._held = held
        self._loop = asyncio.get_running_loop()
        self._asked: set[str] = set()  # attempts of which the shard may know, or will be asked
        self._unanswered: set[str] = set()  # those of them that a call was not answered for
        self._local = (
            LocalLeases(session, held, settings, provider_model, redirect)
            if settings.on_unavailable == "local_share"
            else None
        )

    async def acquire(self, item: RequestAdmissionItem, wait: str) -> RequestAdmissionDecision:
        """Decide about an item, at the latest when its wait is over.

        Raises:
            CoordinatorUnavailable: it does not wait and the server is away, or it was closed.
            CoordinatorError, AttemptIdUsed: as for what is given to acquire.
        """
        deadline = None if wait in {"", "try"} else self._loop.time() + int(wait) / 1e6
        encoded_id = encode(item.attempt_id)
        self._asked.add(encoded_id)
        try:
            async with asyncio.timeout_at(deadline and deadline + DENIED_WITHIN_SECONDS):
                return await self._decide(item, encoded_id, wait, deadline)
        except TimeoutError:
            return timed_out(item)
        finally:
            self._asked.discard(encoded_id)
            self._take_back(encoded_id)

    async def _decide(
        self, item: RequestAdmissionItem, encoded_id: str, wait: str, deadline: float | None
    ) -> RequestAdmissionDecision:
        failures = 0
        while True:
            if self._local is not None and self._local.is_on:
                decision = await self._local.acquire(item, wait)
                if decision is not None:
                    return decision
            try:
                return await self._acquire(item, self._left(wait, deadline))
            except CoordinatorUnavailable:
                is_now_or_never = self._local is None and wait == "try"
                if is_now_or_never or self._session.is_closed:
                    raise
            failures += 1
            self._unanswered.add(encoded_id)
            if self._local is None:
                await asyncio.sleep(pause_seconds(failures))
            else:
                self._local.on_asked(encoded_id)
                self._local.begin()

    def _take_back(self, encoded_id: str) -> None:
        """Cancel an attempt without a lease, as the server may have granted it one."""
        if self._local is not None:
            self._local.on_asked(encoded_id)
        if encoded_id in self._unanswered:
            self._unanswered.discard(encoded_id)
            is_given = encoded_id in self._held or self.is_held(encoded_id)
            if not is_given and not self._session.is_closed:
                self._session.submit(Cancel(encoded_id))

    def _left(self, wait: str, deadline: float | None) -> str:
        if deadline is None:
            return wait
        return str(max(0, round((deadline - self._loop.time()) * 1e6)))

    @property
    def is_degraded(self) -> bool:
        """Whether this member's share alone is used now."""
        return self._local is not None and self._local.is_on

    # -- notices and callbacks of the shard

    def on_registering(self) -> None:
        """Ask for this member's share of what it registered."""
        if self._local is not None:
            self._local.watch.ask()

    def on_joined(self, membership: Membership) -> Sequence[Submitted]:
        """Ask for this member's share."""
        return () if self._local is None else self._local.on_joined(membership)

    def on_notice(self, kind: str, encoded_id: str, terms: Sequence[Any]) -> bool:
        """Apply a notice about shares, or about a lease that this process granted."""
        return self._local is not None and self._local.on_notice(kind, encoded_id, terms)

    def on_lost(self, encoded_id: str, lease: RequestAdmissionLease) -> None:
        """Count the call of a lost lease as running until its release."""
        if self._local is not None:
            self._local.on_lost(encoded_id, lease)

    def knows(self, encoded_id: str) -> bool:
        """Whether an attempt waits in this process, or runs under a lease that it granted."""
        return encoded_id in self._asked or self.is_held(encoded_id)

    def is_held(self, encoded_id: str) -> bool:
        """Whether this process granted a lease that has not ended."""
        return self._local is not None and encoded_id in self._local.leases

    def hold_given(self) -> dict[str, RequestAdmissionLease]:
        """Return the leases that this process granted, to state them to a shard in a rebuild."""
        return {} if self._local is None else self._local.leases.hold()

    def release(
        self,
        lease: RequestAdmissionLease,
        outcome: RequestReleaseOutcome,
        held: RequestAdmissionLease | None,
    ) -> asyncio.Future[ReleaseResult] | None:
        """End a lease in this process; None where the release must go to the server.

        Args:
            lease: as its caller has it.
            outcome: of the call.
            held: the same lease as the server gave it, if this process held it.
        """
        if self._local is None:
            return None
        if held is not None:
            result = DEFERRED if self._local.keep_slot(held, outcome) else None
        else:
            result = self._local.release(lease, outcome)
        if result is None:
            return None
        done: asyncio.Future[ReleaseResult] = self._loop.create_future()
        done.set_result(result)
        return done

    def close(self) -> None:
        """Deny every attempt that waits in this process."""
        if self._local is not None:
            self._local.close()
