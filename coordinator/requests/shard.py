"""This member's part of one provider/model: who waits here, what is held, what is registered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from forebay.contracts.errors import ConfigurationError, CoordinatorError, ForebayError
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.outcomes import ReleaseResult, RequestReleaseOutcome
from forebay.contracts.quotas import QuotaReading
from forebay.contracts.requests import (
    RequestAdmissionDecision,
    RequestAdmissionDenied,
    RequestAdmissionError,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
)
from forebay.contracts.settings import RequestAdmissionConfig
from forebay.coordinator.keys import encode, request_shard
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests import codec
from forebay.coordinator.requests.asking import Attempt, Recheck, Registration, Sweep
from forebay.coordinator.scripts.composing import script
from forebay.coordinator.shard.joining import Server
from forebay.coordinator.shard.membership import Membership
from forebay.coordinator.shard.operation import Args, Operation, Release, Result
from forebay.coordinator.shard.session import Session
from forebay.coordinator.supervision import Guard

SHORTEST_WAKE_SECONDS: Final = 0.001

LeaseLost = Callable[[RequestAdmissionLease, str], None]

log = Logger("forebay.requests")


class RequestShard:
    """Asks and releases on one shard, and hears what becomes of it.

    Args:
        server: the process's connection.
        provider_model: whose shard it is.
        on_lease_lost: told of each lease that ended without being released, with the reason.
    """

    def __init__(
        self, server: Server, provider_model: ProviderModelKey, on_lease_lost: LeaseLost
    ) -> None:
        self.held: dict[str, RequestAdmissionLease] = {}
        self._holders: dict[str, asyncio.Task[Any]] = {}  # by lease, until one has been warned
        self._holding: set[asyncio.Task[Any]] = set()
        self._has_warned = False
        self.loop = asyncio.get_running_loop()
        self._attempts: dict[str, Attempt] = {}
        self._waiting = 0
        self._registrations: dict[str, Args] = {}
        self._is_closed = False
        self._on_lease_lost = on_lease_lost
        self._guard = Guard(log, shard=str(provider_model))
        self._recheck_seconds = server.settings.recheck_seconds
        self._wake: asyncio.TimerHandle | None = None
        self._recheck: asyncio.TimerHandle | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self.session = Session(
            server, request_shard(provider_model), script("requests/batch"), self
        )

    async def register(self, alias: str, cap: int, config: RequestAdmissionConfig) -> int:
        """Register an alias for as long as this process is a member; return the static cap."""
        args = codec.register_args(alias, cap, config)
        result = await self.session.ask(*args)
        self._registrations[alias] = args
        return int(result[1])

    def _register_again(self, args: Args) -> None:
        """Try once more what was refused, such as by a server without memory."""

        def submit() -> None:
            if args in self._registrations.values():
                self.session.submit(Registration(args, self._register_again))

        if not self._is_closed:
            self.loop.call_later(self._recheck_seconds, self._guard.call, submit)

    # -- asking

    def ask(self, item: RequestAdmissionItem, wait: str) -> Attempt:
        """Put an attempt on its way; its future is told the decision."""
        attempt = Attempt(item, codec.acquire_args(item, wait), self)
        if attempt.encoded_id in self._attempts:
            raise ConfigurationError(
                f"attempt id {item.attempt_id!r} is asked for already; make one per attempt."
            )
        if attempt.asker in self._holding and not self._has_warned:
            self._has_warned = True
            log.warning(
                "request_lease_nested",
                resource=str(item.resource),
                hint="this task holds a lease and asks for another: at a small cap it may wait for"
                " itself, for ever if no queue_wait_timeout_seconds is set; close what it streams"
                " first, with `async with`",
            )
        self._attempts[attempt.encoded_id] = attempt
        self.session.submit(attempt)
        return attempt

    def answered(self, attempt: Attempt, result: Result, sent_as: Membership | None) -> None:
        """Take what the shard says of an attempt, under the membership that asked."""
        match result[0]:
            case "granted" | "waiting" if attempt.is_granted:
                pass  # a notice overtook this reply and brought the lease
            case "denied":
                self._decide(attempt, codec.decode_denial(attempt.item, result))
            case "granted" | "waiting" if attempt.future.done():
                self.unwanted(attempt)
            case "granted" | "waiting" if sent_as is not self.session.membership:
                self._ask_again(attempt)  # what it got has gone with that membership
            case "granted":
                self._grant(attempt, result)
            case "waiting":
                self._note_waiting(attempt)
            case "unknown":
                self._ask_again(attempt)  # the waiter vanished with the server's memory of it

    def failed(self, attempt: Attempt, error: ForebayError) -> None:
        """Tell an attempt's caller that the shard could not be asked; what it took goes back."""
        if attempt.future.done():
            return
        was_waiting = attempt.is_waiting
        self._forget(attempt)
        attempt.future.set_exception(error)
        if was_waiting:
            self.unwanted(attempt)

    def unwanted(self, attempt: Attempt) -> None:
        """Give back what an attempt took that nobody waits for."""
        if attempt.encoded_id not in self._attempts:  # else it was asked anew under its id
            self._return(attempt.encoded_id)

    def _return(self, encoded_id: str) -> None:
        if encoded_id not in self.held:
            self.session.submit(Operation(("cancel", encoded_id), frees=True))

    def _ask_again(self, attempt: Attempt) -> None:
        if attempt.future.done():
            return
        self._stop_waiting(attempt)
        now = self.loop.time()
        if attempt.deadline is not None and now >= attempt.deadline:
            self._deny(attempt, RequestDenialReason.QUEUE_TIMEOUT)
        else:
            attempt.shorten(now)
            self.session.submit(attempt)

    def _note_waiting(self, attempt: Attempt) -> None:
        if not attempt.is_waiting:
            attempt.is_waiting = True
            self._waiting += 1
            self._keep_rechecking()
        if attempt.is_in_doubt:
            self._recheck_one(attempt)

    def _grant(self, attempt: Attempt, terms: Sequence[Any]) -> None:
        membership = self.session.membership
        assert membership is not None  # noqa: S101 - for mypy; whoever tells a grant is a member
        lease = codec.decode_lease(attempt.item, terms, membership.generation, membership.member_id)
        self.held[attempt.encoded_id] = lease
        if attempt.asker is not None and not self._has_warned:
            self._holders[attempt.encoded_id] = attempt.asker
            self._holding.add(attempt.asker)
        attempt.is_granted = True
        self._decide(attempt, lease)
        if attempt.lost_because is not None:
            self._lost(attempt.encoded_id, attempt.lost_because)

    def _deny(self, attempt: Attempt, reason: RequestDenialReason) -> None:
        self._decide(attempt, RequestAdmissionDenied(item=attempt.item, reason=reason))

    def _decide(self, attempt: Attempt, decision: RequestAdmissionDecision) -> None:
        self._forget(attempt)
        if not attempt.future.done():
            attempt.future.set_result(decision)

    def _forget(self, attempt: Attempt) -> None:
        self._attempts.pop(attempt.encoded_id, None)
        self._stop_waiting(attempt)

    def _stop_waiting(self, attempt: Attempt) -> None:
        if attempt.is_waiting:
            attempt.is_waiting = False
            self._waiting -= 1

    def take_back(self, attempt: Attempt) -> asyncio.Future[Result]:
        """Cancel an attempt, whichever way it went: waiter gone, or lease given back."""
        self._forget(attempt)
        self._let_go(attempt.encoded_id)
        return self.session.ask("cancel", attempt.args[1], frees=True)

    def _let_go(self, encoded_id: str) -> None:
        self.held.pop(encoded_id, None)
        if encoded_id in self._holders:
            self._holding.discard(self._holders.pop(encoded_id))

    # -- releasing

    def release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> asyncio.Future[ReleaseResult]:
        """Give a lease back; under way at once and repeated until acknowledged."""
        self._let_go(encode(lease.lease_id))
        release = Release(codec.release_args(lease, outcome), self.loop)
        self.session.submit(release)
        return release.future

    def learn(self, readings: Sequence[QuotaReading]) -> None:
        """Tell what headers said that arrived just now; lost if the server is away."""
        at_us = self.session.server_now_us
        if at_us is not None:
            for reading in readings:
                self.session.submit(Operation(codec.learn_args(reading, at_us)))

    # -- what the shard tells

    def on_notices(self, generation: str, notices: Sequence[list[Any]]) -> None:  # noqa: ARG002
        """Deliver grants, denials and losses to whom they concern, each whatever befalls others."""
        for notice in notices:
            if not self._guard.call(self._take_notice, *notice):
                self._fail_noticed(notice)

    def _take_notice(self, kind: str, encoded_id: str, *terms: Any) -> None:
        attempt = self._attempts.get(encoded_id)
        if kind == "lost":
            if attempt is not None:
                attempt.lost_because = str(terms[0])  # the lease itself is still on its way
            self._lost(encoded_id, str(terms[0]))
        elif attempt is None or attempt.future.done():
            if kind == "granted":
                self._return(encoded_id)  # nobody waits for it any more
        elif kind == "granted":
            self._grant(attempt, terms)
        else:
            self._decide(attempt, codec.decode_denial(attempt.item, [kind, *terms]))

    def _fail_noticed(self, notice: Sequence[Any]) -> None:
        """End the attempt of a notice that could not be taken; what it was granted goes back."""
        for attempt in [a for a in self._attempts.values() if a.encoded_id in notice]:
            self.failed(
                attempt,
                CoordinatorError(
                    f"what {attempt.item.resource} decided could not be read; please report this."
                ),
            )

    def on_next_wake(self, seconds: float | None) -> None:
        """Look again at the instant at which time alone may have changed something."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if seconds is not None and self._attempts:  # one of them may be about to hear that it waits
            pause = max(SHORTEST_WAKE_SECONDS, seconds)
            self._wake = self.loop.call_later(pause, self._guard.call, self._look)

    def on_joined(self, membership: Membership) -> list[Operation]:
        """Register again, and ask again for what this member waited for."""
        self._sweep_later(membership)
        for attempt in list(self._attempts.values()):
            if attempt.is_waiting:
                self._ask_again(attempt)
        again = self._register_again
        return [Registration(args, again) for args in self._registrations.values()]

    def _sweep_later(self, membership: Membership, seconds: float | None = None) -> None:
        """On a quiet shard nobody's call would end a dead member: each live one looks at times.

        Args:
            membership: this process's.
            seconds: until the shard has somebody to look at; an interval at most.
        """
        if self._sweep is not None:
            self._sweep.cancel()
        if self._is_closed:
            return
        interval = membership.ttl_seconds / 3
        pause = interval if seconds is None else min(interval, max(SHORTEST_WAKE_SECONDS, seconds))

        def sweep() -> None:
            self._sweep_later(membership)
            self.session.submit(Sweep(lambda until: self._sweep_later(membership, until)))

        self._sweep = self.loop.call_later(pause, self._guard.call, sweep)

    def on_lost(self, membership: Membership) -> None:  # noqa: ARG002
        """Everything held under the last membership has been given to others."""
        for encoded_id in list(self.held):
            self._lost(encoded_id, "member_lost")

    def _lost(self, encoded_id: str, why: str) -> None:
        lease = self.held.get(encoded_id)
        if lease is None:
            return
        self._let_go(encoded_id)
        log.warning("request_lease_lost", lease_id=lease.lease_id, reason=why)
        try:
            self._on_lease_lost(lease, why)
        except Exception as error:  # noqa: BLE001 - the caller's code; others wait to be told
            log.unexpected("on_lease_lost_raised", error, lease_id=lease.lease_id)

    # -- looking again: a lost wake-up costs at most the recheck interval

    def on_resumed(self) -> None:
        """Ask for the truth of everything that waits, or is about to hear that it waits."""
        for attempt in list(self._attempts.values()):
            attempt.is_in_doubt = True
            self._recheck_one(attempt)

    def _recheck_one(self, attempt: Attempt) -> None:
        if attempt.is_waiting and not attempt.is_rechecked:
            self.session.submit(Recheck(attempt, self))

    def _look(self) -> None:
        self._wake = None
        waiting = next((a for a in self._attempts.values() if a.is_waiting), None)
        if waiting is not None:
            self._recheck_one(waiting)

    def _keep_rechecking(self) -> None:
        if self._recheck is None:
            self._recheck = self.loop.call_later(
                self._recheck_seconds, self._guard.call, self._recheck_all
            )

    def _recheck_all(self) -> None:
        self._recheck = None
        if not self._waiting:
            return
        self._keep_rechecking()
        before = self.loop.time() - self._recheck_seconds
        for attempt in list(self._attempts.values()):
            if not attempt.is_waiting or attempt.asked_at > before:
                continue
            if attempt.deadline is not None and attempt.deadline <= before:
                # The shard should have said so; it is away, or its word was lost.
                self._deny(attempt, RequestDenialReason.QUEUE_TIMEOUT)
                self.unwanted(attempt)
            else:
                self._recheck_one(attempt)

    # -- ending

    async def close(self) -> None:
        """Deny this member's own waiters with ``shutdown`` and leave the shard."""
        self._is_closed = True
        for attempt in list(self._attempts.values()):
            self._deny(attempt, RequestDenialReason.SHUTDOWN)
        try:
            await self.session.close()
        finally:  # after it, as its replies set timers
            for timer in (self._wake, self._recheck, self._sweep):
                if timer is not None:
                    timer.cancel()


def require_lease(decision: RequestAdmissionDecision) -> RequestAdmissionLease:
    """Return the lease, or raise what was decided instead.

    Raises:
        RequestAdmissionError: denied.
    """
    if isinstance(decision, RequestAdmissionDenied):
        raise RequestAdmissionError(decision, codec.denial_message(decision))
    return decision
