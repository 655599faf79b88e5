"""``AdaptiveRequestAdmissionController``: leases for provider calls, fleet-wide (spec 03)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from contracts.errors import ConfigurationError, MembershipLost
from contracts.identity import ProviderModelKey
from contracts.requests import (
    ReleaseResult,
    RequestAdmissionDecision,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestReleaseOutcome,
)
from contracts.settings import RequestAdmissionConfig
from coordinator.channel import Server
from coordinator.requests.codec import wait_argument
from coordinator.requests.shard import Attempt, RequestShard, require_lease

_LARGEST_CAP = 1_000_000_000


class AdaptiveRequestAdmissionController:
    """Grants and takes back request leases; one per process and server.

    Every method belongs to the event loop in which the controller was made.

    Args:
        server: the process's connection to the server.
        on_lease_lost: called with each lease that ended without being released, and why, so that
            long work can stop.
    """

    def __init__(
        self,
        server: Server,
        *,
        on_lease_lost: Callable[[RequestAdmissionLease, str], None] | None = None,
    ) -> None:
        self._server = server
        self._on_lease_lost = on_lease_lost or (lambda _lease, _why: None)
        self._shards: dict[ProviderModelKey, RequestShard] = {}
        self._default_waits: dict[ProviderModelKey, float | None] = {}

    async def register(
        self,
        provider_model: ProviderModelKey,
        alias: str,
        max_parallel_requests: int,
        config: RequestAdmissionConfig | None = None,
    ) -> int:
        """Make a provider/model known with this process's cap for it, for as long as it lives.

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
        cap = max_parallel_requests
        if isinstance(cap, bool) or not isinstance(cap, int) or not 1 <= cap <= _LARGEST_CAP:
            raise ConfigurationError(
                f"max_parallel_requests of {provider_model} is {cap!r}, expected a whole number"
                " from 1 to 1000000000."
            )
        config = config or RequestAdmissionConfig()
        self._default_waits[provider_model] = config.default_queue_wait_timeout_seconds
        return await self._shard(provider_model).register(alias, cap, config)

    async def try_acquire(self, item: RequestAdmissionItem) -> RequestAdmissionDecision:
        """Decide at once; never waits and never goes past a waiter.

        Raises:
            CoordinatorError: the shared state could not be used.
        """
        return await self._ask(item, "try")

    async def acquire(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        """Wait in the weighted fair queue for a lease.

        Cancelling it removes the waiter and re-raises; a grant that crosses the cancellation is
        given back as ``local_cancelled`` first.

        Raises:
            RequestAdmissionError: denied, by its deadline or a hard rule; carries the reason.
            CoordinatorError: the shared state could not be used.
        """
        timeout = item.queue_wait_timeout_seconds
        if timeout is None:
            timeout = self._default_waits.get(item.resource.provider_model)
        return require_lease(await self._ask(item, wait_argument(timeout)))

    def release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> Awaitable[ReleaseResult]:
        """Give a lease back with its outcome, which moves the window.

        Returns:
            At once, an awaitable that is already under way and is repeated until acknowledged;
            it never raises. Not awaiting it is fine.
        """
        return self._shard(lease.item.resource.provider_model).release(lease, outcome)

    def assert_held(self, lease: RequestAdmissionLease) -> None:
        """Check, before bytes go out, that the lease cannot have been given to another meanwhile.

        Raises:
            MembershipLost: the last acknowledged heartbeat is older than the TTL; send nothing.
        """
        shard = self._shards.get(lease.item.resource.provider_model)
        membership = shard.channel.membership if shard else None
        if membership is None or membership.member_id != lease.member_id or not membership.is_held:
            raise MembershipLost(
                f"the lease {lease.lease_id} of {lease.item.resource} is lost, as this process's"
                " heartbeat is older than its TTL; nothing was sent, acquire again."
            )

    async def close(self) -> None:
        """Deny this process's own waiters with ``shutdown`` and leave every shard."""
        shards, self._shards = list(self._shards.values()), {}
        await asyncio.gather(*(shard.close() for shard in shards))

    def _shard(self, provider_model: ProviderModelKey) -> RequestShard:
        shard = self._shards.get(provider_model)
        if shard is None:
            shard = RequestShard(self._server, provider_model, self._on_lease_lost)
            self._shards[provider_model] = shard
        return shard

    async def _ask(self, item: RequestAdmissionItem, wait: str) -> RequestAdmissionDecision:
        shard = self._shard(item.resource.provider_model)
        attempt = shard.ask(item, wait)
        try:
            return await attempt.future
        except asyncio.CancelledError:
            await _give_back(shard, attempt)
            raise


async def _give_back(shard: RequestShard, attempt: Attempt) -> None:
    """Take an attempt back before its cancellation goes on; the order is under way in any case."""
    taken_back = shard.take_back(attempt)
    taken_back.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait([taken_back])
