"""A reference model of one task pool, plain, slow and obvious.

From design 04, design 06 and ADR 0009 alone.

It does not bound the work of a call, so whoever compares stays below the bounds of one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tests.property.task_policy_model import Amounts, Borrow, Strict
from tests.property.task_queue_model import PoolQueue, Result
from tests.property.task_state_model import Lease, Pushes, Task

MINUTE_US = 60_000_000


@dataclass(slots=True)
class PoolModel(PoolQueue):
    """One pool as the design describes it."""

    def submit(
        self,
        task_id: str,
        group: str,
        weight: float,
        limit: int | None,
        amounts: Amounts,
        instant_us: int | None,
        function: str = "",
    ) -> Result:
        known = self.tasks.get(task_id)
        if known is not None and (known.has_payload or known.place == "running"):
            return ["known"]
        if self.state == "draining":
            return ["refused", "shutdown", ""]
        for name, amount in sorted(amounts.items()):
            if name not in self.limits:
                return ["refused", "unknown_resource", name]
            if amount > self.limits[name] > 0:
                return ["refused", "never_fits", name]
        self.discard(task_id)
        named = self._group(group)
        named.weight, named.limit = weight, limit
        task = Task(
            task_id=task_id,
            group=group,
            amounts=amounts,
            arrival=self._next_place(),
            place="delayed",
            score=0,
            function=function,
        )
        self.tasks[task_id] = task
        if instant_us is None:
            self._put_back(task, self.now_us, 0)
        else:  # of the server's clock, which may have stepped back
            self._put_back(task, self.now_us + instant_us - self.server_us, 0)
            task.score = (instant_us + 500) // 1000
        return ["accepted"] if self.serves(None, function) else ["accepted", "not_served"]

    def serve(self, member: str, functions: set[str]) -> Result:
        self.served.setdefault(member, set()).update(functions)
        self._sort_by_service()
        return ["served"]

    def admit(
        self, member: str, slots: int, hints: set[str], seen: int | None
    ) -> tuple[list[Result], list[Result], list[str], list[list[str]]]:
        """Return terms of leases, of pushed ones, tasks that had expired and that were lost."""
        unseen = self._unseen(member, seen)
        slots -= len(unseen)
        leases: list[Lease] = []
        expired, lost = [], []
        self._note_draining(member)
        while len(leases) < slots and (granted := self._choose(hints, member)):
            self._is_first_no_more(granted.task)
            task, is_lost = granted.task, len(granted.task.lost_with) >= self.max_losses
            if is_lost or not task.has_payload:
                if is_lost:
                    lost.append([task.task_id, ",".join(task.lost_with)])
                else:
                    expired.append(task.task_id)
                self._put_back(task, self.now_us + MINUTE_US, task.tries)
                continue
            leases.append(self._grant(member, granted))
        if len(leases) < slots:
            self.idle[member] = slots - len(leases)
        else:
            self.idle.pop(member, None)
        return [lease.terms for lease in leases], unseen, expired, lost

    def _unseen(self, member: str, seen: int | None) -> list[Result]:
        """Pushed tasks that the member has not seen, by their numbers."""
        if seen is None:
            return []
        pushes = self.pushes.setdefault(member, Pushes())
        pushes.count = max(pushes.count, seen)
        pushes.unseen = pushes.unseen[max(0, len(pushes.unseen) - (pushes.count - seen)) :]
        first = pushes.count - len(pushes.unseen) + 1
        return [
            [number, self.leases[lease_id].terms]
            for number, lease_id in enumerate(pushes.unseen, first)
            if lease_id in self.leases
        ]

    def _own(self, member: str, lease_id: str) -> Lease | Result:
        lease = self.leases.get(lease_id)
        if lease is not None:
            return lease if lease.member == member else ["stale_lease"]
        known = {"released": ["duplicate"], "expired": ["stale_lease"]}
        return known.get(self.finished.get(lease_id, ""), ["unknown_lease"])

    def finish(self, member: str, lease_id: str) -> Result:
        lease = self._own(member, lease_id)
        if not isinstance(lease, Lease):
            return lease
        self._end(lease, "released")
        del self.tasks[lease.task.task_id]
        return ["released"]

    def retry(self, member: str, lease_id: str, delay_us: int, counts: int) -> Result:
        lease = self._own(member, lease_id)
        if not isinstance(lease, Lease):
            return lease
        self._end(lease, "released")
        task = lease.task
        if counts == 0:  # a try: it ended once, and its member lives
            task.lost_with = []
        elif counts == 2:  # a loss
            task.lost_with.append(member)
        self._put_back(task, self.now_us + delay_us, task.tries + (counts == 0))
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

    def expire(self, task_id: str) -> Result:
        task = self.tasks.get(task_id)
        return ["unknown"] if task is None or task.has_payload else self.discard(task_id)

    def fail_lost(self, task_id: str) -> Result:
        task = self.tasks.get(task_id)
        is_lost = task is not None and len(task.lost_with) >= self.max_losses
        return self.discard(task_id) if is_lost else ["unknown"]

    def claim(self, resource: str, limit: int) -> Result:
        self.limits[resource] = limit
        return ["claimed", limit]

    def configure(self, policy: Strict | Borrow, reserve_after_us: int, max_losses: int) -> Result:
        self.max_losses = max_losses
        if type(policy) is not type(self.policy):
            for group in self.groups.values():
                group.debt = Counter()
        self.policy, self.reserve_after_us = policy, reserve_after_us
        return ["set"]

    def leave(self, member: str) -> Result:
        self._end_member(member, "left")
        return ["left"]

    @property
    def next_wake_us(self) -> int:
        if not self.tasks:
            return 0
        ahead = [
            *self.listeners.look_at_us.values(),
            *(t.available_us for t in self.tasks_at("delayed")),
        ]
        return min(ahead, default=0)
