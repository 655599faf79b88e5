"""This member's part of one provider/model: who waits here, what is held, what is registered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from contracts.errors import ConfigurationError, ForebayError, RequestAdmissionError
from contracts.identity import ProviderModelKey
from contracts.requests import (
    ReleaseResult,
    RequestAdmissionDecision,
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
    RequestReleaseOutcome,
)
from contracts.settings import RequestAdmissionConfig
from coordinator.channel import ShardChannel
from coordinator.joining import Server
from coordinator.keys import encode, request_shard
from coordinator.membership import Membership
from coordinator.operations import Args, Operation, Release, Result
from coordinator.requests import codec
from coordinator.scripts import script

SHORTEST_WAKE_SECONDS: Final = 0.001
NO_ATTEMPT: Final = "-"
"""An id that no attempt has: asking for its state only settles the shard."""

LeaseLost = Callable[[RequestAdmissionLease, str], None]

log = structlog.get_logger("forebay.requests")


class Attempt(Operation):
    """One attempt that asked and has no answer yet.

    Attributes:
        future: told the decision.
        asker: the task that asked.
        is_waiting: whether it stands in the queue, as far as this process knows.
        asked_at: loop time when it first asked.
    """

    __slots__ = ("_shard", "asked_at", "asker", "future", "is_waiting", "item")

    def __init__(self, item: RequestAdmissionItem, args: Args, shard: RequestShard) -> None:
        super().__init__(args)
        self.item = item
        self.future: asyncio.Future[RequestAdmissionDecision] = shard.loop.create_future()
        self.is_waiting = False
        self.asked_at = shard.loop.time()
        self.asker = asyncio.current_task(shard.loop)
        self._shard = shard

    @property
    def encoded_id(self) -> str:
        """The attempt id as it stands in keys and replies."""
        return str(self.args[1])

    def done(self, result: Result | ForebayError) -> None:
        """Take the shard's answer to the question."""
        self._shard.answered(self, result)

    def late(self, result: Result) -> None:
        """Nobody waits any more: give back what it took."""
        if result[0] in {"granted", "waiting"}:
            self._shard.channel.submit(Operation(("cancel", self.args[1]), frees=True))


class Recheck(Operation):
    """Asks what became of an attempt: the truth, should a wake-up have been lost."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(("state", attempt.args[1]))
        self._attempt = attempt

    def done(self, result: Result | ForebayError) -> None:
        """Take the shard's answer; where it cannot be reached, the attempt goes on waiting."""
        if not isinstance(result, ForebayError):
            self._attempt.done(result)


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
        self._on_lease_lost = on_lease_lost
        self._recheck_seconds = server.settings.recheck_seconds
        self._wake: asyncio.TimerHandle | None = None
        self._recheck: asyncio.TimerHandle | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self.channel = ShardChannel(
            server, request_shard(provider_model), script("requests/batch"), self
        )

    async def register(self, alias: str, cap: int, config: RequestAdmissionConfig) -> int:
        """Register an alias for as long as this process is a member; return the static cap."""
        args = codec.register_args(alias, cap, config)
        self._registrations[alias] = args
        result = await self.channel.ask(*args)
        return int(result[1])

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
                hint="a task that holds a lease and asks for another can deadlock at small caps",
            )
        self._attempts[attempt.encoded_id] = attempt
        self.channel.submit(attempt)
        return attempt

    def answered(self, attempt: Attempt, result: Result | ForebayError) -> None:
        """Take what the shard says of an attempt."""
        if isinstance(result, ForebayError):
            self._forget(attempt)
            if not attempt.future.done():
                attempt.future.set_exception(result)
            return
        match result[0]:
            case "granted":
                self._granted(attempt, result)
            case "waiting":
                if not attempt.is_waiting and attempt.encoded_id in self._attempts:
                    attempt.is_waiting = True
                    self._waiting += 1
                    self._keep_rechecking()
            case "denied":
                self._decide(attempt, codec.decode_denial(attempt.item, result))
            case "unknown" if not attempt.future.done():
                # The waiter vanished with the server's memory of it: ask again.
                self._stop_waiting(attempt)
                self.channel.submit(attempt)

    def _granted(self, attempt: Attempt, terms: Sequence[Any]) -> None:
        membership = self.channel.membership
        if membership is None or attempt.future.done():
            return
        lease = codec.decode_lease(attempt.item, terms, membership.generation, membership.member_id)
        self.held[attempt.encoded_id] = lease
        if attempt.asker is not None and not self._has_warned:
            self._holders[attempt.encoded_id] = attempt.asker
            self._holding.add(attempt.asker)
        self._decide(attempt, lease)

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
        return self.channel.ask("cancel", attempt.args[1], frees=True)

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
        self.channel.submit(release)
        return release.future

    # -- what the shard tells

    def on_notices(self, generation: str, notices: Sequence[list[Any]]) -> None:  # noqa: ARG002
        """Deliver grants, denials and losses to whom they concern."""
        for kind, attempt_id, *terms in notices:
            attempt = self._attempts.get(attempt_id)
            if kind == "lost":
                self._lost(attempt_id, str(terms[0]))
            elif attempt is None:
                continue  # cancelled meanwhile: its cancel operation gives the lease back
            elif kind == "granted":
                self._granted(attempt, terms)
            else:
                self._decide(attempt, codec.decode_denial(attempt.item, [kind, *terms]))

    def on_next_wake(self, seconds: float | None) -> None:
        """Look again at the instant at which time alone may have changed something."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if seconds is not None and self._waiting:
            self._wake = self.loop.call_later(max(SHORTEST_WAKE_SECONDS, seconds), self._look)

    def on_joined(self, membership: Membership) -> list[Operation]:
        """Register again, and ask again for what this member waited for."""
        self._sweep_later(membership)
        for attempt in list(self._attempts.values()):
            if attempt.is_waiting:
                self._stop_waiting(attempt)
                self.channel.submit(attempt)
        return [Operation(args) for args in self._registrations.values()]

    def _sweep_later(self, membership: Membership) -> None:
        """On a quiet shard nobody's call would end a dead member: each live one looks at times."""
        if self._sweep is not None:
            self._sweep.cancel()

        def sweep() -> None:
            self.channel.submit(Operation(("state", NO_ATTEMPT)))
            self._sweep_later(membership)

        self._sweep = self.loop.call_later(membership.ttl_seconds / 3, sweep)

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
            log.error("on_lease_lost_raised", error_type=type(error).__qualname__)  # noqa: TRY400

    # -- looking again: a lost wake-up costs at most the recheck interval

    def on_resumed(self) -> None:
        """Ask for the truth of everything that waits."""
        for attempt in list(self._attempts.values()):
            if attempt.is_waiting:
                self.channel.submit(Recheck(attempt))

    def _look(self) -> None:
        self._wake = None
        for attempt in self._attempts.values():
            if attempt.is_waiting:
                self.channel.submit(Recheck(attempt))
                return

    def _keep_rechecking(self) -> None:
        if self._recheck is None:
            self._recheck = self.loop.call_later(self._recheck_seconds, self._recheck_all)

    def _recheck_all(self) -> None:
        self._recheck = None
        if not self._waiting:
            return
        old = self.loop.time() - self._recheck_seconds
        for attempt in list(self._attempts.values()):
            if attempt.is_waiting and attempt.asked_at <= old:
                self.channel.submit(Recheck(attempt))
        self._keep_rechecking()

    # -- ending

    async def close(self) -> None:
        """Deny this member's own waiters with ``shutdown`` and leave the shard."""
        for timer in (self._wake, self._recheck, self._sweep):
            if timer is not None:
                timer.cancel()
        for attempt in list(self._attempts.values()):
            denied = RequestAdmissionDenied(item=attempt.item, reason=RequestDenialReason.SHUTDOWN)
            self._decide(attempt, denied)
        await self.channel.close()


def require_lease(decision: RequestAdmissionDecision) -> RequestAdmissionLease:
    """Return the lease, or raise what was decided instead.

    Raises:
        RequestAdmissionError: denied.
    """
    if isinstance(decision, RequestAdmissionDenied):
        raise RequestAdmissionError(decision, codec.denial_message(decision))
    return decision
