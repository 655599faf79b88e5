"""Shares held by members while the server is away never add up to more than one window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.contracts.settings import RequestAdmissionConfig, RequestAdmissionTuningConfig
from forebay.coordinator.requests.shares import Share, decode_share, share_of
from tests.property.modes import LONG, SETTINGS
from tests.support_scripts import CHAT, AskShare, Leave, Register, ScriptedShard

AT_THE_CAP = RequestAdmissionConfig(tuning=RequestAdmissionTuningConfig(rule="aimd"))
TTL_SECONDS = 15.0


@given(limit=st.integers(0, 10**9), members=st.integers(1, 200), data=st.data())
def test_shares_of_all_ranks_are_the_limit_and_never_grow_with_rank_or_members(
    limit: int, members: int, data: st.DataObject
) -> None:
    shares = [share_of(limit, members, rank) for rank in range(members)]
    assert sum(shares) == limit
    assert max(shares) - min(shares) <= 1
    rank = data.draw(st.integers(0, members - 1))
    assert share_of(limit, members + 1, rank) <= shares[rank] <= shares[0]


class Fleet:
    """Members of a shard and what each was told last, as they would go on with it."""

    def __init__(self, cap: int) -> None:
        self.client = fakeredis.FakeRedis(version=(7,))
        self.shard = ScriptedShard(self.client)
        self.cap = cap
        self.told: dict[str, Share | None] = {}
        self.count = 0

    def enter(self, *, is_lost: bool = False) -> str:
        self.count += 1
        member = f"m{self.count % 7}-{self.count}"  # in another order than they enter
        self.shard.join(member)
        self.shard.batch(member, Register("main", self.cap, AT_THE_CAP))
        self.told[member] = None
        self.ask(member, is_lost=is_lost)
        return member

    def ask(self, member: str, *, is_lost: bool = False) -> None:
        """Ask for a member's share; a reply that is lost leaves it with the one before."""
        told = self.told[member]
        reply = self.shard.batch(member, AskShare(0 if told is None else told.ticket))
        if not is_lost:
            self.told[member] = decode_share(reply.results[0])

    def leave(self, member: str) -> None:
        self.shard.batch(member, Leave())
        del self.told[member]

    def expire(self, member: str) -> None:
        """Let a member end whose heartbeats stop, while all others beat."""
        del self.told[member]
        for _ in range(4):
            self.shard.advance(TTL_SECONDS / 3)
            for other in self.told:
                self.shard.heartbeat(other)
                self.shard.batch(other)

    def shares(self) -> list[int]:
        told = self.told.values()
        return [0 if one is None else one.of(one.domains[CHAT].limit) for one in told]

    def step(self, step: tuple[str, int]) -> None:
        kind, number = step
        members = sorted(self.told)
        member = members[number % len(members)] if members else ""
        match kind:
            case "enter":
                self.enter()
            case "enter, reply lost":
                self.enter(is_lost=True)
            case "ask" if member:
                self.ask(member)
            case "ask, reply lost" if member:
                self.ask(member, is_lost=True)
            case "leave" if member:
                self.leave(member)
            case "expire" if member:
                self.expire(member)


STEPS = st.lists(
    st.tuples(st.sampled_from(["enter", "enter", "enter, reply lost", "ask", "ask", "ask",
                               "ask, reply lost", "leave", "expire"]),
              st.integers(0, 6)),
    max_size=20,
)  # fmt: skip


@settings(SETTINGS, max_examples=1000 if LONG else 40)
@given(cap=st.integers(1, 12), steps=STEPS)
def test_shares_of_any_last_replies_stay_within_the_window(
    cap: int, steps: list[tuple[str, int]]
) -> None:
    fleet = Fleet(cap)
    for step in steps:
        fleet.step(step)
        assert sum(fleet.shares()) <= cap  # should the server go away now
    for _ in range(3):  # all are told of all, say that they were, and are told that all were
        for member in list(fleet.told):
            fleet.ask(member)
    if fleet.told:
        assert sum(fleet.shares()) == cap
        assert fleet.client.zcard(fleet.shard.keys["sharers"]) == 2 * len(fleet.told)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = Fleet(5)
    yield fleet
    fleet.shard.close()


def test_a_newcomer_has_no_share_before_the_others_were_told_of_it(fleet: Fleet) -> None:
    first, second = fleet.enter(), fleet.enter()
    assert fleet.shares() == [5, 0]
    fleet.ask(second)
    assert fleet.shares() == [5, 0]
    fleet.ask(first)
    fleet.ask(second)
    assert fleet.shares() == [3, 0]  # the reply to the first may have been lost
    fleet.ask(first)
    fleet.ask(second)
    assert fleet.shares() == [3, 2]


def test_a_reply_that_was_lost_entitles_nobody(fleet: Fleet) -> None:
    first, second = fleet.enter(), fleet.enter()
    for _ in range(3):
        fleet.ask(first, is_lost=True)
        fleet.ask(second)
    assert fleet.shares() == [5, 0]


def test_sharers_are_asked_to_ask_anew_when_one_enters(fleet: Fleet) -> None:
    first = fleet.enter()
    fleet.enter()
    pushed: Any = fleet.shard.pushed
    assert pushed[first] == [["share"]]
