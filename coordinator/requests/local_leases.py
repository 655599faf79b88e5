"""Leases of this member's share of a window, while the server is away (docs/adr/0024)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.outcomes import (
    ReleaseReason,
    ReleaseResult,
    RequestReleaseOutcome,
)
from forebay.contracts.requests import (
    RequestAdmissionDecision,
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
)
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.keys import encode
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.denials import shut_down
from forebay.coordinator.requests.given_leases import GivenLease, GivenLeases
from forebay.coordinator.requests.held_leases import HeldLeases
from forebay.coordinator.requests.local_queue import LocalQueue
from forebay.coordinator.requests.outage_phases import (
    Absence,
    Holding,
    Phase,
    Returning,
    Serving,
    allowance_of,
    next_phase,
)
from forebay.coordinator.requests.releasing import Release
from forebay.coordinator.requests.running_calls import RunningCalls
from forebay.coordinator.requests.share_watch import ShareWatch
from forebay.coordinator.requests.shares import Allowance
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.shard.operation import Submitted
from forebay.coordinator.shard.session import Session
from forebay.coordinator.supervision import Guard

LOOK_SECONDS: Final = 0.05
"""Interval at which the phase and the waiting attempts are checked."""
log = Logger("forebay.requests")


class LocalLeases:
    """Gives leases of this member's share, first come, first served.

    Until no lease of the server can be held any more, a TTL after the server was found to be away,
    a call takes the slot of another that ended here; from then on the share is used. When the
    server is back, the leases that still run are acquired there, and for two deadlines and a second
    this member stays within its share, as others may not be back yet.

    Args:
        session: of the shard.
        held: the server's leases of this process.
        settings: TTL and deadline.
        provider_model: named in the log.
        redirect: ends each acquire that the server was asked for with an error, so that it is
            decided here.

    Attributes:
        leases: given here and not yet counted by the server, by encoded id.
        watch: keeps this member's share.
        phase: the present phase of the server's absence.
    """

    def __init__(
        self,
        session: Session,
        held: HeldLeases,
        settings: MemberSettings,
        provider_model: ProviderModelKey,
        redirect: Callable[[], None],
    ) -> None:
        self.leases = GivenLeases(session, held)
        self.phase: Phase = Serving()
        self._session = session
        self._held = held
        self._settings = settings
        self._redirect = redirect
        self._loop = asyncio.get_running_loop()
        self._provider_model = str(provider_model)
        self._guard = Guard(log, provider_model=self._provider_model)
        self._running = RunningCalls()
        self._waiting: LocalQueue[RequestAdmissionDecision | None] = LocalQueue()
        self.watch = ShareWatch(session, self._guard)
        self._given = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_on(self) -> bool:
        """Whether this process decides acquires, as the server is away."""
        return not isinstance(self.phase, Serving)

    def on_joined(self, membership: Membership) -> Sequence[Submitted]:
        """Ask for this member's share, and state leases anew.

        A member that had nothing to ask for while the server was away keeps to its share as well:
        where its membership lasted no longer, others may still use theirs.
        """
        earlier = self.watch.membership
        if earlier is not None and not earlier.is_held:
            self._begin(self._loop.time() - earlier.ttl_seconds)
        self.leases.state_anew()
        self.leases.slots.release_unused()  # of an ended membership, or of a shard that lost state
        if self.is_on:
            self._redirect()  # the server would decide about them beside the share
        else:
            self._running.lost.clear()
        return self.watch.on_joined(membership)

    # -- acquiring

    def begin(self) -> None:
        """Begin to decide acquires in this process, as the server is away."""
        self._begin(self._session.away_since or self._loop.time())

    def _begin(self, since: float) -> None:
        if self.is_on:
            return
        self._given = 0
        absence = self._hold(since)
        share = self.watch.latest and self.watch.latest[0]
        log.warning(
            "local_share_began",
            provider_model=self._provider_model,
            members=share.members if share else 0,
            share_of_cap=share.of(share.static_cap) if share else 0,
            used_in_seconds=round(max(0.0, absence.opens_at - self._loop.time()), 1),
        )
        self._look()

    def _hold(self, since: float) -> Absence:
        """Begin an absence, with the share last received in the present membership."""
        ttl_seconds = (self.watch.membership or self._settings).ttl_seconds
        absence = Absence(since, ttl_seconds, self._settings.call_timeout_seconds)
        latest = self.watch.latest
        allowance = None if latest is None else Allowance(*latest, self._loop.time())
        self.phase = Holding(absence=absence, allowance=allowance)
        for release in self._session.withdraw(Release):
            if not self._keep_slot(release):
                self._session.submit(release)
        return absence

    async def acquire(
        self, item: RequestAdmissionItem, wait: str
    ) -> RequestAdmissionDecision | None:
        """Wait for a lease of this member's share; None where the server must decide."""
        reason = self._lacks(item)
        if reason is None and not self._waiting.has(item.resource.domain):
            return self._give(item)
        if wait == "try":
            reason = reason or RequestDenialReason.QUEUED_WAITERS_AHEAD
            return RequestAdmissionDenied(item=item, reason=reason)
        decided = self._waiting.wait(item)
        try:
            return await decided
        except asyncio.CancelledError:
            if decided.done() and not decided.cancelled():
                self._end(encode(item.attempt_id))  # its caller was cancelled after the grant
            raise

    def on_asked(self, encoded_id: str) -> None:
        """Note that the server has decided about an attempt."""
        if self._running.deciding.pop(encoded_id, None) is not None and self.is_on:
            self._give_in_turn()

    def _lacks(self, item: RequestAdmissionItem) -> RequestDenialReason | None:
        domain, allowance = item.resource.domain, allowance_of(self.phase)
        needs_slot = isinstance(self.phase, Holding)
        if allowance is None or (needs_slot and not self.leases.slots.has(domain)):
            return RequestDenialReason.NO_CAPACITY
        leases = (given.lease for given in self.leases.values())
        running = self._running.count([*leases, *self._held.values()])
        return allowance.lacks(domain, item.cost or 0, running, self._loop.time())

    def _give(self, item: RequestAdmissionItem) -> RequestAdmissionLease | None:
        """Grant a lease of the share; None where the server is back and decides."""
        domain = item.resource.domain
        if isinstance(self.phase, Returning):
            self._running.deciding[encode(item.attempt_id)] = domain
            return None
        allowance, membership = allowance_of(self.phase), self.watch.membership
        assert allowance is not None  # noqa: S101 - for mypy: `_lacks` was None
        assert membership is not None  # noqa: S101 - for mypy: a share is a member's
        slot = self.leases.slots.take(domain) if isinstance(self.phase, Holding) else None
        now_at = (self._session.time.now_us or 0) / 1e6
        lease = allowance.lease(item, membership, now_at)
        self.leases[encode(item.attempt_id)] = GivenLease(lease, slot)
        self._given += 1
        return lease

    # -- phases

    def _look(self) -> None:
        """Enter the phase that is due, and grant the leases that it allows."""
        self._timer = None
        now, membership = self._loop.time(), self._session.membership
        is_member = membership is not None and membership.is_held
        is_back = self._session.away_since is None and is_member
        if isinstance(self.phase, Returning) and not is_back:
            self._hold(self._session.away_since or now)  # away again before shares were given up
        while (phase := next_phase(self.phase, now, is_back=is_back)) is not self.phase:
            self._enter(phase, now)
        if self.is_on:
            self._give_in_turn()
            self._timer = self._loop.call_later(LOOK_SECONDS, self._guard.call, self._look)

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase = phase
        self.leases.slots.release_unused()
        if isinstance(phase, Returning):
            self.leases.state()
            if phase.until > now:
                self._redirect()
        elif isinstance(phase, Serving):
            self._finish()

    def _give_in_turn(self) -> None:
        self._waiting.decide(self._give, lambda item: self._lacks(item) is None)

    def _finish(self) -> None:
        self._running.lost.clear()
        log.warning(
            "local_share_ended",
            provider_model=self._provider_model,
            leases_given=self._given,
            still_running=len(self.leases),
        )
        self._waiting.decide(lambda _item: None)

    # -- notices and callbacks of the shard

    def on_notice(self, kind: str, encoded_id: str, terms: Sequence[Any]) -> bool:
        """Apply a notice: the share has changed, or the server counts a lease now."""
        if kind == "share":
            self.watch.ask()
            return True
        return self.leases.on_notice(kind, encoded_id, terms)

    def on_lost(self, encoded_id: str, lease: RequestAdmissionLease) -> None:
        """Count the call of a lost lease as running until its release."""
        self._running.lost[encoded_id] = lease.item.resource.domain

    # -- ends

    def keep_slot(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome) -> bool:
        """Keep the slot of an ended lease for the next call; return whether it is kept."""
        is_kept = self._keep_slot(Release(lease, outcome))
        if is_kept:
            self._give_in_turn()
        return is_kept

    def _keep_slot(self, release: Release) -> bool:
        membership = self._session.membership
        is_kept = (
            isinstance(self.phase, Holding)
            and membership is not None
            and membership.is_held
            and release.lease.member_id == membership.member_id
        )
        if is_kept:
            self.leases.slots.add(release)
        return is_kept

    def release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> ReleaseResult | None:
        """End a lease that this process granted; None where the server counts or lost it."""
        encoded_id, allowance = encode(lease.lease_id), allowance_of(self.phase)
        if not self._end(encoded_id):
            if self._running.lost.pop(encoded_id, None) is not None and self.is_on:
                self._give_in_turn()
            return None
        if allowance is not None:
            allowance.note_outcome(lease.item.resource.domain, outcome, self._loop.time())
        if self.is_on:
            self._give_in_turn()
        return ReleaseResult(
            released=True, reason=ReleaseReason.RELEASED, diagnostics={"degraded": True}
        )

    def _end(self, encoded_id: str) -> bool:
        return self.leases.end(encoded_id, keeps_slot=isinstance(self.phase, Holding))

    def close(self) -> None:
        """Deny every waiting attempt with ``shutdown``."""
        self.watch.close()
        if self._timer is not None:
            self._timer.cancel()
        self.phase = Serving()
        self.leases.slots.release_unused()
        self._waiting.decide(shut_down)
