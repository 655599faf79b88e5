"""``AdaptiveRequestAdmissionController``: leases for provider calls, fleet-wide (design 03)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, ParamSpec, TypeVar

from forebay.contracts.checks import check_cap, check_type
from forebay.contracts.errors import CoordinatorUnavailable, MembershipLost
from forebay.contracts.identity import ProviderModelKey, RequestGroupSpec, RequestResourceKey
from forebay.contracts.outcomes import (
    ClassifyException,
    ReleaseReason,
    ReleaseResult,
    RequestOutcomeKind,
    RequestReleaseOutcome,
    TokenUsage,
)
from forebay.contracts.quotas import QuotaReading
from forebay.contracts.requests import (
    RequestAdmissionDecision,
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestAdmissionLease,
)
from forebay.contracts.settings import LARGEST_CAP, RequestAdmissionConfig
from forebay.coordinator.event_outlet import SILENT, EventOutlet
from forebay.coordinator.requests.attempts import RequestAttempt, limited
from forebay.coordinator.requests.classifying import classify_by_kind
from forebay.coordinator.requests.denials import denial, shut_down
from forebay.coordinator.requests.held_leases import LeaseLost
from forebay.coordinator.requests.operations import wait_argument
from forebay.coordinator.requests.shards import LEFT_BEFORE, RequestShards
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.requests.threads import LoopCaller, LoopEndedError
from forebay.coordinator.server_connection import ServerConnection

P = ParamSpec("P")
R = TypeVar("R")

_NOT_USED: Final = RequestReleaseOutcome(
    kind=RequestOutcomeKind.LOCAL_CANCELLED, usage=TokenUsage()
)


class AdaptiveRequestAdmissionController:
    """Grants and takes back request leases; one per process and server.

    Every method belongs to the event loop in which the controller was made, but ``acquire_sync``
    and ``release_sync`` are for other threads, ``attempt`` and ``limited`` for both. Once closed,
    it denies with ``shutdown``.

    Args:
        server: the process's connection to the server.
        on_lease_lost: called with each lease that ended without being released, and why, so that
            long work can stop; on the event loop, so it must not block.
        classify: reads the outcome of an attempt from an exception; cancellation is not its to
            judge.
        events: takes the events of attempts (docs/events.md).

    Attributes:
        caller: runs the controller's methods for other threads.
        pressure: shows windows, leases and waiters, and changes nothing.
    """

    def __init__(
        self,
        server: ServerConnection,
        *,
        on_lease_lost: LeaseLost | None = None,
        classify: ClassifyException = classify_by_kind,
        events: EventOutlet = SILENT,
    ) -> None:
        self.caller = LoopCaller()
        self.pressure = RequestPressureSnapshotProvider(server)
        self._server = server
        self._classify = classify
        ignored: LeaseLost = lambda _lease, _why: None  # noqa: E731
        self._shards = RequestShards(
            server, ignored if on_lease_lost is None else on_lease_lost, events
        )
        self._default_waits: dict[ProviderModelKey, float | None] = {}

    def known(self, *, degraded: bool | None = None) -> list[ProviderModelKey]:
        """Return the provider/models used or registered here; by choice those that are degraded."""
        return self._shards.known(degraded)

    async def register(
        self,
        provider_model: ProviderModelKey,
        alias: str,
        max_parallel_requests: int,
        config: RequestAdmissionConfig | None = None,
    ) -> int:
        """Register a provider/model with this process's cap, for as long as the process lives.

        Args:
            provider_model: the canonical resource.
            alias: under which name this process uses it; registering again replaces the cap.
            max_parallel_requests: the cap; the static cap is the smallest of all live ones.
            config: tuning, initial limits, clamps.

        Returns:
            The static cap now in force.

        Raises:
            ConfigurationError: a cap below 1 or above 10^9, or a wrong name.
            CoordinatorError: the shared state could not be used.
        """
        self.caller.require_own_loop()
        if self._shards.is_closed:
            raise CoordinatorUnavailable("the controller was closed; connect anew.")
        check_type("provider_model", provider_model, ProviderModelKey)
        cap = check_cap(
            f"max_parallel_requests of {provider_model}", max_parallel_requests, LARGEST_CAP
        )
        config = RequestAdmissionConfig() if config is None else config
        check_type("config", config, RequestAdmissionConfig)
        static_cap = await self._shards[provider_model].register(alias, cap, config)
        self._default_waits[provider_model] = config.default_queue_wait_timeout_seconds
        return static_cap

    async def try_acquire(self, item: RequestAdmissionItem) -> RequestAdmissionDecision:
        """Decide at once; never waits and never goes past a waiter.

        Raises:
            CoordinatorError: the shared state could not be used.
        """
        check_type("item", item, RequestAdmissionItem)
        return await self._decide(item, "try")

    async def acquire(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        """Wait in the weighted fair queue for a lease.

        Cancelling it removes the waiter and re-raises; a grant that crosses the cancellation is
        released as ``local_cancelled`` first.

        Raises:
            RequestAdmissionError: denied, by its deadline or a hard rule; carries the reason.
            ConfigurationError: not an item, or its attempt id was used before.
            CoordinatorError: the shared state could not be used.
        """
        check_type("item", item, RequestAdmissionItem)
        timeout = item.queue_wait_timeout_seconds
        if timeout is None:
            timeout = self._default_waits.get(item.resource.provider_model)
        decision = await self._decide(item, wait_argument(timeout))
        if isinstance(decision, RequestAdmissionDenied):
            raise denial(decision)
        return decision

    def acquire_sync(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        """Do as ``acquire``, blocking a thread in which no event loop runs.

        An interruption (`KeyboardInterrupt`) cancels it and re-raises; a grant that crosses the
        interruption is released as ``local_cancelled``.

        Raises:
            ConfigurationError: an event loop runs in this thread, or this is a forked child.
            RequestAdmissionError: denied; ``shutdown`` too if the loop has ended.
            CoordinatorError: the shared state could not be used.
        """
        try:
            return self.caller.call(
                lambda: self.acquire(item),
                instead="`await acquire(item)` or `async with attempt(item)`",
                undo=self.return_unused,
            )
        except LoopEndedError:
            raise denial(shut_down(item)) from None

    def release_sync(
        self,
        lease: RequestAdmissionLease,
        outcome: RequestReleaseOutcome,
        *,
        timeout_seconds: float | None = None,
    ) -> ReleaseResult:
        """Do as ``release``, blocking a thread until it is acknowledged.

        Args:
            lease: the lease to release.
            outcome: how the attempt ended.
            timeout_seconds: longest time this thread is blocked; None waits for the
                acknowledgement or the end of the membership.

        Returns:
            What it did; past the timeout the reason is ``deferred``, after the controller was
            closed ``stale_lease``.

        Raises:
            ConfigurationError: an event loop runs in this thread, or this is a forked child.
        """
        try:
            return self.caller.call(
                lambda: self.release(lease, outcome),
                instead="`release(lease, outcome)`",
                timeout_seconds=timeout_seconds,
            )
        except (TimeoutError, LoopEndedError) as late:
            if self._shards.is_closed:
                return LEFT_BEFORE
            return ReleaseResult(
                released=False, reason=ReleaseReason.DEFERRED, diagnostics={"error": str(late)}
            )

    def attempt(self, item: RequestAdmissionItem) -> RequestAttempt:
        """Return a block that acquires ``item``, and releases it with the outcome of its body.

        ``async with`` on this loop, ``with`` in other threads; see `RequestAttempt`.
        """
        return RequestAttempt(item, self, self.caller, self._classify)

    def limited(
        self,
        resource: RequestResourceKey,
        *,
        group: RequestGroupSpec | None = None,
        queue_wait_timeout_seconds: float | None = None,
        cost: int | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a function, async or not, that makes one provider call each time it is called.

        Each call is an attempt with an item of its own. A function that is not async blocks its
        thread while it waits, so it is for threads in which no event loop runs. Generator functions
        are refused when decorated.

        Args:
            resource: what the calls need a lease of.
            group: who asks.
            queue_wait_timeout_seconds: longest wait of each call.
            cost: estimated tokens of each call, for quotas.
        """
        return limited(
            self.attempt,
            resource,
            group=group,
            queue_wait_timeout_seconds=queue_wait_timeout_seconds,
            cost=cost,
        )

    def return_unused(self, decision: RequestAdmissionDecision) -> None:
        """Release, as ``local_cancelled``, a lease whose caller has gone."""
        if isinstance(decision, RequestAdmissionLease):
            self.release(decision, _NOT_USED)

    def release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> Awaitable[ReleaseResult]:
        """Release a lease with its outcome, which moves the window.

        Returns:
            At once, an awaitable that is already under way and is repeated until acknowledged;
            it never raises. Not awaiting it is fine.

        Raises:
            ConfigurationError: not a lease and an outcome; a release itself never raises.
        """
        check_type("lease", lease, RequestAdmissionLease)
        check_type("outcome", outcome, RequestReleaseOutcome)
        self.caller.require_own_loop()
        return self._shards.release(lease, outcome)

    def learn(self, lease: RequestAdmissionLease, readings: Sequence[QuotaReading]) -> None:
        """Send the quota readings of an answer under this lease to the shard.

        May be called from any thread, as soon as the headers are there; returns at once and is not
        waited for. Readings only ever lower what was registered (design 03, *Quotas*).
        """
        self.caller.send(self._shards.learn, lease.item.resource.provider_model, readings)

    def assert_held(self, lease: RequestAdmissionLease) -> None:
        """Check, before bytes go out, that the lease cannot have been given to another meanwhile.

        Raises:
            MembershipLost: the last acknowledged heartbeat is older than the TTL; send nothing.
        """
        if not self._shards.is_held(lease):
            raise MembershipLost(
                f"the lease {lease.lease_id} of {lease.item.resource} is lost, as this process's"
                " heartbeat is older than its TTL; send nothing under it, acquire again."
            )
        self._shards.events.call_started(lease)

    async def close(self) -> None:
        """Deny this process's own waiters with ``shutdown`` and leave every shard."""
        await self._shards.close()

    async def _decide(self, item: RequestAdmissionItem, wait: str) -> RequestAdmissionDecision:
        if asyncio.get_running_loop() is not self.caller.loop:
            self.caller.require_own_loop()
        shards = self._shards
        shard = shards.get(item.resource.provider_model)
        if shard is None or shards.is_closed or shards.tells:
            return await shards.decide(item, wait)
        return await shard.admit(item, wait)  # as most attempts, with nothing around it
