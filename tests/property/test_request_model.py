"""The request shard's scripts against the reference model, step by step, on both servers.

A failure is told as it was found; see `tests.property.modes` for longer looks.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from contracts.identity import RequestDomain
from contracts.requests import RequestOutcomeKind as Outcome
from coordinator.address import parse_url
from coordinator.connections import open_sync
from tests.property.modes import LONG, MODE, Progress
from tests.property.request_comparison import (
    expected_state,
    follow_limits,
    in_order,
    subject,
    without_ramp,
)
from tests.property.request_model import Lease, ModelReply, RequestModel
from tests.property.request_moves import MOSTLY, MOVES, REGISTRATIONS, WEIGHTED
from tests.support_scripts import (
    GENERATION,
    START_US,
    Acquire,
    Cancel,
    Leave,
    Op,
    Refused,
    Register,
    Release,
    Reply,
    ScriptedShard,
    State,
)
from tests.support_state import audit, observable, read_keys, stored_limits, transitions

MOST_MEMBERS = 3

settings.register_profile(
    "request-model-shrink",
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "request-model-long", settings.get_profile("request-model-shrink"), derandomize=False
)
settings.register_profile(
    "request-model-ci",
    settings.get_profile("request-model-shrink"),
    phases=[Phase.explicit, Phase.generate],
)


class RequestShardMachine(RuleBasedStateMachine):
    """Several members use one shard; the model is told the same and must answer the same."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        client.flushall()
        self.shard = ScriptedShard(client)
        self.model = RequestModel(server_us=START_US, generation=GENERATION)
        self.member_names: list[str] = []
        self.attempts: list[str] = ["never"]
        self.sent: dict[str, list[tuple[tuple[Op, ...], bytes]]] = {}
        self.events_after = "-"
        self.limits: dict[str, int] = {}

    def teardown(self) -> None:
        self.shard.close()

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

    def beat(self, member: str, ttl: float) -> None:
        reply = self.shard.heartbeat(member, ttl)
        assert reply == self.model.heartbeat(member, round(ttl * 1e6))

    def register(self, pick: int, registration: Register) -> None:
        self.step(self.a_member(pick), registration)

    def leave(self, pick: int, rest: list[Acquire]) -> None:
        self.step(self.a_member(pick), Leave(), *map(self.named, rest))

    def operate(self, operation: str, domain: RequestDomain, cap: str) -> None:
        subject = cap if operation == "override_cap" else domain.value
        subject = "" if operation == "settle" else subject
        value, told = self.model.operate(operation, subject)
        now_us, wake_us, answered = self.shard.operate(operation, subject)
        assert (now_us, answered) == (self.model.now_us, value)
        assert in_order(self.shard.pushed) == in_order(told)
        self.check_wake(wake_us)
        self.compare_state()

    # -- time

    def time_passes(self, us: int, beats: bool, ttl: float) -> None:
        self.set_clock(self.model.server_us + us)
        for member in [*self.model.members, self.member_names[0]] if beats else []:
            self.beat(member, ttl)
        self.compare_state()

    def time_passes_to_an_instant_that_matters(self, pick: int, delta: int, then: int) -> None:
        model = self.model
        instants = [waiter.deadline_us for waiter in model.queue.waiters.values()]
        instants += [lease.held_until_us for lease in model.leases.values()]
        instants += [window.blocked_until_us for window in model.windows.values()]
        instants += [window.born_us + window.ramp_us for window in model.windows.values()]
        instants += model.members.values()
        now_us = model.read_clock()
        ahead = sorted(int(at) for at in instants if now_us < at < math.inf)
        if ahead:
            at = ahead[pick % min(4, len(ahead))] + delta
            self.set_clock(model.server_us + max(0, at - now_us))
            self.step(self.a_member(then))

    def traffic_while_time_passes(self, us: int, rounds: int, domain: RequestDomain) -> None:
        for _ in range(rounds):
            self.time_passes(us, beats=True, ttl=60.0)
            self.step(self.a_member(rounds), self.named(Acquire("", domain, wait="try")))
            held = [lease for lease in self.model.leases.values() if lease.domain is domain]
            if held:
                self.step(held[0].member, Release(held[0].lease_id))

    def the_servers_clock_steps_back(self, us: int, then: int) -> None:
        self.set_clock(self.model.server_us - us)
        self.step(self.a_member(then))

    def an_hour_passes(self, us: int, pick: int) -> None:
        for member in list(self.model.members):
            self.beat(member, 7200.0)
        self.set_clock(self.model.server_us + us)
        self.step(self.a_member(pick))

    def set_clock(self, us: int) -> None:
        self.model.server_us = us
        self.shard.set_clock(us)

    # -- batches

    def ask(self, pick: int, asks: list[Acquire]) -> None:
        self.step(self.a_member(pick), *map(self.named, asks))

    def release(self, picks: list[int], outcome: Outcome, hint: float | None) -> None:
        leases = [self.a_lease(pick) for pick in picks if self.model.leases]
        if leases:
            ops = [Release(lease.lease_id, outcome, hint) for lease in leases]
            self.step(leases[0].member, *ops)

    def a_burst_of_rate_limits(self, pick: int, hint: float | None) -> None:
        leases = list(self.model.leases.values())
        for lease in leases:
            if lease.domain is leases[pick % len(leases)].domain:
                self.step(lease.member, Release(lease.lease_id, Outcome.RATE_LIMITED, hint))

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

    # -- what is picked

    def a_member(self, pick: int) -> str:
        live = list(self.model.members)
        return live[pick % len(live)] if live and pick < 11 else self.member_names[-1]

    def a_lease(self, pick: int) -> Lease:
        return list(self.model.leases.values())[pick % len(self.model.leases)]

    def named(self, op: Op) -> Op:
        """Settle which attempt an operation is about."""
        match op:
            case Acquire(attempt_id=""):
                self.attempts.append(f"a{len(self.attempts)}")
                return replace(op, attempt_id=self.attempts[-1])
            case Acquire() | Cancel() | State():
                return replace(op, attempt_id=self.known(op.attempt_id))
            case Release():
                return replace(op, lease_id=self.known(op.lease_id))
            case _:
                return op

    def known(self, name: str) -> str:
        """Return the attempt that "?n" stands for: live leases and waiters come up most."""
        live = [*self.model.leases, *self.model.queue.waiters]
        known = [*live, *live, *self.attempts[-6:], "never"]
        return known[int(name[1:]) % len(known)] if name.startswith("?") else name

    # -- one step, and what must be the same after it

    def step(self, member: str, *ops: Op) -> None:
        sent = self.sent.setdefault(member, [])
        number = len(sent) + 1
        try:
            expected = self.model.batch(member, number, ops)
        except Refused:
            self.check_refused(member, number, ops, "NOMEMBER", self.model.told)
            return
        reply = self.shard.call(member, number, *ops)
        sent.append((ops, reply.raw))
        self.compare_reply(reply, expected)
        self.compare_state()

    def refused(self, member: str, number: int, ops: tuple[Op, ...]) -> None:
        code = "OLDBATCH" if member in self.model.replies else "NOMEMBER"
        self.model.told = {}
        with pytest.raises(Refused, match=code):
            self.model.batch(member, number, ops)
        self.check_refused(member, number, ops, code, self.model.told)

    def check_refused(
        self, member: str, number: int, ops: tuple[Op, ...], code: str, told: dict[str, Any]
    ) -> None:
        with pytest.raises(Refused) as refusal:
            self.shard.call(member, number, *ops)
        assert refusal.value.code == code
        assert in_order(self.shard.pushed) == in_order(told)
        self.compare_state()

    def compare_reply(self, reply: Reply, expected: ModelReply) -> None:
        assert reply.now_us == expected.now_us
        assert reply.generation == GENERATION
        assert reply.results == expected.results
        assert in_order({"": reply.notices}) == in_order({"": expected.notices})
        assert in_order(self.shard.pushed) == in_order(expected.pushed)
        self.check_wake(reply.next_wake_us)

    def check_wake(self, wake_us: int) -> None:
        """Until the instant that the reply names, time alone changes nothing for a waiter."""
        if not self.model.queue.waiters:
            assert wake_us == 0
            return
        probe = copy.deepcopy(self.model)
        probe.told = {}
        probe.server_us += max(0, wake_us - 1 - probe.now_us)
        probe.settle()
        # an instant in the past says that something is due now, such as a hold that began to count
        assert bool(probe.told) == (wake_us <= self.model.now_us)

    def compare_state(self) -> None:
        found = read_keys(self.shard.client, self.shard.keys)
        audit(found)
        assert self.shard.endless_keys() == set()
        actual, expected = observable(found), expected_state(self.model)
        # a group that the model has forgotten may still be stored, and has no say
        actual["groups"] = {
            name: group for name, group in actual["groups"].items() if name in expected["groups"]
        }
        for domain, window in expected["windows"].items():
            if actual["windows"][domain]["current_limit"] is None:
                window["current_limit"] = None
        assert actual == expected
        said, self.events_after = transitions(self.shard.client, self.shard.keys, self.events_after)
        promised = sorted(self.model.transitions, key=subject)
        assert sorted(without_ramp(said), key=subject) == promised
        self.model.transitions.clear()
        told = follow_limits(self.limits, said, self.model)
        self.limits = stored_limits(found)
        assert self.limits == self.limits | told


def explore(what: str, client: redis.Redis, examples: int) -> None:
    progress = Progress(what, examples)

    class OnThisClient(RequestShardMachine):
        def __init__(self) -> None:
            progress.example()
            super().__init__(client)

    run_state_machine_as_test(
        OnThisClient,
        settings=settings(settings.get_profile(f"request-model-{MODE}"), max_examples=examples),
    )


def test_the_scripts_do_what_the_model_does_on_a_real_server(redis_url: str) -> None:
    with open_sync(parse_url(redis_url)) as client:
        explore("real server", client, examples=10_000 if LONG else 250)


def test_the_scripts_do_what_the_model_does_on_fakeredis() -> None:
    with fakeredis.FakeRedis(version=(7,)) as client:
        explore("fakeredis", client, examples=1_000 if LONG else 200)
