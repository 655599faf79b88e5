"""Leases of this member's part of a window, while the server is away (docs/adr/0024)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from forebay.contracts.identity import ProviderModelKey, RequestDomain
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
from forebay.coordinator.requests.absence import Absence
from forebay.coordinator.requests.denials import shut_down
from forebay.coordinator.requests.given_leases import GivenLease, GivenLeases
from forebay.coordinator.requests.held_leases import HeldLeases
from forebay.coordinator.requests.operations import decode_answer
from forebay.coordinator.requests.running_calls import RunningCalls
from forebay.coordinator.requests.share_watch import ShareWatch
from forebay.coordinator.requests.shares import Allowance, Share
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.shard.operation import Submitted
from forebay.coordinator.shard.session import Session
from forebay.coordinator.supervision import Guard

LOOK_SECONDS: Final = 0.05
"""How often what waits here is looked at, and whether the server is back."""

log = Logger("forebay.requests")


_Line = deque[tuple[RequestAdmissionItem, asyncio.Future[RequestAdmissionDecision | None]]]


class LocalLeases:
    """Gives leases of this member's part, first come, first served.

    A part is used once no lease of the server can be held any more, a TTL after the server was
    found to be away. When it is back, the leases that still run are acquired there, and for two
    deadlines and a second this member stays within its part, as others may not be back yet.

    Args:
        session: of the shard.
        held: the server's leases of this process.
        settings: TTL and deadline.
        provider_model: for the log.

    Attributes:
        leases: those that were given here and are not the server's yet, by encoded id.
        watch: keeps this member's part.
    """

    def __init__(
        self,
        session: Session,
        held: HeldLeases,
        settings: MemberSettings,
        provider_model: ProviderModelKey,
    ) -> None:
        self.leases = GivenLeases(session, held)
        self._session = session
        self._held = held
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._provider_model = str(provider_model)
        self._guard = Guard(log, provider_model=self._provider_model)
        self._running = RunningCalls()
        self._waiting: dict[RequestDomain, _Line] = {domain: deque() for domain in RequestDomain}
        self.watch = ShareWatch(session, self._guard)
        self._told: tuple[Share, float] | None = None  # before the outage, by which parts are used
        self._allowance: Allowance | None = None
        self._absence: Absence | None = None  # while it is on
        self._back_until: float | None = None
        self._given = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_on(self) -> bool:
        """Whether acquires are decided here."""
        return self._absence is not None

    def on_joined(self, membership: Membership) -> Sequence[Submitted]:
        """Ask for this member's part, and state leases anew.

        A member that had nothing to ask for while the server was away keeps to its part as well:
        where its membership lasted no longer, others may still use theirs.
        """
        earlier = self.watch.membership
        if earlier is not None and not earlier.is_held:
            self._begin(self._loop.time() - earlier.ttl_seconds)
        self.leases.state_anew()
        if not self.is_on:
            self._running.lost.clear()
        return self.watch.on_joined(membership)

    # -- asking

    def begin(self) -> None:
        """Decide here from now on, as the server is away."""
        self._begin(self._session.away_since or self._loop.time())

    def _begin(self, since: float) -> None:
        if self._absence is not None:
            return
        self._back_until = None
        self._allowance = None
        self._given = 0
        self._told = self.watch.told
        self._absence = self._absence_since(since)
        share = self._told and self._told[0]
        log.warning(
            "local_share_began",
            provider_model=self._provider_model,
            members=share.members if share else 0,
            part_of_cap=share.part(share.static_cap) if share else 0,
            used_in_seconds=round(max(0.0, self._absence.opens_at - self._loop.time()), 1),
        )
        self._look()

    async def acquire(
        self, item: RequestAdmissionItem, wait: str
    ) -> RequestAdmissionDecision | None:
        """Wait for a lease of this member's part; None where the server is to be asked."""
        reason, line = self._lacks(item), self._waiting[item.resource.domain]
        if reason is None and not line:
            return self._give(item)
        if wait == "try":
            reason = reason or RequestDenialReason.QUEUED_WAITERS_AHEAD
            return RequestAdmissionDenied(item=item, reason=reason)
        future: asyncio.Future[RequestAdmissionDecision | None] = self._loop.create_future()
        line.append((item, future))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.leases.end(encode(item.attempt_id))  # given to a caller that has gone
            raise

    def _absence_since(self, since: float) -> Absence:
        ttl_seconds = (self.watch.membership or self._settings).ttl_seconds
        return Absence(since, ttl_seconds, self._settings.call_timeout_seconds)

    def _is_part_used(self, now: float) -> bool:
        is_open = self._absence is not None and now >= self._absence.opens_at
        return is_open or self._back_until is not None

    def on_asked(self, encoded_id: str) -> None:
        """Note that the server has decided about an attempt that was not decided here."""
        if self._running.asking.pop(encoded_id, None) is not None and self.is_on:
            self._give_in_turn()

    def _lacks(self, item: RequestAdmissionItem) -> RequestDenialReason | None:
        now = self._loop.time()
        if self._allowance is None:
            if self._told is None or not self._is_part_used(now):
                return RequestDenialReason.NO_CAPACITY
            self._allowance = Allowance(*self._told, now)
        leases = (given.lease for given in self.leases.values())
        running = self._running.count([*leases, *self._held.values()])
        return self._allowance.lacks(item.resource.domain, item.cost or 0, running, now)

    def _give(self, item: RequestAdmissionItem) -> RequestAdmissionLease | None:
        """Give a lease, or None where the server is back: it is to be asked, within the part."""
        if self._back_until is not None:
            self._running.asking[encode(item.attempt_id)] = item.resource.domain
            return None
        assert self._allowance is not None  # noqa: S101 - for mypy; it lacks nothing
        membership = self.watch.membership
        assert membership is not None  # noqa: S101 - so it was told a part
        now_at = (self._session.server_now_us or 0) / 1e6
        lease = self._allowance.lease(item, membership, now_at)
        self.leases[encode(item.attempt_id)] = GivenLease(lease)
        self._given += 1
        return lease

    # -- the server's return

    def _look(self) -> None:
        """Give what can be given, and see whether the server is back."""
        self._timer = None
        if self._absence is None:
            return
        now = self._loop.time()
        membership = self._session.membership
        if self._session.away_since is None and membership is not None and membership.is_held:
            if self._back_until is None:
                self._back_until = now + self._absence.stay_seconds(now)
            if now >= self._back_until:
                self._finish()
                return
            self.leases.state()
        else:
            if self._back_until is not None:  # away again, before the return was over
                self._absence = self._absence_since(now)
                self._allowance = None
                self._told = self.watch.told  # others may have entered meanwhile
            self._back_until = None
        self._give_in_turn()
        self._timer = self._loop.call_later(LOOK_SECONDS, self._guard.call, self._look)

    def _give_in_turn(self) -> None:
        for line in self._waiting.values():
            while line and (line[0][1].done() or self._lacks(line[0][0]) is None):
                item, future = line.popleft()
                if not future.done():
                    future.set_result(self._give(item))

    def _finish(self) -> None:
        self._absence = None
        self._running.lost.clear()
        log.warning(
            "local_share_ended",
            provider_model=self._provider_model,
            leases_given=self._given,
            still_running=len(self.leases),
        )
        self._tell_waiting(lambda _item: None)

    # -- what the shard tells

    def on_notice(self, kind: str, encoded_id: str, terms: Sequence[Any]) -> bool:
        """Take that this member's part has changed, or that the server counts a lease now."""
        membership, given = self._session.membership, self.leases.get(encoded_id)
        if kind == "share":
            self.watch.ask()
            return True
        if given is None or membership is None:
            return False
        answer = decode_answer(
            given.lease.item, [kind, *terms], membership.generation, membership.member_id
        )
        return self.leases.take(encoded_id, given, answer)

    def on_lost(self, encoded_id: str, lease: RequestAdmissionLease) -> None:
        """Count the call of a lost lease as running until it is given back."""
        self._running.lost[encoded_id] = lease.item.resource.domain

    # -- ends

    def release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> ReleaseResult | None:
        """End a lease that was given here; None where it is the server's by now, held or lost."""
        encoded_id = encode(lease.lease_id)
        if not self.leases.end(encoded_id):
            if self._running.lost.pop(encoded_id, None) is not None and self.is_on:
                self._give_in_turn()
            return None
        if self._allowance is not None:
            self._allowance.note_outcome(lease.item.resource.domain, outcome, self._loop.time())
        if self.is_on:
            self._give_in_turn()
        return ReleaseResult(
            released=True, reason=ReleaseReason.RELEASED, diagnostics={"degraded": True}
        )

    def close(self) -> None:
        """Deny everybody who waits here with ``shutdown``."""
        self.watch.close()
        if self._timer is not None:
            self._timer.cancel()
        self._absence = None
        self._tell_waiting(shut_down)

    def _tell_waiting(
        self, decide: Callable[[RequestAdmissionItem], RequestAdmissionDenied | None]
    ) -> None:
        for line in self._waiting.values():
            while line:
                item, future = line.popleft()
                if not future.done():
                    future.set_result(decide(item))
