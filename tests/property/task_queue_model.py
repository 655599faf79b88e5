"""The queue of the reference model: what time does, who goes, who is told.

Rules: design 04, *The queue*, ADR 0009.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.property.task_policy_model import Amounts
from tests.property.task_state_model import Group, Lease, PoolState, Task, fits

Result = list[Any]
Notice = list[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A task that is to go, and what its group borrows for it."""

    task: Task
    borrows: Amounts


@dataclass(slots=True)
class PoolQueue(PoolState):
    """A pool without the operations that callers ask for."""

    # -- time and members (design 06)

    def read_clock(self) -> int:
        if self.last_us is None:
            return self.server_us
        return self.now_us + max(0, self.server_us - self.last_us)

    def _flow(self) -> int:
        """Let time pass; returns how long the shard had heard of nobody."""
        before_us, self.now_us = self.now_us, self.read_clock()
        is_first, self.last_us = self.last_us is None, self.server_us
        return 0 if is_first else self.now_us - before_us

    def join(self, member: str, ttl_us: int) -> None:
        silent_us = self._flow()
        self.members[member] = self.now_us + ttl_us
        self.listeners.beat(member, ttl_us, self.now_us, silent_us)

    def confirm(self, member: str, ttl_us: int) -> str:
        """Answer a member that connects again: it still is one, or its membership has expired."""
        if self.members.get(member, 0) <= self.read_clock():
            return "expired"
        self.heartbeat(member, ttl_us)
        return "member"

    def heartbeat(self, member: str, ttl_us: int) -> None:
        if self.members.get(member, 0) > self.read_clock():
            silent_us = self._flow()
            self.members[member] = self.now_us + ttl_us
            self.listeners.beat(member, ttl_us, self.now_us, silent_us)

    def _end_member(self, member: str, why: str) -> None:
        """Its tasks go back; each counts a loss, which is no try."""
        self.members.pop(member, None)
        self.listeners.forget(member)
        self.idle.pop(member, None)
        self.served.pop(member, None)
        self.pushes.pop(member, None)
        self.draining = "" if self.draining == member else self.draining
        held = [lease for lease in self.leases.values() if lease.member == member]
        for lease in sorted(held, key=lambda lease: lease.lease_id):
            self._end(lease, "expired")
            if why == "left":
                lease.task.tries += 1
            else:
                lease.task.lost_with.append(member)
            self._put_back(lease.task, self.now_us, lease.task.tries)

    def begin(self, caller: str) -> None:
        """What time alone did."""
        silent_us, self.caller = self._flow(), caller
        self.put_off = []
        self.listeners.suspects.pop(caller, None)
        self.listeners.call(caller, self.now_us, silent_us)
        for member, why in self.listeners.looked_at(self.members, caller, self.now_us):
            if why:
                self._end_member(member, why)
        due = [task for task in self.tasks_at("delayed") if task.available_us <= self.now_us]
        for task in sorted(due, key=lambda task: (task.available_us, task.task_id)):
            self._enqueue(task)
        self._park_and_unpark()

    def end(self, caller: str) -> dict[str, list[Notice]]:
        """What became possible by a call; returns what members are told."""
        self._sort_by_service()
        self._park_and_unpark()
        self._note_first()
        told = {member: [notice] for member, notice in self._wake_idle().items()}
        for member, notice in self._tell_due(caller).items():
            told.setdefault(member, []).append(notice)
        return told

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
        group.touched_us = self.now_us
        if task.lost_with:
            task.place = "suspect"
            return
        if not self.serves(None, task.function):
            task.place = "unserved"
            return
        task.place = "ready"
        group.touched_us = self.now_us
        if is_first:
            group.tag = self.virtual_time if group.tag is None else group.tag
            group.place = self._next_place()

    def _put_back(self, task: Task, available_us: int, tries: int) -> None:
        task.tries, task.available_us = tries, available_us
        task.score = (available_us - self.now_us + self.server_us) // 1000
        if available_us > self.now_us:
            task.place = "delayed"
            self.put_off.append(task)
            self._group(task.group).touched_us = self.now_us
        else:
            self._enqueue(task)

    def _sort_by_service(self) -> None:
        """What nobody serves holds up nobody of its group; what somebody serves is ready."""
        while unserved := [task for task in self.heads() if not self.serves(None, task.function)]:
            for task in unserved:
                self._is_first_no_more(task)
                task.place = "unserved"
                self._group(task.group).touched_us = self.now_us
        back = [task for task in self.tasks_at("unserved") if self.serves(None, task.function)]
        for task in sorted(back, key=lambda task: (task.function, task.arrival)):
            self._enqueue(task)

    # -- suspects (losses): one at a time per member, the last time alone

    def runs_alone(self, task: Task) -> bool:
        return self.max_losses - 1 <= len(task.lost_with) < self.max_losses

    def _held_by(self, member: str) -> list[Task]:
        return [lease.task for lease in self.leases.values() if lease.member == member]

    def _is_given_nothing(self, member: str) -> bool:
        held = self._held_by(member)
        runs_alone = any(task.lost_with and task.was_alone for task in held)
        return runs_alone or (self.draining == member and bool(held))

    def _may_take(self, member: str, task: Task) -> bool:
        if not self.serves(member, task.function):
            return False
        if len(task.lost_with) >= self.max_losses:
            return True  # only to be ended
        held = self._held_by(member)
        runs_suspect = any(other.lost_with for other in held)
        return not runs_suspect and not (self.runs_alone(task) and held)

    def _note_draining(self, member: str) -> None:
        waits = any(
            self.runs_alone(task) and self.serves(member, task.function)
            for task in self.tasks_at("suspect")[:32]
        )
        held = self._held_by(member)
        if not waits:
            self.draining = "" if self.draining == member else self.draining
        elif not self.draining and held and not any(task.lost_with for task in held):
            self.draining = member

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

    def _choose(self, hints: set[str], member: str | None) -> Granted | None:
        """The first in order that fits and that the policy lets go; hinted ones last.

        Before all others goes a suspect that the member may run.
        """
        if self.state == "paused":
            return None
        if member is not None:
            if self._is_given_nothing(member):
                return None
            for task in self.tasks_at("suspect")[:32]:
                is_over = len(task.lost_with) >= self.max_losses
                if self._may_take(member, task) and (
                    is_over or fits(task.amounts, self.available())
                ):
                    return Granted(task=task, borrows={})
        allowed = [
            Granted(task=task, borrows=verdict.borrows)
            for task, verdict in self.verdicts(self.available(), member)
            if verdict.may_go
        ]
        first = [granted for granted in allowed if not hints & granted.task.amounts.keys()]
        found = next(iter([*first, *allowed]), None)
        if found is None and member is not None and self._choose(set(), None) is not None:
            return self._behind(member)
        return found

    def _behind(self, member: str) -> Granted | None:
        """What a member serves behind the first tasks of groups that it does not serve."""
        unserved = [task for task in self.heads() if not self.serves(member, task.function)]
        served = self.fitting_heads(self.available(), member)
        for head in unserved[:8]:
            for task in self.ready_of(head.group)[1:65]:
                if self.serves(member, task.function) and fits(task.amounts, self.available()):
                    verdict = self.policy.verdict(self.as_head(task), served, self.limits)
                    if verdict.may_go:
                        return Granted(task=task, borrows=verdict.borrows)
                    break
        return None

    def _may_go(self, task: Task) -> bool:
        """Whether the policy would let a first task go if what it lacks were free."""
        free = {name: max(left, task.amounts.get(name, 0)) for name, left in self.left().items()}
        beside = [self.as_head(other) for other in self.heads() if fits(other.amounts, free)]
        return self.policy.verdict(self.as_head(task), beside, self.limits).may_go

    def _note_first(self) -> None:
        """The first in order that the policy would let go, if it does not fit."""
        heads = [] if self.state == "paused" else self.heads()
        looked_at = self.policy.considered([self.as_head(task) for task in heads])
        first = next((task for task in heads[: len(looked_at)] if self._may_go(task)), None)
        if first is not None and fits(first.amounts, self.left()):
            first = None
        if first is None:
            self.first = None
        elif self.first is None or self.first[0] != first.task_id:
            self.first = (first.task_id, self.now_us)

    def _is_first_no_more(self, task: Task) -> None:
        if self.first is not None and self.first[0] == task.task_id:
            self.first = None

    def _wake_idle(self) -> dict[str, Notice]:
        suspects = len(self.tasks_at("suspect"))
        ready = wanted = len(self.tasks_at("ready")) + suspects
        if not suspects and self._choose(set(), None) is None:
            return {}
        ranked = sorted(self.idle.items(), key=lambda item: (item[1], item[0]), reverse=True)
        woken: dict[str, Notice] = {}
        for member, slots in ranked:
            granted = self._choose(set(), member)
            if wanted <= 0 or slots <= 0 or granted is None:
                continue
            if not self.listeners.is_present(member, self.caller, self.now_us):
                del self.idle[member]  # it asks anew once it is listened to again
                continue
            task = granted.task
            if ready == 1 and not task.lost_with and member in self.pushes and task.has_payload:
                return self._push(granted, member)
            woken[member] = ["work"]
            del self.idle[member]
            wanted -= slots
        return woken

    def _tell_due(self, caller: str) -> dict[str, Notice]:
        """Idle members are told when a task that was just put off is the first to be due."""
        delayed = sorted(self.tasks_at("delayed"), key=lambda t: (t.available_us, t.task_id))
        if not delayed or delayed[0] not in self.put_off:
            return {}
        idle = {member for member, slots in self.idle.items() if slots > 0}
        return {member: ["due", delayed[0].available_us] for member in idle - {caller}}

    def _push(self, granted: Granted, member: str) -> dict[str, Notice]:
        """The only ready task goes to an idle member with the word that wakes it."""
        self._is_first_no_more(granted.task)
        lease = self._grant(member, granted)
        self.idle[member] -= 1
        pushes = self.pushes[member]
        pushes.count += 1
        pushes.unseen.append(lease.lease_id)
        return {member: ["task", pushes.count, lease.terms]}

    # -- leases

    def _grant(self, member: str, granted: Granted) -> Lease:
        task = granted.task
        group = self._group(task.group)
        self.virtual_time = max(self.virtual_time, group.tag or 0.0)
        group.tag = self.virtual_time + 1 / group.weight
        group.place, group.touched_us = self._next_place(), self.now_us
        task.was_alone = self.runs_alone(task)
        if task.was_alone and self.draining == member:
            self.draining = ""
        task.place = "running"
        self.admissions += 1
        lease = Lease(
            lease_id=f"{task.task_id}~{self.admissions}",
            member=member,
            task=task,
            acquired_us=self.now_us,
        )
        self.leases[lease.lease_id] = lease
        group.debt.update(granted.borrows)
        return lease

    def _end(self, lease: Lease, how: str) -> None:
        del self.leases[lease.lease_id]
        self.finished[lease.lease_id] = how
        if how == "released" and lease.member in self.idle:
            self.idle[lease.member] += 1
        group = self._group(lease.task.group)
        group.touched_us = self.now_us
        for resource, amount in lease.task.amounts.items():  # any lease that ends repays
            group.debt[resource] = max(0, group.debt[resource] - amount)
