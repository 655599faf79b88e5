"""This member's part of one request shard: its attempts, leases and registrations."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from forebay.contracts.errors import AttemptIdUsed, CoordinatorError, CoordinatorUnavailable
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.outcomes import ReleaseResult, RequestReleaseOutcome
from forebay.contracts.quotas import QuotaReading
from forebay.contracts.requests import (
    RequestAdmissionDecision,
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestAdmissionLease,
)
from forebay.contracts.settings import RequestAdmissionConfig
from forebay.coordinator.keys import encode, request_shard
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.denials import shut_down, timed_out
from forebay.coordinator.requests.held_leases import HeldLeases, LeaseLost
from forebay.coordinator.requests.operations import (
    Acquire,
    Attempt,
    Cancel,
    Unknown,
    Waiting,
    decode_answer,
)
from forebay.coordinator.requests.outages import Acquiring, Outages
from forebay.coordinator.requests.rechecks import Rechecks
from forebay.coordinator.requests.registering import Learn, Leave, Register
from forebay.coordinator.requests.releasing import Release
from forebay.coordinator.requests.restating import Restating
from forebay.coordinator.requests.upkeep import Upkeep
from forebay.coordinator.scripts.composing import script
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.shard.operation import ENDED, Ended, Operation, Reply, Submitted
from forebay.coordinator.shard.session import Session
from forebay.coordinator.supervision import Guard

LONGEST_CANCEL_SECONDS: Final = 0.3
REDIRECTED: Final = "the server was away, so this member's share of the window decides."

log = Logger("forebay.requests")


class RequestShard:
    """Acquires and releases leases of one shard, and applies its notices.

    Args:
        server: the process's connection.
        provider_model: whose shard it is.
        on_lease_lost: told of each lease that ended without being released, with the reason.

    Attributes:
        held: the leases of this process, by encoded id.
        outages: answers while the server is away; None where callers get an error.
        admit: decides about an item: ``acquire``, or what answers while the server is away.
        session: the one way of this process to change the shard.
    """

    def __init__(
        self, server: ServerConnection, provider_model: ProviderModelKey, on_lease_lost: LeaseLost
    ) -> None:
        self.held = HeldLeases(on_lease_lost)
        self._loop = asyncio.get_running_loop()
        self._attempts: dict[str, Attempt] = {}
        self._guard = Guard(log, shard=str(provider_model))
        self.session = Session(
            server, request_shard(provider_model), script("requests/batch"), Leave(), self
        )
        settings = server.settings
        self.outages = (
            None
            if settings.on_unavailable == "fail"
            else Outages(
                self.acquire, self.session, self.held, settings, provider_model, self._redirect
            )
        )
        self.admit: Acquiring = self.acquire if self.outages is None else self.outages.acquire
        self._recheck_seconds = seconds = settings.recheck_seconds
        self._rechecks = Rechecks(self.session, self._attempts, seconds, self._guard)
        self._upkeep = Upkeep(self.session, server.settings, self._guard)
        self._restating = Restating(self.session, self._attempts, self._rechecks, self._knows)

    async def register(self, alias: str, cap: int, config: RequestAdmissionConfig) -> int:
        """Register an alias for as long as this process is a member; return the static cap."""
        on_sent = None if self.outages is None else self.outages.on_registering
        return await self._upkeep.register(Register(alias, cap, config), on_sent)

    # -- acquiring

    async def acquire(self, item: RequestAdmissionItem, wait: str) -> RequestAdmissionDecision:
        """Acquire a lease; return once it is granted or denied.

        Args:
            item: what is asked.
            wait: for how long, as `Acquire` says it.

        Raises:
            AttemptIdUsed: the attempt id is asked for already, or was used before.
            CoordinatorError: the shared state could not be used.
        """
        attempt = self._enter(item, wait)
        try:
            self._ask(attempt)
            while True:
                match await attempt.next():
                    case RequestAdmissionLease() as lease if self._is_own(lease.member_id):
                        return self._hold(attempt, lease)
                    case RequestAdmissionDenied() as denied:
                        return denied
                    case Waiting(member_id) if self._is_own(member_id):
                        self._rechecks.note_waiting(attempt)
                    case RequestAdmissionLease() | Waiting() | Unknown() | Ended():
                        # The attempt ended with the membership under which it was made.
                        if not self._rechecks.reopen(attempt):
                            return timed_out(item)
                        self._ask(attempt)
                    case error:
                        if attempt.is_waiting and not self._knows(attempt.encoded_id):
                            self.session.submit(Cancel(attempt.encoded_id))
                        raise error
        except asyncio.CancelledError:
            await self._take_back(attempt)
            raise
        finally:
            self._forget(attempt)

    def _enter(self, item: RequestAdmissionItem, wait: str) -> Attempt:
        attempt = Attempt(item, wait)
        if attempt.encoded_id in self._attempts:
            raise AttemptIdUsed(
                item.attempt_id,
                f"attempt id {item.attempt_id!r} is asked for already; make one per attempt.",
            )
        if attempt.asker in self.held.holding:
            self.held.warn_of_nesting(item)
        self._attempts[attempt.encoded_id] = attempt
        return attempt

    def _ask(self, attempt: Attempt) -> None:
        attempt.is_in_doubt = False
        self.session.submit(Acquire(attempt.item, attempt.wait), attempt.deliver)

    def _is_own(self, member_id: str) -> bool:
        """Whether a lease was granted under the present membership."""
        membership = self.session.membership
        return membership is not None and membership.member_id == member_id

    def _hold(self, attempt: Attempt, lease: RequestAdmissionLease) -> RequestAdmissionLease:
        held = self.held
        held[attempt.encoded_id] = lease
        if attempt.asker is not None and not held.has_warned:
            held.holders[attempt.encoded_id] = attempt.asker
            held.holding.add(attempt.asker)
        if attempt.lost_because is not None:
            self._lost(attempt.encoded_id, attempt.lost_because)
        return lease

    async def _take_back(self, attempt: Attempt) -> None:
        """Cancel an attempt and wait for it, before its caller's cancellation goes on.

        A server that says nothing holds the cancellation up for a moment only: the operation is
        under way in any case, and repeated until it is acknowledged.
        """
        self._forget(attempt)
        cancelled = self.session.ask(Cancel(attempt.encoded_id))
        cancelled.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([cancelled], timeout=LONGEST_CANCEL_SECONDS)

    def _forget(self, attempt: Attempt) -> None:
        if self._attempts.get(attempt.encoded_id) is attempt:
            del self._attempts[attempt.encoded_id]
            if attempt.is_waiting:
                self._rechecks.forget(attempt)
            if attempt.end is None:  # its caller takes nothing any more
                attempt.deliver(shut_down(attempt.item))

    def _redirect(self) -> None:
        """Fail the acquires under way, so that the local leases decide about them."""
        for attempt in list(self._attempts.values()):
            attempt.deliver(CoordinatorUnavailable(REDIRECTED))

    def on_unclaimed(self, operation: Operation[Any], reply: Reply) -> None:
        """Cancel a grant whose caller has gone, unless the caller acquires again by its id."""
        for back in operation.undo(reply):
            if isinstance(back, Cancel) and not self._knows(back.attempt_id):
                attempt = self._attempts.get(back.attempt_id)
                if attempt is None or isinstance(attempt.end, RequestAdmissionDenied | Exception):
                    self.session.submit(back)

    def _knows(self, encoded_id: str) -> bool:
        outages = self.outages
        return encoded_id in self.held or (outages is not None and outages.knows(encoded_id))

    # -- releasing

    def release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> asyncio.Future[ReleaseResult]:
        """Release a lease; the release is sent at once and repeated until acknowledged."""
        held = self.held.let_go(encode(lease.lease_id))
        ended = None if self.outages is None else self.outages.release(lease, outcome, held)
        return ended or self.session.ask(Release(lease, outcome))

    def learn(self, readings: Sequence[QuotaReading]) -> None:
        """Send quota readings of headers that have just arrived; lost if the server is away."""
        at_us = self.session.time.now_us
        if at_us is not None:
            for reading in readings:
                self.session.submit(Learn(reading, at_us))

    # -- notices and callbacks of the shard

    def on_notices(self, _generation: str, notices: Sequence[list[Any]]) -> None:
        """Deliver grants, denials and losses to their attempts; a failure of one stops no other."""
        for notice in notices:
            if not self._guard.call(self._take_notice, *notice):
                self._fail_noticed(notice)

    def _take_notice(self, kind: str, encoded_id: str = "", *terms: Any) -> None:
        attempt, membership = self._attempts.get(encoded_id), self.session.membership
        if kind == "set":
            self._upkeep.sweep()
        elif kind == "lost":
            if attempt is not None:
                attempt.lost_because = str(terms[0])  # the lease itself is still on its way
            self._lost(encoded_id, str(terms[0]))
        elif attempt is not None and membership is not None:
            answer_terms = [kind, *terms]
            generation, member_id = membership.generation, membership.member_id
            answer = decode_answer(attempt.item, answer_terms, generation, member_id)
            if not attempt.deliver(answer) and kind == "granted":
                self.session.submit(Cancel(encoded_id))
        elif self.outages is not None and self.outages.on_notice(kind, encoded_id, terms):
            return
        elif kind == "granted" and not self._knows(encoded_id):
            self.session.submit(Cancel(encoded_id))  # nobody waits for it any more

    def _fail_noticed(self, notice: Sequence[Any]) -> None:
        """End the attempt of a notice that could not be read; its lease is released."""
        for one in [one for one in self._attempts.values() if one.encoded_id in notice]:
            error = f"what {one.item.resource} decided could not be read; please report this."
            one.deliver(CoordinatorError(error))

    def on_next_wake(self, seconds: float | None) -> None:
        """Recheck at the instant at which a timer of the shard may have changed something."""
        if seconds is not None or self._rechecks.wake is not None:
            self._rechecks.wake_in(seconds)

    def on_joined(self, membership: Membership) -> Sequence[Submitted]:
        """Return the registrations, and ask again for every waiting attempt.

        Windows and settings that an earlier membership remembers are stated, too.
        """
        self._upkeep.sweep_later(membership)
        for attempt in list(self._attempts.values()):
            if attempt.is_waiting:
                attempt.deliver(ENDED)
        more = () if self.outages is None else self.outages.on_joined(membership)
        return [*self._restating.recall(self._upkeep), *self._upkeep.register_anew(), *more]

    def on_forgotten(self, membership: Membership) -> Sequence[Submitted]:
        """Return the statement of leases, waiters, registrations and settings."""
        more = () if self.outages is None else self.outages.on_joined(membership)
        given = {} if self.outages is None else self.outages.hold_given()
        held = {**self.held, **given}
        return [*self._restating.state_all(held, self._upkeep, self._lost), *more]

    def on_lost(self, _membership: Membership) -> None:
        """Report every lease of the last membership as lost."""
        for encoded_id in list(self.held):
            self._lost(encoded_id, "member_lost")

    def _lost(self, encoded_id: str, why: str) -> None:
        lease = self.held.lose(encoded_id, why)
        if lease is not None and self.outages is not None:
            self.outages.on_lost(encoded_id, lease)

    def on_resumed(self) -> None:
        """Ask for the state of every waiting attempt, as wake-ups may have been lost."""
        self._rechecks.recheck_all()

    async def close(self) -> None:
        """Deny this member's own waiters with ``shutdown`` and leave the shard."""
        if self.outages is not None:
            self.outages.close()
        for attempt in self._attempts.values():
            attempt.deliver(shut_down(attempt.item))
        try:
            await self.session.close()
        finally:  # after it, as its replies set timers
            self._rechecks.close()
            self._upkeep.close()
