"""This member's part of one provider/model: who waits here, what is held, what is registered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from contracts.errors import ConfigurationError, CoordinatorError, RequestAdmissionError
from contracts.identity import ProviderModelKey
from contracts.requests import (
    ReleaseReason,
    ReleaseResult,
    RequestAdmissionDecision,
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
    RequestReleaseOutcome,
)
from contracts.settings import RequestAdmissionConfig
from coordinator.channel import Operation, Result, Server, ShardChannel
from coordinator.keys import encode, request_shard
from coordinator.membership import Membership
from coordinator.requests import codec
from coordinator.scripts import script

SHORTEST_WAKE_SECONDS: Final = 0.001
NO_ATTEMPT: Final = "-"
"""An id that no attempt has: asking for its state only settles the shard."""

LeaseLost = Callable[[RequestAdmissionLease, str], None]

log = structlog.get_logger("forebay.requests")


class Attempt:
    """One attempt that asked and has no answer yet."""

    __slots__ = ("args", "asked_at", "future", "is_waiting", "item")

    def __init__(
        self, item: RequestAdmissionItem, args: codec.Args, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.item = item
        self.args = args
        self.future: asyncio.Future[RequestAdmissionDecision] = loop.create_future()
        self.is_waiting = False
        self.asked_at = loop.time()


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
        self._attempts: dict[str, Attempt] = {}
        self._waiting = 0
        self._registrations: dict[str, codec.Args] = {}
        self._on_lease_lost = on_lease_lost
        self._recheck_seconds = server.settings.recheck_seconds
        self._loop = asyncio.get_running_loop()
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
        args = codec.acquire_args(item, wait)
        attempt_id = args[1]
        assert isinstance(attempt_id, str)  # noqa: S101 - for mypy; arguments are str or int
        if attempt_id in self._attempts:
            raise ConfigurationError(
                f"attempt id {item.attempt_id!r} is asked for already; make one per attempt."
            )
        attempt = Attempt(item, args, self._loop)
        self._attempts[attempt_id] = attempt
        self._submit(attempt)
        return attempt

    def _submit(self, attempt: Attempt) -> None:
        self.channel.submit(
            Operation(
                attempt.args,
                lambda result: self._answered(attempt, result),
                late=lambda result: self._answered_late(attempt, result),
            )
        )

    def _answered_late(self, attempt: Attempt, result: Result) -> None:
        """Nobody waits any more: give back what it took."""
        if result[0] in {"granted", "waiting"}:
            self.channel.submit(
                Operation(("cancel", attempt.args[1]), lambda _result: None, frees=True)
            )

    def _answered(self, attempt: Attempt, result: Result | CoordinatorError) -> None:
        if isinstance(result, CoordinatorError):
            self._forget(attempt)
            if not attempt.future.done():
                attempt.future.set_exception(result)
            return
        match result[0]:
            case "waiting":
                if not attempt.is_waiting and attempt.args[1] in self._attempts:
                    attempt.is_waiting = True
                    self._waiting += 1
                    self._keep_rechecking()
            case "granted":
                self._granted(attempt, result)
            case "denied":
                self._decide(attempt, codec.decode_denial(attempt.item, result))
            case "unknown" if not attempt.future.done():
                # The waiter vanished with the server's memory of it: ask again.
                self._stop_waiting(attempt)
                self._submit(attempt)

    def _granted(self, attempt: Attempt, terms: Sequence[Any]) -> None:
        membership = self.channel.membership
        if membership is None or attempt.future.done():
            return
        lease = codec.decode_lease(attempt.item, terms, membership.generation, membership.member_id)
        self.held[lease.lease_id] = lease
        self._decide(attempt, lease)

    def _decide(self, attempt: Attempt, decision: RequestAdmissionDecision) -> None:
        self._forget(attempt)
        if not attempt.future.done():
            attempt.future.set_result(decision)

    def _forget(self, attempt: Attempt) -> None:
        self._attempts.pop(str(attempt.args[1]), None)
        self._stop_waiting(attempt)

    def _stop_waiting(self, attempt: Attempt) -> None:
        if attempt.is_waiting:
            attempt.is_waiting = False
            self._waiting -= 1

    def take_back(self, attempt: Attempt) -> asyncio.Future[Result]:
        """Cancel an attempt, whichever way it went: waiter gone, or lease given back."""
        self._forget(attempt)
        self.held.pop(attempt.item.attempt_id, None)
        return self.channel.ask("cancel", attempt.args[1], frees=True)

    # -- releasing

    def release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> asyncio.Future[ReleaseResult]:
        """Give a lease back; under way at once and repeated until acknowledged."""
        future: asyncio.Future[ReleaseResult] = self._loop.create_future()
        self.held.pop(lease.lease_id, None)

        def done(result: Result | CoordinatorError) -> None:
            if future.done():
                return
            if isinstance(result, CoordinatorError):
                deferred = ReleaseResult(
                    released=False,
                    reason=ReleaseReason.DEFERRED,
                    diagnostics={"error": str(result)},
                )
                future.set_result(deferred)
            else:
                future.set_result(codec.decode_release(result))

        self.channel.submit(Operation(codec.release_args(lease, outcome), done, frees=True))
        return future

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
                self._decide(attempt, codec.decode_denial(attempt.item, terms))

    def on_next_wake(self, seconds: float | None) -> None:
        """Look again at the instant at which time alone may have changed something."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if seconds is not None and self._waiting:
            self._wake = self._loop.call_later(max(SHORTEST_WAKE_SECONDS, seconds), self._look)

    def on_joined(self, membership: Membership) -> list[Operation]:
        """Register again, and ask again for what this member waited for."""
        self._sweep_later(membership)
        for attempt in list(self._attempts.values()):
            if attempt.is_waiting:
                self._stop_waiting(attempt)
                self._submit(attempt)
        return [Operation(args, lambda _result: None) for args in self._registrations.values()]

    def _sweep_later(self, membership: Membership) -> None:
        """On a quiet shard nobody's call would end a dead member: each live one looks at times."""
        if self._sweep is not None:
            self._sweep.cancel()

        def sweep() -> None:
            self.channel.submit(Operation(("state", NO_ATTEMPT), lambda _result: None))
            self._sweep_later(membership)

        self._sweep = self._loop.call_later(membership.ttl_seconds / 3, sweep)

    def on_lost(self, membership: Membership) -> None:  # noqa: ARG002
        """Everything held under the last membership has been given to others."""
        for lease_id in list(self.held):
            self._lost(encode(lease_id), "member_lost")

    def _lost(self, attempt_id: str, why: str) -> None:
        for lease_id, lease in list(self.held.items()):
            if lease_id == attempt_id or encode(lease_id) == attempt_id:
                del self.held[lease_id]
                log.warning("request_lease_lost", lease_id=lease_id, reason=why)
                self._on_lease_lost(lease, why)

    # -- looking again: a lost wake-up costs at most the recheck interval

    def _look(self) -> None:
        self._wake = None
        for attempt in self._attempts.values():
            if attempt.is_waiting:
                self._ask_state(attempt)
                return

    def _ask_state(self, attempt: Attempt) -> None:
        self.channel.submit(
            Operation(
                ("state", attempt.args[1]),
                lambda result: (
                    None
                    if isinstance(result, CoordinatorError)
                    else self._answered(attempt, result)
                ),
            )
        )

    def _keep_rechecking(self) -> None:
        if self._recheck is None:
            self._recheck = self._loop.call_later(self._recheck_seconds, self._recheck_all)

    def _recheck_all(self) -> None:
        self._recheck = None
        if not self._waiting:
            return
        old = self._loop.time() - self._recheck_seconds
        for attempt in list(self._attempts.values()):
            if attempt.is_waiting and attempt.asked_at <= old:
                self._ask_state(attempt)
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
