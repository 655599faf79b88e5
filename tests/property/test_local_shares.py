"""Calls of members that lose their server together stay within one window at every instant."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.contracts.outcomes import SUCCESS
from forebay.contracts.requests import RequestAdmissionLease
from forebay.coordinator.keys import encode
from forebay.coordinator.requests.operations import Acquire, Cancel
from forebay.coordinator.requests.releasing import Release
from forebay.coordinator.requests.shares import share_of
from tests.contract.chat_domain import item
from tests.property.modes import LONG, SETTINGS
from tests.support_local_leases import TTL_SECONDS, Clock, Member

CAP = 5


class Fleet:
    """Members on one clock, and a server that counts their leases as long as they are members.

    Attributes:
        is_away: whether the server is.
        ledger: the leases that the server counts, each with the membership that holds it.
        calls: the calls that run, each with its member and its lease.
    """

    def __init__(self, count: int) -> None:
        self.clock = Clock()
        self.members = [Member(CAP, self.clock, f"m{number}") for number in range(count)]
        self.is_away = False
        self.ledger: dict[str, Any] = {}
        self.calls: list[tuple[Member, RequestAdmissionLease]] = []
        for member in self.members:
            self.join(member)

    def join(self, member: Member) -> None:
        member.join()(len(self.members), self.members.index(member))

    def reaches(self, member: Member) -> bool:
        return not self.is_away and member.session.away_since is None

    def grant(self, member: Member, lease_id: str) -> bool:
        """Let the server grant a lease, where it has room and the member is one."""
        membership = member.session.membership
        if membership is None or not membership.is_held:
            return False
        self.ledger = {key: one for key, one in self.ledger.items() if one.is_held}
        if lease_id not in self.ledger and len(self.ledger) >= CAP:
            return False
        self.ledger[lease_id] = membership
        return True

    def serve(self, member: Member) -> None:
        """Let the server take what a member has sent it."""
        if not self.reaches(member):
            return
        sent, member.session.sent = member.session.sent, []
        again: list[Any] = []
        for operation, on_outcome in sent:
            match operation:
                case Acquire(item=asked) if self.grant(member, encode(asked.attempt_id)):
                    assert on_outcome is not None
                    if not on_outcome(self.lease(member, asked)):
                        del self.ledger[encode(asked.attempt_id)]
                case Acquire():
                    again.append((operation, on_outcome))
                case Cancel(attempt_id=attempt_id):
                    self.ledger.pop(attempt_id, None)
                    again = [one for one in again if encode(one[0].item.attempt_id) != attempt_id]
                case Release(lease=lease):
                    self.ledger.pop(encode(lease.lease_id), None)
        member.session.sent = [*again, *member.session.sent]

    def lease(self, member: Member, asked: Any) -> RequestAdmissionLease:
        lease = member.hold(asked)
        del member.held[encode(lease.lease_id)]
        return lease

    async def call(self, member: Member) -> None:
        """Begin a call, where a lease for it can be had at once."""
        asked = item()
        decision: Any = None
        if member.leases.is_on:
            decision = await member.leases.acquire(asked, "try")
        if decision is None and self.reaches(member):
            if self.grant(member, encode(asked.attempt_id)):
                decision = member.hold(asked)
            member.leases.on_asked(encode(asked.attempt_id))
        if isinstance(decision, RequestAdmissionLease):
            self.calls.append((member, decision))

    def end(self, number: int) -> None:
        if not self.calls:
            return
        member, lease = self.calls.pop(number % len(self.calls))
        held = member.held.let_go(encode(lease.lease_id))
        if held is None:
            if member.leases.release(lease, SUCCESS) is not None:
                return
        elif member.leases.keep_slot(held, SUCCESS):
            return
        release = Release(held or lease, SUCCESS)
        if self.reaches(member):
            member.session.sent.append((release, None))
        else:
            member.session.unsent.append(release)

    def notice(self, member: Member) -> None:
        if self.is_away and member.session.away_since is None:
            member.notice_loss()

    def come_back(self, member: Member) -> None:
        """Let the server answer, and a member reach it, in a membership that lasts or a new one."""
        self.is_away = False
        if member.session.away_since is None:
            return
        member.session.away_since = None
        member.session.sent += [(one, None) for one in member.session.unsent]
        member.session.unsent = []
        membership = member.session.membership
        if membership is None or not membership.is_held:
            member.session.sent = []
            self.join(member)

    def wait(self, seconds: float) -> None:
        for member in self.members:
            self.notice(member) if self.is_away else self.come_back(member)
        self.clock.now += seconds
        for member in self.members:
            membership = member.session.membership
            assert membership is not None
            if self.reaches(member):
                membership.beaten_at = self.clock.now
            if not membership.is_held:
                member.lose_held()
            member.leases._look()

    def check(self) -> None:
        """At no instant more calls than the window; lost calls count up to the member's share."""
        count = len(self.members)
        beyond = sum(
            max(0, len(member.leases._running.lost) - share_of(CAP, count, rank))
            for rank, member in enumerate(self.members)
        )
        assert len(self.calls) - beyond <= CAP, (len(self.calls), beyond)

    async def step(self, kind: str, number: int) -> None:
        """Do one step, and let the server take what it brought up."""
        member = self.members[number % len(self.members)]
        match kind:
            case "call":
                await self.call(member)
            case "end":
                self.end(number)
            case "wait":
                self.wait(number / 4)
            case "ttl":
                self.wait(TTL_SECONDS)
            case "lose":
                self.is_away = True
            case "notice":
                self.notice(member)
            case "come back":
                self.come_back(member)
        for one in self.members:
            self.serve(one)


KINDS = ["call", "call", "call", "call", "end", "end", "wait", "wait", "ttl",
         "lose", "notice", "come back"]  # fmt: skip
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 11)), max_size=60)


@settings(SETTINGS, max_examples=3000 if LONG else 80)
@given(count=st.integers(1, 4), steps=STEPS)
def test_calls_stay_within_the_window_whatever_is_lost_when(
    count: int, steps: Sequence[tuple[str, int]]
) -> None:
    async def run() -> None:
        fleet = Fleet(count)
        for kind, number in steps:
            await fleet.step(kind, number)
            fleet.check()
        for one in fleet.members:
            one.leases.close()

    asyncio.run(run())
