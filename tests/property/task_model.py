"""A reference model of one task pool, from spec 04 and 06 and ADR 0009: plain, slow and obvious.

It does not bound the work of a call, so whoever compares stays below the bounds of one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from contracts.task_policies import PolicyStateDelta, TaskAdmissionPolicyDecision
from contracts.tasks import Amounts
from coordinator.tasks.policies import BoundedBorrowTaskAdmissionPolicy, TaskAdmissionPolicy, fits
from tests.property.task_state_model import Group, Lease, PoolState, Task, full_name

Result = list[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A task that is to go, and what its policy said."""

    task: Task
    decision: TaskAdmissionPolicyDecision


@dataclass(slots=True)
class PoolModel(PoolState):
    """One pool as the spec describes it."""

    # -- time and members (spec 06)

    def read_clock(self) -> int:
        if self.last_us is None:
            return self.server_us
        return self.now_us + max(0, self.server_us - self.last_us)

    def _flow(self) -> None:
        self.now_us, self.last_us = self.read_clock(), self.server_us

    def join(self, member: str, ttl_us: int) -> None:
        self._flow()
        self.members[member] = self.now_us + ttl_us

    def heartbeat(self, member: str, ttl_us: int) -> None:
        if self.members.get(member, 0) > self.read_clock():
            self._flow()
            self.members[member] = self.now_us + ttl_us

    def _end_member(self, member: str) -> None:
        self.members.pop(member, None)
        self.idle.pop(member, None)
        held = [lease for lease in self.leases.values() if lease.member == member]
        for lease in sorted(held, key=lambda lease: lease.lease_id):
            self._end(lease, "expired")
            self._put_back(lease.task, self.now_us, lease.task.tries + 1)

    def begin(self) -> None:
        """What time alone did."""
        self._flow()
        for member, expiry in sorted(self.members.items(), key=lambda item: (item[1], item[0])):
            if expiry <= self.now_us:
                self._end_member(member)
        due = [task for task in self.tasks_at("delayed") if task.available_us <= self.now_us]
        for task in sorted(due, key=lambda task: (task.available_us, task.task_id)):
            self._enqueue(task)
        self._park_and_unpark()

    def end(self) -> list[str]:
        """What became possible by a call; returns the members that are woken."""
        self._park_and_unpark()
        self._note_first()
        return self._wake_idle()

    # -- the queue

    def _group(self, name: str) -> Group:
        group = self.groups.setdefault(name, Group(touched_us=self.now_us))
        if self.is_idle(name):
            group.tag = None
        return group

    def _next_place(self) -> int:
        self.places += 1
        return self.places

    def _enqueue(self, task: Task) -> None:
        group, is_first = self._group(task.group), not self.ready_of(task.group)
        task.place = "ready"
        group.touched_us = self.now_us
        if is_first:
            group.tag = self.virtual_time if group.tag is None else group.tag
            group.place = self._next_place()

    def _put_back(self, task: Task, available_us: int, tries: int) -> None:
        task.tries, task.score, task.available_us = tries, available_us // 1000, available_us
        if available_us > self.now_us:
            task.place = "delayed"
            self._group(task.group).touched_us = self.now_us
        else:
            self._enqueue(task)

    def _park_and_unpark(self) -> None:
        while stuck := [task for task in self.heads() if self.exceeds_limits(task.amounts)]:
            for task in stuck:
                self._is_first_no_more(task)
                task.place = "parked"
                self._group(task.group).touched_us = self.now_us
        parked = [t for t in self.tasks_at("parked") if not self.exceeds_limits(t.amounts)]
        for task in sorted(parked, key=lambda t: (t.signature, t.arrival)):
            self._enqueue(task)

    # -- who goes

    def _choose(self, hints: set[str]) -> Granted | None:
        """The first in order that fits and that the policy lets go; hinted ones last."""
        if self.state == "paused":
            return None
        queue, admission = self.queue_view(), self.admission_view()
        allowed = []
        for task in self.heads():
            if full_name(task.group) in queue.considered or not self._borrows:
                if not fits(task.amounts, admission.available):
                    continue
                decision = self.policy.evaluate(self.item(task), queue, admission)
                if decision.allowed:
                    allowed.append(Granted(task=task, decision=decision))
        first = [granted for granted in allowed if not hints & granted.task.amounts.keys()]
        return next(iter([*first, *allowed]), None)

    @property
    def _borrows(self) -> bool:
        return isinstance(self.policy, BoundedBorrowTaskAdmissionPolicy)

    def _apply(self, delta: PolicyStateDelta) -> None:
        for name, group in self.groups.items():
            for resource, amount in delta.debt_by_group.get(full_name(name), {}).items():
                group.debt[resource] = max(0, group.debt[resource] + amount)

    def _note_first(self) -> None:
        below = [
            task
            for task in self.heads()
            if (limit := self.groups[task.group].limit) is None
            or len(self.running_of(task.group)) < limit
        ]
        first = below[0] if below and self.state != "paused" else None
        if first is not None:
            owes = any(self.groups[first.group].debt[name] for name in first.amounts)
            if fits(first.amounts, self.left()) or owes:
                first = None
        if first is None:
            self.first = None
        elif self.first is None or self.first[0] != first.task_id:
            self.first = (first.task_id, self.now_us)

    def _is_first_no_more(self, task: Task) -> None:
        if self.first is not None and self.first[0] == task.task_id:
            self.first = None

    def _wake_idle(self) -> list[str]:
        wanted = len(self.tasks_at("ready"))
        if not wanted or self._choose(set()) is None:
            return []
        woken = []
        ranked = sorted(self.idle.items(), key=lambda item: (item[1], item[0]), reverse=True)
        for member, slots in ranked:
            if wanted <= 0:
                break
            if slots > 0:
                woken.append(member)
                del self.idle[member]
                wanted -= slots
        return woken

    # -- operations

    def submit(
        self,
        task_id: str,
        group: str,
        weight: float,
        limit: int | None,
        amounts: Amounts,
        delay: int,
    ) -> Result:
        if task_id in self.tasks:
            return ["known"]
        if self.state == "draining":
            return ["refused", "shutdown", ""]
        for name, amount in sorted(amounts.items()):
            if self.limits.get(name, 0) == 0:
                return ["refused", "unknown_resource", name]
            if amount > self.limits[name]:
                return ["refused", "never_fits", name]
        named = self._group(group)
        named.weight, named.limit = weight, limit
        task = Task(
            task_id=task_id,
            group=group,
            amounts=amounts,
            arrival=self._next_place(),
            place="delayed",
            score=0,
        )
        self.tasks[task_id] = task
        self._put_back(task, self.now_us + delay, 0)
        return ["accepted"]

    def admit(self, member: str, slots: int, hints: set[str]) -> tuple[list[Result], list[str]]:
        """Return the terms of the leases, and the tasks whose payload had expired."""
        leases: list[Result] = []
        expired = []
        while len(leases) < slots and (granted := self._choose(hints)):
            self._is_first_no_more(granted.task)
            if not granted.task.has_payload:
                expired.append(granted.task.task_id)
                del self.tasks[granted.task.task_id]
                continue
            leases.append(self._grant(member, granted))
        if len(leases) < slots:
            self.idle[member] = slots - len(leases)
        else:
            self.idle.pop(member, None)
        return leases, expired

    def _grant(self, member: str, granted: Granted) -> Result:
        task = granted.task
        delta = self.policy.on_acquire(self.item(task), granted.decision)
        group = self._group(task.group)
        self.virtual_time = max(self.virtual_time, group.tag or 0.0)
        group.tag = self.virtual_time + 1 / group.weight
        group.place, group.touched_us = self._next_place(), self.now_us
        task.place = "running"
        self.admissions += 1
        lease = Lease(lease_id=f"{task.task_id}~{self.admissions}", member=member, task=task)
        self.leases[lease.lease_id] = lease
        self._apply(delta)
        return [
            lease.lease_id,
            task.task_id,
            task.signature,
            str(self.now_us),
            str(task.score),
            str(task.tries + 1),
        ]

    def _own(self, member: str, lease_id: str) -> Lease | Result:
        lease = self.leases.get(lease_id)
        if lease is not None:
            return lease if lease.member == member else ["stale_lease"]
        known = {"released": ["duplicate"], "expired": ["stale_lease"]}
        return known.get(self.finished.get(lease_id, ""), ["unknown_lease"])

    def _end(self, lease: Lease, how: str) -> None:
        del self.leases[lease.lease_id]
        self.finished[lease.lease_id] = how
        self._group(lease.task.group).touched_us = self.now_us
        self._apply(self.policy.on_release(self.item(lease.task)))

    def finish(self, member: str, lease_id: str) -> Result:
        lease = self._own(member, lease_id)
        if not isinstance(lease, Lease):
            return lease
        self._end(lease, "released")
        del self.tasks[lease.task.task_id]
        return ["released"]

    def retry(self, member: str, lease_id: str, delay_us: int, *, gives_back: bool) -> Result:
        lease = self._own(member, lease_id)
        if not isinstance(lease, Lease):
            return lease
        self._end(lease, "released")
        tries = lease.task.tries + (0 if gives_back else 1)
        self._put_back(lease.task, self.now_us + delay_us, tries)
        return ["released"]

    def discard(self, task_id: str) -> Result:
        task = self.tasks.get(task_id)
        if task is None or task.place == "running":
            return ["unknown"]
        self._is_first_no_more(task)
        if task.place != "ready":
            self._group(task.group).touched_us = self.now_us
        del self.tasks[task_id]
        return ["discarded"]

    def claim(self, resource: str, limit: int) -> Result:
        self.limits[resource] = limit
        return ["claimed", limit]

    def configure(self, policy: TaskAdmissionPolicy, reserve_after_us: int) -> Result:
        if type(policy) is not type(self.policy):
            for group in self.groups.values():
                group.debt = Counter()
        self.policy, self.reserve_after_us = policy, reserve_after_us
        return ["set"]

    def leave(self, member: str) -> Result:
        self._end_member(member)
        return ["left"]

    @property
    def next_wake_us(self) -> int:
        if not self.tasks:
            return 0
        ahead = [*self.members.values(), *(t.available_us for t in self.tasks_at("delayed"))]
        return min(ahead, default=0)
