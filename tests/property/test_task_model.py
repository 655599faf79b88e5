"""The pool's script against the reference model, step by step, on both servers (design 04)."""

from __future__ import annotations

import json
from typing import Any

import fakeredis
import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
)

from forebay.contracts.task_policies import (
    BoundedBorrowTaskAdmissionPolicyConfig,
    TaskAdmissionConfig,
)
from forebay.contracts.tasks import Amounts
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.tasks.registering import Configure
from tests.contract.pool_under_clock import Pool
from tests.contract.shard_under_clock import START_US
from tests.property.modes import LONG, explore
from tests.property.task_comparison import expected_state, observed_state
from tests.property.task_model import PoolModel
from tests.property.task_moves import MOVES, RESOURCES, WEIGHTED
from tests.property.task_policy_model import Borrow, Strict
from tests.property.task_state_model import HOUR_US
from tests.support_scripts import DEAF_KEY

MOST_MEMBERS = 3


def terms_of(lease: list[str]) -> list[str]:
    """Return what the model knows of a lease."""
    return [*lease[:2], *lease[3:7]]


class TaskPoolMachine(RuleBasedStateMachine):
    """Several members use one pool; the model is told the same and must answer the same."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        client.flushall()
        self.pool = Pool(client)
        self.pool.listen_to_all()
        self.model = PoolModel(server_us=START_US)
        self.member_names: list[str] = []
        self.asked = 0
        self.lease_ids: list[str] = []
        self.woken: dict[str, int] = {}

    def teardown(self) -> None:
        self.pool.close()

    @initialize()
    def begin(self) -> None:
        self.join(60_000_000)
        for resource, limits in RESOURCES.items():
            self.set_limit(0, (resource, limits[0]))

    # One rule draws every move: separate rules are switched off at random for whole examples.
    @rule(name=st.sampled_from(WEIGHTED), data=st.data())
    def move(self, name: str, data: st.DataObject) -> None:
        getattr(self, name)(*data.draw(MOVES[name][1], name))

    # -- picking

    def a_member(self, pick: int) -> str:
        live = list(self.model.members)
        return live[pick % len(live)] if live and pick < 3 else self.member_names[-1]

    def a_lease(self, pick: int) -> Any:
        leases = list(self.model.leases.values())
        return leases[pick % len(leases)] if leases else None

    def a_task(self, pick: int) -> str:
        known = [*self.model.tasks, f"t{pick}"]
        return known[pick % len(known)]

    # -- a batch, and what must be the same after it

    def batch(self, member: str, *steps: tuple[tuple[Any, ...], Any]) -> None:
        """Run operations; each comes with what the model does and answers instead."""
        self.model.begin(member)
        operations = [operation for operation, _expected in steps]
        if member not in self.model.members:
            with pytest.raises(redis.ResponseError, match="NOMEMBER"):
                self.pool.ask_all(member, *operations)
            self.compare_told(self.model.end(member), {})
            self.compare()
            return
        results = self.pool.ask_all(member, *operations)
        expected = [expect() for _operation, expect in steps]
        told = self.model.end(member)
        assert [self.seen(result) for result in results] == expected
        self.compare_told(told, {member: self.pool.notices})
        self.check_no_idle_gap(member, operations, told)
        assert self.pool.next_wake_us == self.model.next_wake_us
        self.compare()

    def check_no_idle_gap(
        self, member: str, operations: list[tuple[Any, ...]], told: dict[str, Any]
    ) -> None:
        """No ready task that may go stands beside a free slot that nobody is about to ask for.

        Members that were told of work and have not asked since are about to ask.
        """
        if any(name == "admit" for name, *_ in operations):
            self.woken.pop(member, None)
        self.woken.update({who: 1 for who, notices in told.items() if ["work"] in notices})
        idle = self.pool.client.zrange(self.pool.keys["idle"], "(0", "+inf", byscore=True)
        free = {name.decode() for name in idle} - self.model.listeners.deaf - {*self.woken}
        deaf = self.model.listeners.deaf - {member}  # its reply tells the caller
        about_to_ask = self.woken.keys() & self.model.members.keys() - deaf
        if free and not about_to_ask:
            assert all(self.model._choose(set(), name) is None for name in free)

    def seen(self, result: list[Any]) -> Any:
        """Return what of a result the model knows."""
        if result[0] != "admitted":
            return result
        _word, leases, pushed, queued, _reasons, expired, _events, lost = result
        for lease in [*leases, *(lease for _number, lease in pushed)]:
            payload = self.pool.payloads[int(lease[8]) - 1]
            assert payload == f"payload of {lease[1]}".encode()
        again = [[number, terms_of(lease)] for number, lease in pushed]
        return ([terms_of(lease) for lease in leases], again, queued, expired, lost)

    def compare_told(self, expected: dict[str, Any], own: dict[str, list[Any]]) -> None:
        """What members are told: the caller in its reply, the others by channel.

        Left out is that an operator set something: test_task_rebuild_rules says who is told.
        """
        told: dict[str, list[Any]] = {}
        for member, notices in {**self.pool.told(), **own}.items():
            for notice in notices:
                known = notice
                if notice == ["set"]:
                    continue
                if notice[0] == "task":
                    _word, number, lease, payload = notice
                    assert payload == f"payload of {lease[1]}"
                    known = ["task", number, terms_of(lease)]
                told.setdefault(member, []).append(known)
        assert told == expected

    def compare(self) -> None:
        report = self.pool.audit()
        assert report.differences == ()
        assert observed_state(self.pool, self.model) == expected_state(self.model)
        assert self.pool.endless_keys() == set()

    # -- moves

    def join(self, ttl_us: int) -> None:
        if len(self.model.members) < MOST_MEMBERS:
            self.member_names.append(f"m{len(self.member_names)}")
            self.pool.join(self.member_names[-1], ttl_us=ttl_us)
            self.model.join(self.member_names[-1], ttl_us)

    def connect_again(self, pick: int, ttl_us: int) -> None:
        """A member asks over a new connection whether it still is one."""
        member = self.member_names[pick % len(self.member_names)]
        assert self.pool.confirm(member, ttl_us) == self.model.confirm(member, ttl_us)
        self.compare()

    def stop_listening(self, pick: int, is_deaf: bool) -> None:
        member, deaf = self.a_member(pick), self.model.listeners.deaf
        if is_deaf:
            deaf.add(member)
            self.pool.client.sadd(DEAF_KEY, member)
        else:
            deaf.discard(member)
            self.pool.client.srem(DEAF_KEY, member)

    def submit(self, pick: int, tasks: list[tuple[Any, ...]]) -> None:
        steps = []
        for terms in tasks:
            self.asked += 1
            steps.append(self.submission(f"t{self.asked}", *terms))
        self.batch(self.a_member(pick), *steps)

    def submission(
        self,
        task_id: str,
        group: str,
        weight: float,
        limit: int | None,
        amounts: Amounts,
        delay_us: int,
        function: str = "",
    ) -> tuple[tuple[Any, ...], Any]:
        asks = ",".join(f"{name}={amount}" for name, amount in sorted(amounts.items()))
        instant_us = self.model.server_us + delay_us if delay_us else None
        operation = (
            "submit",
            task_id,
            f"local/{group}",
            weight,
            "" if limit is None else limit,
            asks,
            "" if instant_us is None else instant_us,
            f"payload of {task_id}",
            "",
            function,
            0,
        )
        return operation, lambda: self.model.submit(
            task_id, group, weight, limit, amounts, instant_us, function
        )

    def submit_again(self, pick: int, task: int) -> None:
        if known := self.model.tasks.get(self.a_task(task)):
            terms = (known.group, 1.0, None, known.amounts, task, known.function)
            step = self.submission(known.task_id, *terms)
            self.batch(self.a_member(pick), step)

    def admission(self, member: str, slots: int, hints: tuple[str, ...], missed: int) -> Any:
        seen = self.seen_by(member, missed)
        operation = ("admit", slots, 60_000, ",".join(hints), "" if seen is None else seen)

        def expect() -> Any:
            leases, unseen, expired, lost = self.model.admit(member, slots, set(hints), seen)
            self.lease_ids += [lease[0] for lease in leases]
            return (leases, unseen, len(self.model.waiting()), expired, lost)

        return operation, expect

    def seen_by(self, member: str, missed: int) -> int | None:
        """Number of the last push that a member knows of, having missed some; two take pushes.

        Below 0 were missed by the server, as by a replica that took over.
        """
        if member == "m0":
            return None
        pushes = self.model.pushes.get(member)
        count, unseen = (pushes.count, len(pushes.unseen)) if pushes else (0, 0)
        return count - min(missed, unseen)

    def admit(self, pick: int, slots: int, hints: tuple[str, ...], missed: int) -> None:
        member = self.a_member(pick)
        self.batch(member, self.admission(member, slots, hints, missed))

    def end(self, member: str, lease_id: str) -> Any:
        return ("finish", lease_id, b"", "", ""), lambda: self.model.finish(member, lease_id)

    def finish(self, picks: list[int]) -> None:
        if lease := self.a_lease(picks[0]):
            leases = [self.a_lease(pick) for pick in picks]
            self.batch(lease.member, *(self.end(lease.member, one.lease_id) for one in leases))

    def finish_and_admit(self, pick: int, slots: int) -> None:
        if lease := self.a_lease(pick):
            steps = [self.end(lease.member, lease.lease_id)]
            self.batch(lease.member, *steps, self.admission(lease.member, slots, (), 0))

    def finish_of_another(self, pick: int, which: int) -> None:
        known = [*self.lease_ids[-6:], "never~1"]
        member = self.a_member(pick)
        self.batch(member, self.end(member, known[which % len(known)]))

    def retry(self, pick: int, delay_us: int, counts: int) -> None:
        if lease := self.a_lease(pick):
            operation = ("retry", lease.lease_id, delay_us, counts)
            expect = lambda: self.model.retry(lease.member, lease.lease_id, delay_us, counts)  # noqa: E731
            self.batch(lease.member, (operation, expect))

    def discard(self, pick: int, task: int) -> None:
        task_id = self.a_task(task)
        operation = ("discard", task_id, b"", "")
        self.batch(self.a_member(pick), (operation, lambda: self.model.discard(task_id)))

    def expire(self, pick: int, task: int) -> None:
        gone = [one.task_id for one in self.model.tasks.values() if not one.has_payload]
        task_id = gone[task % len(gone)] if gone and task % 3 else self.a_task(task)
        operation = ("expire", task_id, b"", "")
        self.batch(self.a_member(pick), (operation, lambda: self.model.expire(task_id)))

    def serve(self, pick: int, functions: set[str]) -> None:
        member = self.a_member(pick)
        expect = lambda: self.model.serve(member, functions)  # noqa: E731
        self.batch(member, (("serve", *sorted(functions)), expect))

    def fail_lost(self, pick: int, task: int) -> None:
        lost = [one.task_id for one in self.model.tasks.values() if one.lost_with]
        task_id = lost[task % len(lost)] if lost and task % 3 else self.a_task(task)
        operation = ("fail_lost", task_id, b"", "")
        self.batch(self.a_member(pick), (operation, lambda: self.model.fail_lost(task_id)))

    def die(self, pick: int) -> None:
        """A member with leases falls silent, and all others go on until it is ended."""
        dead = self.a_member(pick)
        self.stop_listening(pick, True)
        for _ in range(8):
            self.model.server_us += 2_500_000
            self.pool.pass_time(2.5)
            for member in [*self.model.members]:
                if member != dead:
                    self.pool.beat(member, 15_000_000)
                    self.model.heartbeat(member, 15_000_000)
            if others := [member for member in self.model.members if member != dead]:
                self.batch(others[0], self.admission(others[0], 1, (), 0))

    def payload_expires(self, pick: int) -> None:
        task = self.model.tasks.get(self.a_task(pick))
        if task is not None and task.place != "running":
            task.has_payload = False
            self.pool.client.delete(f"arq:job:{task.task_id}")

    def set_limit(self, pick: int, limit: tuple[str, int]) -> None:
        operation = ("claim", limit[0], "pool", limit[1])
        self.batch(self.a_member(pick), (operation, lambda: self.model.claim(*limit)))

    def configure(
        self,
        pick: int,
        borrow: BoundedBorrowTaskAdmissionPolicyConfig | None,
        reserve_us: int,
        losses: int,
    ) -> None:
        config = TaskAdmissionConfig(
            borrow=borrow, reserve_after_seconds=max(0.001, reserve_us / 1e6), max_losses=losses
        )
        name, _count, *args = Configure(config).encode()
        policy = Strict() if borrow is None else Borrow(borrow)
        reserve_after_us = round(config.reserve_after_seconds * 1e6)
        expect = lambda: self.model.configure(policy, reserve_after_us, losses)  # noqa: E731
        self.batch(self.a_member(pick), ((name, *args), expect))

    def set_state(self, pick: int, state: str) -> None:
        def expect() -> Any:
            self.model.state = state
            return ["set"]

        self.batch(self.a_member(pick), (("set_state", state), expect))

    def time_passes(self, us: int, beats: bool, ttl_us: int, then: int) -> None:
        self.model.server_us += us
        self.pool.pass_time(us / 1e6)
        for member in [*self.model.members] if beats else []:
            if member in self.model.listeners.deaf and us != 1:
                continue  # a process that ended does not beat, as a rule
            self.pool.beat(member, ttl_us)
            self.model.heartbeat(member, ttl_us)
        self.batch(self.a_member(then))

    def an_hour_passes(self, delta: int, then: int) -> None:
        for member in list(self.model.members):
            self.pool.beat(member, 3 * HOUR_US)
            self.model.heartbeat(member, 3 * HOUR_US)
        self.time_passes(HOUR_US + delta, beats=False, ttl_us=0, then=then)

    def the_servers_clock_steps_back(self, us: int, then: int) -> None:
        self.model.server_us -= us
        self.pool.pass_time(-us / 1e6)
        self.batch(self.a_member(then))

    def leave(self, pick: int) -> None:
        member = self.a_member(pick)
        self.batch(member, (("leave",), lambda: self.model.leave(member)))

    def the_last_batch_comes_again(self, pick: int) -> None:
        member = self.a_member(pick)
        kept = self.pool.client.hget(self.pool.keys["meta"], f"@{member}")
        if member in self.model.members and kept is not None:
            number, _, reply = kept.partition(b" ")
            repeated = self.pool.run("tasks/batch", member, int(number), "leave", 0)
            assert json.loads(repeated) == json.loads(reply)
            assert self.pool.woken() == []
            self.compare()


def test_the_pool_does_what_the_model_does_on_a_real_server(redis_url: str) -> None:
    with open_sync(parse_url(redis_url)) as client:
        explore("pool on a real server", TaskPoolMachine, client, 10_000 if LONG else 50)


def test_the_pool_does_what_the_model_does_on_fakeredis() -> None:
    with fakeredis.FakeRedis(version=(7, 0)) as client:
        explore("pool on fakeredis", TaskPoolMachine, client, 1_000 if LONG else 12)
