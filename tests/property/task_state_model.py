"""The state of the reference model of a task pool, and who may go in it: plain, slow and obvious.

From design 04 and ADR 0009 alone.
It keeps no ledger and no lines: what is out, who waits and who is
first are worked out anew from tasks and leases each time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

from forebay.contracts.identity import TaskGroupKey, TaskGroupKind
from tests.property.member_model import Listeners
from tests.property.task_policy_model import Amounts, Borrow, Head, Strict, Verdict

HOUR_US: Final = 3600 * 1_000_000
RESERVE_AFTER_US: Final = 5_000_000

Place = Literal["ready", "delayed", "parked", "running", "unserved", "suspect"]


def group_key(name: str) -> TaskGroupKey:
    return TaskGroupKey(kind=TaskGroupKind.LOCAL, identity=(name,))


def fits(amounts: Amounts, available: Amounts) -> bool:
    """Whether all amounts are free at once."""
    return all(amount <= available.get(name, 0) for name, amount in amounts.items())


def full_name(name: str) -> str:
    return str(group_key(name))


@dataclass(slots=True, kw_only=True)
class Task:
    """A task that is not finished."""

    task_id: str
    group: str
    amounts: Amounts
    arrival: int
    place: Place
    score: int
    tries: int = 0
    available_us: int = 0
    has_payload: bool = True
    function: str = ""
    lost_with: list[str] = field(default_factory=list)
    was_alone: bool = False

    @property
    def signature(self) -> str:
        return ",".join(f"{name}={amount}" for name, amount in sorted(self.amounts.items()))


@dataclass(slots=True)
class Group:
    """A group's weight, limit and place in line; no tag before its first turn."""

    weight: float = 1.0
    limit: int | None = None
    tag: float | None = None
    place: int = 0
    touched_us: int = 0
    debt: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True, kw_only=True)
class Lease:
    """A task that runs."""

    lease_id: str
    member: str
    task: Task
    acquired_us: int

    @property
    def terms(self) -> list[str]:
        """What its member is told of it."""
        task = self.task
        score, tries = str(task.score), str(task.tries + 1)
        return [
            self.lease_id,
            task.task_id,
            task.signature,
            str(self.acquired_us),
            score,
            tries,
        ]


@dataclass(slots=True)
class Pushes:
    """Tasks that a member was given unasked: how many, and which it may not know of."""

    count: int = 0
    unseen: list[str] = field(default_factory=list)


@dataclass(slots=True)
class PoolState:
    """What a pool holds, and what follows from it at an instant.

    Attributes:
        server_us: the server's clock, which the test moves.
        limits: of each resource.
        listeners: who is listened to.
        caller: whose call this is.
        state: "" for open, "paused" or "draining".
        policy: that decides.
        served: the functions that each member serves.
        draining: a member that is given nothing until it is empty, as a task waits to run alone.
        first: the task that stands first without fitting, and since when.
        put_off: tasks that were delayed in this call.
    """

    server_us: int
    now_us: int = 0
    last_us: int | None = None
    virtual_time: float = 0.0
    places: int = 0
    admissions: int = 0
    limits: dict[str, int] = field(default_factory=dict)
    members: dict[str, int] = field(default_factory=dict)
    listeners: Listeners = field(default_factory=Listeners)
    caller: str = ""
    tasks: dict[str, Task] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    finished: dict[str, str] = field(default_factory=dict)
    idle: dict[str, int] = field(default_factory=dict)
    pushes: dict[str, Pushes] = field(default_factory=dict)
    put_off: list[Task] = field(default_factory=list)
    state: str = ""
    policy: Strict | Borrow = field(default_factory=Strict)
    reserve_after_us: int = RESERVE_AFTER_US
    max_losses: int = 3
    served: dict[str, set[str]] = field(default_factory=dict)
    draining: str = ""
    first: tuple[str, int] | None = None

    # -- worked out anew

    def tasks_at(self, place: Place) -> list[Task]:
        """Tasks in one place, in order of arrival."""
        found = [task for task in self.tasks.values() if task.place == place]
        return sorted(found, key=lambda task: task.arrival)

    def waiting(self) -> list[Task]:
        """Tasks that are due and wait for a member."""
        places: tuple[Place, ...] = ("ready", "unserved", "suspect")
        return [task for place in places for task in self.tasks_at(place)]

    def ready_of(self, group: str) -> list[Task]:
        return [task for task in self.tasks_at("ready") if task.group == group]

    def running_of(self, group: str) -> list[Task]:
        return [lease.task for lease in self.leases.values() if lease.task.group == group]

    def out(self) -> Counter[str]:
        return sum((Counter(lease.task.amounts) for lease in self.leases.values()), Counter())

    def heads(self) -> list[Task]:
        """The first task of each group that waits, in order."""
        heads = {task.group: task for task in reversed(self.tasks_at("ready"))}
        return sorted(heads.values(), key=lambda task: self._order(task.group))

    def _order(self, name: str) -> tuple[str, int]:
        group = self.groups[name]
        assert group.tag is not None
        return (f"{group.tag:024.9f}", group.place)

    def exceeds_limits(self, amounts: Amounts) -> bool:
        return any(amount > self.limits.get(name, 0) for name, amount in amounts.items())

    def left(self) -> dict[str, int]:
        out = self.out()
        return {name: limit - out[name] for name, limit in self.limits.items()}

    def kept(self) -> Amounts:
        """What is kept for who has stood first without fitting for long."""
        if self.first is None:
            return {}
        task_id, since_us = self.first
        amounts = self.tasks[task_id].amounts
        is_long = self.now_us - since_us >= self.reserve_after_us
        return amounts if is_long and not fits(amounts, self.left()) else {}

    def available(self) -> dict[str, int]:
        kept = self.kept()
        return {name: left - kept.get(name, 0) for name, left in self.left().items()}

    def is_idle(self, name: str) -> bool:
        """Whether a group is forgotten: nothing of it for more than an hour."""
        is_busy = any(task.group == name for task in self.tasks.values())
        return not is_busy and self.now_us - self.groups[name].touched_us > HOUR_US

    # -- what a policy sees

    def as_head(self, task: Task) -> Head:
        """Return a group's first task as a policy looks at it."""
        group, running = self.groups[task.group], self.running_of(task.group)
        return Head(
            group=full_name(task.group),
            asks=task.amounts,
            weight=group.weight,
            limit=group.limit,
            running=len(running),
            out=sum((Counter(other.amounts) for other in running), Counter()),
            debt=group.debt,
        )

    def serves(self, member: str | None, function: str) -> bool:
        """Whether a member serves a function; without a member, whether any does."""
        by = self.members if member is None else [member]
        return not function or any(function in self.served.get(name, ()) for name in by)

    def _fitting(self, available: Amounts, member: str | None) -> list[Task]:
        return [
            task
            for task in self.heads()
            if fits(task.amounts, available) and self.serves(member, task.function)
        ]

    def fitting_heads(self, available: Amounts, member: str | None) -> list[Head]:
        """First tasks that fit and a member serves, as a policy looks at them, in order."""
        return [self.as_head(task) for task in self._fitting(available, member)]

    def verdicts(self, available: Amounts, member: str | None) -> list[tuple[Task, Verdict]]:
        """What the policy says of heads that fit and a member serves, in order."""
        tasks = self._fitting(available, member)
        heads = [self.as_head(task) for task in tasks]
        looked_at = self.policy.considered(heads)
        return [
            (task, self.policy.verdict(head, heads, self.limits))
            for task, head in zip(tasks, looked_at, strict=False)
        ]
