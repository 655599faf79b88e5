"""Inputs, decisions and settings of task admission policies (design 02; design 04, *Policies*)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from forebay.contracts.identity import (
    SchedulerResourceKey,
    TaskGroupKey,
    TaskGroupKind,
    TaskGroupSpec,
)
from forebay.contracts.settings import Cap, GivenSettings, PositiveSeconds
from forebay.contracts.tasks import Amounts, TaskDenialReason

Units = Annotated[int, Field(strict=True, ge=0)]
MOST_CONSIDERED: Final = 32
"""First tasks that a policy evaluates for each task that is admitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """The waiting groups of a pool, an input of a policy.

    Attributes:
        queued_total: ready tasks.
        queued_by_group: ready tasks of each group.
        demand_by_group: what the ready tasks of each group ask for, together.
        groups: weight and limit of each group that waits, by name.
        first_candidates: what the first task of each group asks for.
        considered: the groups whose first tasks fit and are looked at, in order: at most 32.
        peer_demand: how many groups' first tasks fit now and want a resource.
    """

    queued_total: int
    queued_by_group: Mapping[str, int]
    demand_by_group: Mapping[str, Amounts]
    groups: Mapping[str, TaskGroupSpec]
    first_candidates: Mapping[str, Amounts]
    considered: tuple[str, ...]
    peer_demand: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAdmissionView:
    """A pool's ledger and policy state, as a policy sees it.

    Attributes:
        limits: of each resource.
        available: what may be taken of each resource now, beside what is kept for who has stood
            first without fitting.
        leased: what is out of each resource.
        leased_by_group: what each group has out.
        running_by_group: tasks that each group runs.
        debt_by_group: what each group owes, under the policy that borrows.
    """

    limits: Amounts
    available: Amounts
    leased: Amounts
    leased_by_group: Mapping[str, Amounts]
    running_by_group: Mapping[str, int]
    debt_by_group: Mapping[str, Amounts]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAdmissionPolicyDecision:
    """A policy's decision about one task.

    Attributes:
        allowed: whether it may start.
        reason: why not.
        available_at: when that may change; None if unknown.
        diagnostics: JSON-compatible details; of an allowed one, ``borrowed`` by resource.
    """

    allowed: bool
    reason: TaskDenialReason | None = None
    available_at: float | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStateDelta:
    """The change of a policy's state at the begin or end of a lease.

    Attributes:
        debt_by_group: what is added to each group's debts; what would fall below 0 ends at 0.
        counters: diagnostic counts.
    """

    debt_by_group: Mapping[str, Amounts] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)


class DebtCeiling(GivenSettings):
    """The most that one group may owe of one resource.

    Attributes:
        kind: the kind in the group's key.
        identity: the identity in the group's key.
        resource: the resource that the group borrows.
        units: the most units that the group may owe of it.

    Raises:
        ConfigurationError: a field that there is not, or a value beyond its bounds.
    """

    kind: TaskGroupKind
    identity: tuple[str, ...]
    resource: SchedulerResourceKey
    units: Units

    @property
    def group(self) -> TaskGroupKey:
        """The key of the group whose debt is bounded."""
        return TaskGroupKey(kind=self.kind, identity=self.identity)


class BoundedBorrowTaskAdmissionPolicyConfig(GivenSettings):
    """Bounds of a group's borrowing beyond its share while no peer waits for it.

    Attributes:
        share_rounding: how a share that is no whole number is rounded; never below 1.
        ceilings: the most that single groups may owe of a resource.
        default_ceiling: of everybody else; None makes it dynamic: the limit, less the reserve, less
            the group's share.
        ceiling_reserve: units of each limit that a dynamic ceiling leaves alone.

    Raises:
        ConfigurationError: a field that there is not, or a value beyond its bounds.
    """

    share_rounding: Literal["up", "down"] = "up"
    ceilings: tuple[DebtCeiling, ...] = ()
    default_ceiling: Units | None = None
    ceiling_reserve: Units = 0


class TaskAdmissionConfig(GivenSettings):
    """A pool's settings for admission: policy, reservation and events.

    Attributes:
        submission_capacity: tasks that may run at once in the whole pool.
        resource_limits: units of each other resource.
        borrow: the policy that borrows; None is the strict one.
        reserve_after_seconds: how long a task stands first without fitting before what comes free
            of its resources is kept for it.
        max_losses: after as many losses with a member that died a task fails as ``worker_lost``.
        events: ``full`` also writes the events of each task, not transitions alone.

    Raises:
        ConfigurationError: a field that there is not, or a value beyond its bounds.

    Example:
        >>> config = forebay.TaskAdmissionConfig(resource_limits={"gpu": 4})
        >>> config.submission_capacity
        10000
    """

    submission_capacity: Cap = 10_000
    resource_limits: dict[SchedulerResourceKey, Cap] = Field(default_factory=dict)
    borrow: BoundedBorrowTaskAdmissionPolicyConfig | None = None
    reserve_after_seconds: PositiveSeconds = 5.0
    max_losses: Annotated[int, Field(strict=True, ge=1, le=100)] = 3
    events: Literal["transitions", "full"] = "transitions"
