"""The request shards of one process (design 03)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from forebay.contracts.errors import ForebayError
from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.outcomes import ReleaseReason, ReleaseResult, RequestReleaseOutcome
from forebay.contracts.quotas import QuotaReading
from forebay.contracts.requests import (
    RequestAdmissionDecision,
    RequestAdmissionDenied,
    RequestAdmissionItem,
    RequestAdmissionLease,
    RequestDenialReason,
)
from forebay.coordinator.event_outlet import SILENT, EventOutlet, ShardClock, not_known_yet
from forebay.coordinator.keys import encode, request_shard
from forebay.coordinator.logs import Logger
from forebay.coordinator.requests.denials import shut_down
from forebay.coordinator.requests.events import RequestEvents
from forebay.coordinator.requests.held_leases import LeaseLost
from forebay.coordinator.requests.shard import RequestShard
from forebay.coordinator.server.retrying import retry_while_away
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.supervision import Guard

LEFT_BEFORE: Final = ReleaseResult(
    released=False,
    reason=ReleaseReason.STALE_LEASE,
    diagnostics={"error": "the controller was closed before, which gave its leases back."},
)

log = Logger("forebay.requests")


class RequestShards(dict[ProviderModelKey, RequestShard]):
    """The request shards that this process uses, by provider/model; made on first use.

    Args:
        server: the process's connection to the server.
        on_lease_lost: told of each lease that ended without being released, with the reason.
        outlet: takes the events of attempts.

    Attributes:
        events: tells what becomes of attempts.
        tells: whether a sink takes that.
        is_closed: whether the controller was closed.
    """

    def __init__(
        self, server: ServerConnection, on_lease_lost: LeaseLost, outlet: EventOutlet = SILENT
    ) -> None:
        super().__init__()
        self.events = RequestEvents(outlet, self._clock_of)
        self.tells = outlet.takes_requests
        self.is_closed = False
        self._server = server
        self._on_lease_lost = self._tell_lost if self.tells else on_lease_lost
        self._tell_owner_lost = on_lease_lost
        self._guard = Guard(log)
        self._unjoined: set[asyncio.Future[ReleaseResult]] = set()

    def __missing__(self, provider_model: ProviderModelKey) -> RequestShard:
        shard = self[provider_model] = RequestShard(
            self._server, provider_model, self._on_lease_lost
        )
        return shard

    def known(self, degraded: bool | None) -> list[ProviderModelKey]:
        """Return the provider/models of the shards.

        Args:
            degraded: True for those that go on with this member's share alone, as their server is
                away; False for the others; None for all.
        """
        return [key for key, shard in self.items() if degraded in {None, _is_degraded(shard)}]

    async def is_known(self, provider_model: ProviderModelKey) -> bool:
        """Whether a shard is used here already, or any member has registered it.

        Raises:
            CoordinatorError: the server could not be used.
        """
        keys = request_shard(provider_model)
        return provider_model in self or await retry_while_away(
            self._server.settings,
            lambda: self._server.is_registered(keys),
            lambda: self.is_closed,
        )

    async def decide(self, item: RequestAdmissionItem, wait: str) -> RequestAdmissionDecision:
        """Decide about an item in its shard, and emit the events of its wait.

        Args:
            item: what is asked.
            wait: for how long, as `Acquire` says it.

        Raises:
            AttemptIdUsed: the attempt id is asked for already, or was used before.
            CoordinatorError: the shared state could not be used.
        """
        deciding = self._decide(item, wait)
        return await (self.events.of_wait(item, deciding) if self.tells else deciding)

    async def _decide(self, item: RequestAdmissionItem, wait: str) -> RequestAdmissionDecision:
        if self.is_closed:
            return shut_down(item)
        provider_model = item.resource.provider_model
        shard = self.get(provider_model)
        if shard is None:
            if not await self.is_known(provider_model):
                # Decided without joining: an unregistered resource leaves no state behind.
                reason = RequestDenialReason.HARD_POLICY_DENIAL
                return RequestAdmissionDenied(item=item, reason=reason)
            if self.is_closed:  # meanwhile
                return shut_down(item)
            shard = self[provider_model]
        return await shard.admit(item, wait)

    def _clock_of(self, provider_model: ProviderModelKey) -> ShardClock:
        shard = self.get(provider_model)
        return not_known_yet if shard is None else shard.session.time.instant

    def is_held(self, lease: RequestAdmissionLease) -> bool:
        """Whether the membership of a lease is this process's and lasts, as far as it knows."""
        shard = self.get(lease.item.resource.provider_model)
        if shard is None:
            return False
        member_id = lease.member_id
        if lease.degraded and shard.outages is not None:
            encoded_id = encode(lease.lease_id)
            if shard.outages.is_held(encoded_id):
                return True
            member_id = shard.held.get(encoded_id, lease).member_id  # the server's by now
        membership = shard.session.membership
        return membership is not None and membership.member_id == member_id and membership.is_held

    def _tell_lost(self, lease: RequestAdmissionLease, why: str) -> None:
        self.events.lost(lease)
        self._tell_owner_lost(lease, why)

    def learn(self, provider_model: ProviderModelKey, readings: Sequence[QuotaReading]) -> None:
        """Send quota readings to a shard, if this process uses it."""
        shard = self.get(provider_model)
        if shard is not None:
            shard.learn(readings)

    def release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> asyncio.Future[ReleaseResult]:
        """Release a lease; its shard may not be joined, as another process may have acquired it."""
        released = self._release(lease, outcome)
        self.events.released(lease, outcome, released)
        return released

    def _release(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> asyncio.Future[ReleaseResult]:
        shard = self.get(lease.item.resource.provider_model)
        if shard is not None:
            return shard.release(lease, outcome)
        if self.is_closed:
            left: asyncio.Future[ReleaseResult] = asyncio.get_running_loop().create_future()
            left.set_result(LEFT_BEFORE)
            return left
        release = asyncio.ensure_future(self._release_unjoined(lease, outcome))
        self._unjoined.add(release)  # the loop alone would let it be collected midway
        release.add_done_callback(self._unjoined.discard)
        return release

    async def _release_unjoined(
        self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome
    ) -> ReleaseResult:
        """Release a lease of a shard that this process has not joined."""
        provider_model = lease.item.resource.provider_model
        try:
            if not await self._server.is_registered(request_shard(provider_model)):
                return ReleaseResult(released=False, reason=ReleaseReason.UNKNOWN_LEASE)
        except ForebayError:
            pass  # the release goes on trying
        except Exception as error:  # noqa: BLE001 - it does so then, too
            self._guard.note("looking for a shard", error)
        if self.is_closed:  # meanwhile
            return ReleaseResult(released=False, reason=ReleaseReason.STALE_LEASE)
        return await self[provider_model].release(lease, outcome)

    async def close(self) -> None:
        """Leave every shard; a failure of one stops no other."""
        self.is_closed = True
        shards = list(self.values())
        self.clear()
        closed = await asyncio.gather(*(shard.close() for shard in shards), return_exceptions=True)
        for error in filter(None, closed):
            raise error


def _is_degraded(shard: RequestShard) -> bool:
    return shard.outages is not None and shard.outages.is_degraded
