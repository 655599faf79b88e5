"""One step of the state machine on a shard and on its model, and what must be the same after it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import redis
from hypothesis.stateful import RuleBasedStateMachine

from tests.property.request_comparison import (
    corrections,
    expected_budgets,
    expected_state,
    follow_limits,
    in_order,
    let_minutes_pass,
    subject,
    without_time,
)
from tests.property.request_model import RequestModel
from tests.property.request_state_model import Lease, ModelReply
from tests.property.window_minute_model import MINUTE_US
from tests.support_scripts import (
    GENERATION,
    START_US,
    Acquire,
    Cancel,
    Op,
    Refused,
    Release,
    Reply,
    ScriptedShard,
    State,
)
from tests.support_state import audit, observable, read_keys, stored_limits, transitions


class ShardSteps(RuleBasedStateMachine):
    """A shard and its model; whatever is done to one is done to the other."""

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
        self.wake_us = 0
        self.known_us: set[float] = set()

    def teardown(self) -> None:
        self.shard.close()

    def set_clock(self, us: int) -> None:
        self.model.server_us = us
        self.shard.set_clock(us)

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
        waits = [op.wait for op in ops if isinstance(op, Acquire) and op.wait != "try"]
        self.known_us.update(reply.now_us + round(wait * 1e6) for wait in waits if wait)
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
        self.wake_us = wake_us
        if not self.model.queue.waiters:
            assert wake_us == 0
            return
        probe = copy.deepcopy(self.model)
        probe.told = {}
        probe.server_us += max(0, wake_us - 1 - probe.now_us)
        probe.settle(probe.caller)  # a member that calls is present, whoever listens to it
        # an instant in the past says that something is due now, such as a hold that began to count
        assert bool(probe.told) == (wake_us <= self.model.now_us)
        quota_us = self.model.quota_instants()
        assert not quota_us or 0 < wake_us <= min(quota_us)
        # one that was a deadline when the call began may be told, although its waiter has gone
        self.known_us.update(instants(self.model))
        is_ramping = any(window.ramp_us for window in self.model.windows.values())
        assert is_ramping or wake_us <= self.model.now_us or wake_us in {*self.known_us, *quota_us}

    def compare_state(self) -> None:
        found = read_keys(self.shard.client, self.shard.keys)
        audit(found)
        assert self.shard.endless_keys() == set()
        actual, expected = observable(found), expected_state(self.model)
        # a group that the model has forgotten may still be stored, and has no say
        actual["groups"] = {
            name: group for name, group in actual["groups"].items() if name in expected["groups"]
        }
        for state in (actual, expected):
            let_minutes_pass(state["windows"], self.model)
        for domain, window in expected["windows"].items():
            if actual["windows"][domain]["current_limit"] is None:
                window["current_limit"] = None
        assert actual == expected
        self.compare_budgets()
        after = self.events_after
        corrected = corrections(self.shard.client, self.shard.keys, after)
        assert corrected == self.model.corrections
        self.model.corrections.clear()
        said, self.events_after = transitions(self.shard.client, self.shard.keys, after)
        promised = sorted(self.model.transitions, key=subject)
        assert sorted(without_time(said), key=subject) == promised
        self.model.transitions.clear()
        told = follow_limits(self.limits, said, self.model)
        self.limits = stored_limits(found)
        assert self.limits == self.limits | told

    def compare_budgets(self) -> None:
        expected = expected_budgets(self.model)
        if not expected and not self.shard.client.exists(self.shard.keys["budgets"]):
            return
        found = json.loads(self.shard.run("requests/snapshot", self.shard.keys.all, (0,)))
        levels = [bucket | {"level": float(bucket["level"])} for bucket in found["budgets"]]
        assert levels == expected


def instants(model: RequestModel) -> list[float]:
    """Return when time alone may do something, but for quotas: past and future, maybe never."""
    of_windows = [window.blocked_until_us for window in model.windows.values()]
    ramps = [window.born_us + window.ramp_us for window in model.windows.values()]
    minutes = [window.opened_us + MINUTE_US for window in model.windows.values()]
    return [
        *(waiter.deadline_us for waiter in model.queue.waiters.values()),
        *(lease.held_until_us for lease in model.leases.values()),
        *of_windows,
        *ramps,
        *minutes,
        *model.members.values(),
        *model.listeners.look_at_us.values(),
    ]
