"""Parts of a window through two outages (docs/adr/0024), on a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from forebay.contracts.requests import RequestAdmissionLease
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.keys import request_shard
from forebay.coordinator.requests.absence import LONGEST_PAUSE_SECONDS
from forebay.coordinator.requests.held_leases import HeldLeases
from forebay.coordinator.requests.local_leases import LocalLeases
from forebay.coordinator.requests.outages import DENIED_WITHIN_SECONDS
from forebay.coordinator.requests.shard import LONGEST_CANCEL_SECONDS
from forebay.coordinator.requests.shares import decode_share
from forebay.coordinator.server.membership import Membership, boot_seconds
from tests.contract.chat_domain import MODEL, item

CAP = 6
TTL_SECONDS = 15.0


class Server:
    """A member's session and the loop on whose clock it runs; time passes where a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.away_since: float | None = None
        self.membership: Membership | None = None
        self.server_now_us = None

    def time(self) -> float:
        return self.now

    def call_later(self, *_arguments: object) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(3_600.0, lambda: None)

    def submit(self, *_operation: object) -> None:
        return None


class Member:
    """A member that joins, is told parts, and loses its server."""

    def __init__(self) -> None:
        self.server = server = Server()
        settings = MemberSettings(ttl_seconds=TTL_SECONDS, on_unavailable="local_share")
        session: Any = server
        loop: Any = server
        self.leases = LocalLeases(session, HeldLeases(lambda *_: None), settings, MODEL)
        self.leases._loop = self.leases.watch._loop = loop

    def join(self) -> Callable[[int, int], object]:
        """Join anew; return what tells this member how many sharers there are, and its rank."""
        membership = Membership(
            member_id="m",
            generation="g",
            keys=request_shard(MODEL),
            ttl_seconds=TTL_SECONDS,
            acknowledged_at=boot_seconds(),
            on_expired=lambda _membership: None,
        )
        self.server.membership, self.server.away_since = membership, None
        ((_operation, take),) = self.leases.on_joined(membership)

        def tell(members: int, rank: int) -> None:
            window = [CAP, 0, 0]
            take(decode_share(["share", 1, members, rank, 1, CAP, [window] * 4, [[0, 0]] * 4]))

        return tell

    def lose_server(self) -> None:
        """Let the server be away for so long that parts are used."""
        self.server.away_since = self.server.now
        self.leases.begin()
        self.leases._look()
        self.server.now += TTL_SECONDS
        self.leases._look()

    async def most_at_once(self) -> int:
        """Return how many leases this member gives itself."""
        count = 0
        while isinstance(await self.leases.acquire(item(), "try"), RequestAdmissionLease):
            count += 1
        return count


@pytest.mark.parametrize(
    ("told_again", "most"),
    [((3, 0), 2), (None, 0)],
    ids=["of a member that entered meanwhile", "nothing"],
)
async def test_an_outage_before_the_last_one_is_over_uses_the_part_told_between(
    told_again: tuple[int, int] | None, most: int
) -> None:
    member = Member()
    member.join()(2, 0)
    member.lose_server()
    tell = member.join()
    member.leases._look()  # back, and within its part for a while
    if told_again is not None:
        tell(*told_again)
    assert member.leases.is_on
    member.lose_server()
    assert await member.most_at_once() == most
    member.leases.close()


async def test_a_member_that_asked_for_nothing_in_an_outage_keeps_to_its_part_after_it() -> None:
    member = Member()
    member.join()(2, 0)
    lost = member.server.membership
    assert lost is not None
    lost.acknowledged_at -= TTL_SECONDS  # no heartbeat was acknowledged for a TTL
    member.join()(1, 0)
    member.leases._look()
    asked = [await member.leases.acquire(item(), "try") for _ in range(CAP)]
    assert asked.count(None) == CAP // 2  # the server is asked within the part from before
    member.leases.close()


async def test_a_part_is_kept_to_until_the_slowest_other_member_can_be_back() -> None:
    member = Member()
    member.join()(2, 0)
    member.lose_server()
    member.join()(2, 0)
    member.leases._look()
    deadline = MemberSettings().call_timeout_seconds
    # A try that began in silence, the longest pause, and one that works at its last instant.
    member.server.now += deadline + LONGEST_PAUSE_SECONDS + deadline - 0.01
    member.leases._look()
    assert member.leases.is_on
    member.server.now += 0.02
    member.leases._look()
    assert not member.leases.is_on
    member.leases.close()


async def test_a_part_of_an_earlier_membership_is_none() -> None:
    member = Member()
    member.join()(2, 0)
    member.join()
    member.lose_server()
    assert await member.most_at_once() == 0
    member.leases.close()


async def test_a_first_outage_uses_the_part_that_was_told() -> None:
    member = Member()
    member.join()(2, 0)
    member.lose_server()
    assert await member.most_at_once() == CAP // 2
    member.leases.close()


def test_a_wait_that_no_server_ends_is_over_within_half_a_second() -> None:
    assert DENIED_WITHIN_SECONDS + LONGEST_CANCEL_SECONDS < 0.5
