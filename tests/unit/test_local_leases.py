"""Shares of a window through outages (docs/adr/0024), on a clock of the test's own."""

from __future__ import annotations

import asyncio

import pytest

from forebay.contracts.outcomes import SUCCESS, ReleaseReason
from forebay.contracts.requests import RequestAdmissionDenied, RequestAdmissionLease
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.requests.outage_phases import LONGEST_PAUSE_SECONDS
from forebay.coordinator.requests.outages import DENIED_WITHIN_SECONDS
from forebay.coordinator.requests.releasing import Release
from forebay.coordinator.requests.shard import LONGEST_CANCEL_SECONDS
from tests.contract.chat_domain import item
from tests.support_local_leases import Member

CAP = 6


async def most_at_once(member: Member) -> int:
    """Return how many leases a member gives itself."""
    count = 0
    while isinstance(await member.leases.acquire(item(), "try"), RequestAdmissionLease):
        count += 1
    return count


@pytest.mark.parametrize(
    ("told_again", "most"),
    [((3, 0), 2), (None, 0)],
    ids=["of a member that entered meanwhile", "nothing"],
)
async def test_an_outage_before_the_last_one_is_over_uses_the_share_told_between(
    told_again: tuple[int, int] | None, most: int
) -> None:
    member = Member(CAP)
    member.join()(2, 0)
    member.lose_server()
    tell = member.join()
    member.leases._look()  # back, and within its share for a while
    if told_again is not None:
        tell(*told_again)
    assert member.leases.is_on
    member.lose_server()
    assert await most_at_once(member) == most
    member.leases.close()


async def test_a_member_that_asked_for_nothing_in_an_outage_keeps_to_its_share_after_it() -> None:
    member = Member(CAP)
    member.join()(2, 0)
    member.clock.now += 15.0  # a TTL: no heartbeat was acknowledged
    member.join()(1, 0)
    member.leases._look()
    asked = [await member.leases.acquire(item(), "try") for _ in range(CAP)]
    assert asked.count(None) == CAP // 2  # the server is asked within the share from before
    member.leases.close()


async def test_a_share_is_kept_to_until_the_slowest_other_member_can_be_back() -> None:
    member = Member(CAP)
    member.join()(2, 0)
    member.lose_server()
    member.join()(2, 0)
    member.leases._look()
    deadline = MemberSettings().call_timeout_seconds
    # A try that began in silence, the longest pause, and one that works at its last instant.
    member.clock.now += deadline + LONGEST_PAUSE_SECONDS + deadline - 0.01
    member.leases._look()
    assert member.leases.is_on
    member.clock.now += 0.02
    member.leases._look()
    assert not member.leases.is_on
    member.leases.close()


async def test_a_share_of_an_earlier_membership_is_none() -> None:
    member = Member(CAP)
    member.join()(2, 0)
    member.join()
    member.lose_server()
    assert await most_at_once(member) == 0
    member.leases.close()


async def test_a_first_outage_uses_the_share_that_was_told() -> None:
    member = Member(CAP)
    member.join()(2, 0)
    member.lose_server()
    assert await most_at_once(member) == CAP // 2
    member.leases.close()


async def test_until_shares_are_used_a_call_takes_the_slot_of_one_that_ended_here() -> None:
    member = Member(CAP)
    member.join()(2, 0)
    held = [member.hold(item()) for _ in range(CAP)]
    member.notice_loss()
    waiting = asyncio.create_task(member.leases.acquire(item(), ""))
    await asyncio.sleep(0)
    for lease in held[: CAP // 2]:
        member.held.pop(lease.lease_id)
        assert member.leases.keep_slot(lease, SUCCESS)
        await asyncio.sleep(0)
        assert not waiting.done()  # what runs here is not below its share yet
    lease = held[CAP // 2]
    member.held.pop(lease.lease_id)
    assert member.leases.keep_slot(lease, SUCCESS)
    given = await waiting
    assert isinstance(given, RequestAdmissionLease)
    assert given.degraded
    assert isinstance(await member.leases.acquire(item(), "try"), RequestAdmissionDenied)
    assert not any(isinstance(operation, Release) for operation, _ in member.session.sent)
    member.leases.close()


async def test_a_member_without_a_slot_gives_nothing_before_shares_are_used() -> None:
    member = Member(CAP)
    member.join()(1, 0)
    member.notice_loss()
    assert await most_at_once(member) == 0
    member.leases.close()


async def test_releases_that_were_never_sent_leave_their_slots_to_the_next_calls() -> None:
    member = Member(CAP)
    member.join()(1, 0)
    member.session.unsent = [Release(member.hold(item()), SUCCESS) for _ in range(2)]
    member.held.clear()
    member.notice_loss()
    assert await most_at_once(member) == 2
    member.leases.close()


async def test_a_slot_is_given_back_once_when_the_server_is_back() -> None:
    member = Member(CAP)
    member.join()(1, 0)
    held = [member.hold(item()) for _ in range(2)]
    member.notice_loss()
    for lease in held:
        member.held.pop(lease.lease_id)
        assert member.leases.keep_slot(lease, SUCCESS)
    given = await member.leases.acquire(item(), "try")
    assert isinstance(given, RequestAdmissionLease)
    member.session.away_since = None
    member.leases._look()
    assert [one.lease.lease_id for one in _releases(member)] == [held[1].lease_id]
    ended = member.leases.release(given, SUCCESS)
    assert ended is not None
    assert ended.reason is ReleaseReason.RELEASED
    assert {one.lease.lease_id for one in _releases(member)} == {one.lease_id for one in held}
    member.leases.close()
    assert len(_releases(member)) == 2


def _releases(member: Member) -> list[Release]:
    return [one for one, _ in member.session.sent if isinstance(one, Release)]


async def test_acquires_under_way_are_decided_here_when_a_long_absence_ends() -> None:
    member = Member(CAP)
    member.join()(2, 0)
    member.lose_server()
    member.join()
    assert member.redirects == 1  # they would be asked anew in the new membership
    member.leases._look()
    assert member.redirects == 2
    member.leases.close()


def test_a_wait_that_no_server_ends_is_over_within_half_a_second() -> None:
    assert DENIED_WITHIN_SECONDS + LONGEST_CANCEL_SECONDS < 0.5
