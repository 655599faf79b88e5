"""Members that lose their server, on a clock of the test's own: `LocalLeases` without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.keys import encode
from forebay.coordinator.requests.held_leases import HeldLeases
from forebay.coordinator.requests.local_leases import LocalLeases
from forebay.coordinator.requests.releasing import Release
from forebay.coordinator.requests.shares import decode_share
from forebay.coordinator.shard.operation import Operation
from forebay.coordinator.shard.shard_time import ShardTime
from tests.contract.chat_domain import MODEL

TTL_SECONDS: Final = 15.0
NEVER_SECONDS: Final = 3_600.0


@dataclass(slots=True)
class Clock:
    """The loop's time; it passes where a test says so."""

    now: float = 1_000.0

    def time(self) -> float:
        return self.now

    def call_later(self, *_arguments: object) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(NEVER_SECONDS, lambda: None)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class Membership:
    """A membership that lasts a TTL from its last heartbeat on."""

    clock: Clock
    member_id: str
    beaten_at: float
    generation: str = "g"
    ttl_seconds: float = TTL_SECONDS

    @property
    def is_held(self) -> bool:
        return self.clock.now < self.beaten_at + self.ttl_seconds


@dataclass(slots=True, eq=False)
class Session:
    """What `LocalLeases` sees of a session, and what it sent.

    Attributes:
        sent: operations for the server, each with its callback or None.
        unsent: releases that no call took yet.
    """

    away_since: float | None = None
    membership: Membership | None = None
    time: ShardTime = field(default_factory=ShardTime)
    sent: list[tuple[Operation[Any], Callable[[Any], object] | None]] = field(default_factory=list)
    unsent: list[Release] = field(default_factory=list)

    def submit(self, operation: Operation[Any], on_outcome: Any = None) -> None:
        self.sent.append((operation, on_outcome))

    def withdraw(self, _kind: object) -> list[Release]:
        unsent, self.unsent = self.unsent, []
        return unsent


class Member:
    """A member that joins, is told shares, and loses its server.

    Attributes:
        redirects: how often its open acquires were redirected.
    """

    def __init__(self, cap: int, clock: Clock | None = None, name: str = "m") -> None:
        self.cap = cap
        self.clock = clock or Clock()
        self.name = name
        self.session = Session()
        self.held = HeldLeases(lambda *_: None)
        self.redirects = 0
        self.joins = 0
        settings = MemberSettings(ttl_seconds=TTL_SECONDS, on_unavailable="local_share")
        session: Any = self.session
        self.leases = LocalLeases(session, self.held, settings, MODEL, self._redirect)
        loop: Any = self.clock
        self.leases._loop = self.leases.watch._loop = loop

    def _redirect(self) -> None:
        self.redirects += 1

    def join(self) -> Callable[[int, int], object]:
        """Join anew; return what tells this member how many sharers there are, and its rank."""
        self.joins += 1
        membership: Any = Membership(self.clock, f"{self.name}-{self.joins}", self.clock.now)
        self.session.membership, self.session.away_since = membership, None
        ((_operation, take),) = self.leases.on_joined(membership)

        def tell(members: int, rank: int) -> None:
            window = [self.cap, 0, 0]
            share = ["share", 1, members, rank, 1, self.cap, [window] * 4, [[0, 0]] * 4]
            take(decode_share(share))

        return tell

    def hold(self, item: RequestAdmissionItem) -> RequestAdmissionLease:
        """Hold a lease that the server has granted in the present membership."""
        membership = self.session.membership
        assert membership is not None
        lease = RequestAdmissionLease(
            lease_id=item.attempt_id, item=item, acquired_at=0.0, limit_at_admission=self.cap,
            cuts_at_admission=0, effective_max=self.cap, generation=membership.generation,
            member_id=membership.member_id,
        )  # fmt: skip
        self.held[encode(lease.lease_id)] = lease
        return lease

    def notice_loss(self) -> None:
        """Find the server away."""
        self.session.away_since = self.clock.now
        self.leases.begin()
        self.leases._look()

    def lose_server(self) -> None:
        """Let the server be away for so long that shares are used."""
        self.notice_loss()
        self.clock.now += TTL_SECONDS
        self.lose_held()
        self.leases._look()

    def lose_held(self) -> None:
        """Lose the server's leases, as the membership has expired."""
        for encoded_id in list(self.held):
            lease = self.held.lose(encoded_id, "member_lost")
            assert lease is not None
            self.leases.on_lost(encoded_id, lease)
