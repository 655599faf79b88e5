"""The request shard's scripts against the reference model, step by step, on both servers.

A failure is told as it was found; see `tests.property.modes` for longer looks.
"""

from __future__ import annotations

import math

import fakeredis
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from forebay.contracts.identity import RequestDomain
from forebay.contracts.outcomes import RateLimitScope
from forebay.contracts.outcomes import RequestOutcomeKind as Outcome
from forebay.contracts.quotas import QuotaReading
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from tests.property.modes import LONG, explore
from tests.property.request_comparison import in_order
from tests.property.request_moves import MOSTLY, MOVES, REGISTRATIONS, WEIGHTED
from tests.property.request_steps import ShardSteps, instants
from tests.support_scripts import (
    DEAF_KEY,
    GENERATION,
    Acquire,
    Cancel,
    Learn,
    Leave,
    Op,
    Register,
    Release,
)

FAR_US = 30 * 24 * 3600 * 1_000_000
MOST_MEMBERS = 3
MOST_REFUSED = 10
"""By then all of a window's leases are refused; without a cooldown there is always another."""


class RequestShardMachine(ShardSteps):
    """Several members use one shard; the model is told the same and must answer the same."""

    # One rule draws every move: separate rules are switched off at random for whole examples, and
    # a shard without traffic is of no interest.
    @rule(name=st.sampled_from(WEIGHTED), data=st.data())
    def move(self, name: str, data: st.DataObject) -> None:
        if not self.model.caps and name != "join" and data.draw(MOSTLY, "somebody comes"):
            self.join(60.0, data.draw(REGISTRATIONS))  # nothing happens where nobody registered
        getattr(self, name)(*data.draw(MOVES[name][1], name))

    # -- members

    @initialize(registration=REGISTRATIONS)
    def begin(self, registration: Register) -> None:
        self.join(15.0, None)
        self.join(60.0, registration)

    def join(self, ttl: float, registration: Register | None) -> None:
        if len(self.model.members) == MOST_MEMBERS:
            return
        name = f"m{len(self.member_names)}"
        self.member_names.append(name)
        assert self.shard.join(name, ttl) == self.model.join(name, round(ttl * 1e6))
        if registration is not None:
            self.step(name, registration)

    def connect_again(self, pick: int, ttl: float) -> None:
        """A member asks over a new connection whether it still is one."""
        member = self.member_names[pick % len(self.member_names)]
        reply = self.shard.join(member, ttl, remembered=GENERATION)
        assert reply == self.model.confirm(member, round(ttl * 1e6))
        self.compare_state()

    def beat(self, member: str, ttl: float) -> None:
        reply = self.shard.heartbeat(member, ttl)
        assert reply == self.model.heartbeat(member, round(ttl * 1e6))

    def stop_listening(self, pick: int, is_deaf: bool) -> None:
        member = self.member_names[pick % len(self.member_names)]
        deaf = self.model.listeners.deaf
        if is_deaf:
            deaf.add(member)
            self.shard.client.sadd(DEAF_KEY, member)
        else:
            deaf.discard(member)
            self.shard.client.srem(DEAF_KEY, member)

    def register(self, pick: int, registration: Register) -> None:
        self.step(self.a_member(pick), registration)

    def leave(self, pick: int, rest: list[Acquire]) -> None:
        self.step(self.a_member(pick), Leave(), *map(self.named, rest))

    def administer(self, operation: str, domain: RequestDomain, cap: str) -> None:
        subject = cap if operation == "override_cap" else domain.value
        subject = "" if operation == "settle" else subject
        value, told = self.model.administer(operation, subject)
        now_us, wake_us, answered = self.shard.administer(operation, subject)
        assert (now_us, answered) == (self.model.now_us, value)
        assert in_order(self.shard.pushed) == in_order(told)
        self.check_wake(wake_us)
        self.compare_state()

    # -- time

    def time_passes(self, us: int, beats: bool, ttl: float) -> None:
        self.set_clock(self.model.server_us + us)
        for member in [*self.model.members, self.member_names[0]] if beats else []:
            if member not in self.model.listeners.deaf or us == 1:
                self.beat(member, ttl)  # a process that ended does not, as a rule
        self.compare_state()

    def time_passes_to_an_instant_that_matters(self, pick: int, delta: int, then: int) -> None:
        model = self.model
        now_us = model.read_clock()
        at_any = [*instants(model), *model.quota_instants()]
        ahead = sorted(int(at) for at in at_any if now_us < at < math.inf)
        if ahead:
            self.step_at(ahead[pick % min(4, len(ahead))] + delta, then)

    def time_passes_to_the_next_wake(self, delta: int, then: int) -> None:
        if self.wake_us > self.model.read_clock():
            for member in list(self.model.members):
                self.beat(member, 60.0)
            self.step_at(self.wake_us + delta, then)

    def step_at(self, at_us: int, then: int) -> None:
        ahead_us = max(0, at_us - self.model.read_clock())
        if ahead_us < FAR_US:
            self.set_clock(self.model.server_us + ahead_us)
            self.step(self.a_member(then))

    def traffic_while_time_passes(self, us: int, rounds: int, domain: RequestDomain) -> None:
        for _ in range(rounds):
            self.time_passes(us, beats=True, ttl=60.0)
            self.step(self.a_member(rounds), self.named(Acquire("", domain, wait="try")))
            held = [lease for lease in self.model.leases.values() if lease.domain is domain]
            if held:
                self.step(held[0].member, Release(held[0].lease_id))

    def minutes_of_a_quota(
        self, minutes: int, count: int, late_us: int, domain: RequestDomain
    ) -> None:
        """A provider serves so many calls, and refuses all until the next minute."""
        for _ in range(minutes):
            served = 0
            while served < count and self.answer_one(domain, Outcome.SUCCESS):
                served += 1
            refused = 0
            while refused < MOST_REFUSED and self.answer_one(domain, Outcome.RATE_LIMITED):
                refused += 1
            for part_us in (0, 30_000_000, 30_000_000 + late_us):
                self.time_passes(part_us, beats=True, ttl=60.0)

    def answer_one(self, domain: RequestDomain, outcome: Outcome) -> bool:
        """End a lease of a domain, and ask for another; False where there is none."""
        self.step(self.a_member(0), self.named(Acquire("", domain)))
        lease = next((held for held in self.model.leases.values() if held.domain is domain), None)
        if lease is not None:
            self.step(lease.member, Release(lease.lease_id, outcome))
        return lease is not None

    def the_servers_clock_steps_back(self, us: int, then: int) -> None:
        self.set_clock(self.model.server_us - us)
        self.step(self.a_member(then))

    def an_hour_passes(self, us: int, pick: int) -> None:
        for member in list(self.model.members):
            self.beat(member, 7200.0)
        self.set_clock(self.model.server_us + us)
        self.step(self.a_member(pick))

    # -- batches

    def ask(self, pick: int, asks: list[Acquire]) -> None:
        self.step(self.a_member(pick), *map(self.named, asks))

    def release(
        self,
        picks: list[int],
        outcome: Outcome,
        hint: float | None,
        used: int | None,
        scope: RateLimitScope | None,
    ) -> None:
        leases = [self.a_lease(pick) for pick in picks if self.model.leases]
        if leases:
            ops = [
                Release(lease.lease_id, outcome, hint, used=used, scope=scope) for lease in leases
            ]
            self.step(leases[0].member, *ops)

    def headers_arrive(self, pick: int, readings: list[QuotaReading], ago_us: int) -> None:
        at_us = self.model.read_clock() - ago_us
        self.step(self.a_member(pick), *(Learn(reading, at_us) for reading in readings))

    def give_up(self, pick: int) -> None:
        waiters = list(self.model.queue.waiters.values())
        if waiters:
            waiter = waiters[pick % min(3, len(waiters))]
            self.step(waiter.member, Cancel(waiter.attempt_id))

    def a_burst_of_rate_limits(
        self, pick: int, hint: float | None, scope: RateLimitScope | None
    ) -> None:
        leases = list(self.model.leases.values())
        for lease in leases:
            if lease.domain is leases[pick % len(leases)].domain:
                refused = Release(lease.lease_id, Outcome.RATE_LIMITED, hint, scope=scope)
                self.step(lease.member, refused)

    def a_run_of_successes(self, pick: int, count: int, domain: RequestDomain) -> None:
        for _ in range(count):
            leases = [lease for lease in self.model.leases.values() if lease.domain is domain]
            if leases:
                lease = leases[pick % len(leases)]
                again = Acquire("", lease.domain, lease.group)
                self.step(lease.member, Release(lease.lease_id), self.named(again))

    def a_mixed_batch(self, pick: int, ops: list[Op]) -> None:
        self.step(self.a_member(pick), *map(self.named, ops))

    def an_earlier_batch_comes_again(self, pick: int, late: int) -> None:
        member = self.a_member(pick)
        sent = self.sent.get(member, [])
        number = len(sent) - late // 4
        if number < 1:
            return
        ops, raw = sent[number - 1]
        kept = self.model.replies.get(member)
        if kept is None or number < kept[0]:
            self.refused(member, number, ops)
            return
        assert self.shard.call(member, number, *ops).raw == raw
        assert self.shard.pushed == {}
        self.compare_state()


def test_the_scripts_do_what_the_model_does_on_a_real_server(redis_url: str) -> None:
    with open_sync(parse_url(redis_url)) as client:
        explore("real server", RequestShardMachine, client, 10_000 if LONG else 40)


def test_the_scripts_do_what_the_model_does_on_fakeredis() -> None:
    with fakeredis.FakeRedis(version=(7,)) as client:
        explore("fakeredis", RequestShardMachine, client, 1_000 if LONG else 5)
