"""Task admission policies as a document that runs (design 04, *Policies*; docs/adr/0009).

What decides is the script that admits (``lua/lib/tasks/strict.lua``, ``borrow.lua``). These are the
same rules over views, free of side effects; a property test holds both together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from forebay.contracts.identity import SUBMISSION, SchedulerResourceKey, TaskGroupSpec
from forebay.contracts.task_policies import (
    BoundedBorrowTaskAdmissionPolicyConfig,
    PolicyStateDelta,
    QueueView,
    TaskAdmissionPolicyDecision,
    TaskAdmissionView,
)
from forebay.contracts.tasks import Amounts, SchedulableTask, TaskDenialReason

ALLOWED = TaskAdmissionPolicyDecision(allowed=True)


class TaskAdmissionPolicy(Protocol):
    """The rule by which a task whose resources are free may start, or yields to a peer."""

    def evaluate(
        self, item: SchedulableTask, queue: QueueView, admission: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        """Say whether a first task that fits may start; changes nothing."""
        ...

    def on_acquire(
        self, item: SchedulableTask, decision: TaskAdmissionPolicyDecision
    ) -> PolicyStateDelta:
        """Return what an allowed task that starts changes in the policy's state."""
        ...

    def on_release(self, item: SchedulableTask) -> PolicyStateDelta:
        """Return what a lease that ends changes in the policy's state."""
        ...


def pressing_resources(amounts: Amounts) -> frozenset[SchedulerResourceKey]:
    """Return the resources on which a task's group presses and is pressed.

    Typed resources; ``submission`` only of a task that asks for nothing else.
    """
    typed = frozenset(amounts) - {SUBMISSION}
    return typed or frozenset(amounts)


def fits(amounts: Amounts, available: Amounts) -> bool:
    """Whether all amounts are free at once."""
    return all(amount <= available.get(resource, 0) for resource, amount in amounts.items())


def fitting_groups(queue: QueueView, admission: TaskAdmissionView) -> list[str]:
    """Return the groups whose first tasks fit now."""
    return [
        group
        for group, amounts in queue.first_candidates.items()
        if fits(amounts, admission.available)
    ]


class StrictFairTaskAdmissionPolicy:
    """A group at its ``admitted_limit`` yields to peers; without any it may go beyond."""

    def evaluate(
        self, item: SchedulableTask, queue: QueueView, admission: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        """Deny ``group_cap`` to a group at its limit while a peer presses.

        A peer is another group whose first task fits now, wants one of the item's resources and is
        below its own limit, or has none.
        """
        if self._is_below(item.group, admission):
            return ALLOWED
        wanted = pressing_resources(item.resource_request.amounts)
        for group in fitting_groups(queue, admission):
            if (
                group != str(item.group.key)
                and wanted & queue.first_candidates[group].keys()
                and self._is_below(queue.groups[group], admission)
            ):
                return TaskAdmissionPolicyDecision(
                    allowed=False,
                    reason=TaskDenialReason.GROUP_CAP,
                    diagnostics={"peer": group},
                )
        return ALLOWED

    def on_acquire(
        self,
        item: SchedulableTask,  # noqa: ARG002 - the policies' common shape
        decision: TaskAdmissionPolicyDecision,  # noqa: ARG002
    ) -> PolicyStateDelta:
        """Change nothing: this policy keeps no state."""
        return PolicyStateDelta()

    def on_release(self, item: SchedulableTask) -> PolicyStateDelta:  # noqa: ARG002
        """Change nothing."""
        return PolicyStateDelta()

    @staticmethod
    def _is_below(group: TaskGroupSpec, admission: TaskAdmissionView) -> bool:
        running = admission.running_by_group.get(str(group.key), 0)
        return group.admitted_limit is None or running < group.admitted_limit


class BoundedBorrowTaskAdmissionPolicy:
    """Shares by weight under pressure; without it, borrowing up to a ceiling.

    Args:
        config: rounding and ceilings.
    """

    def __init__(self, config: BoundedBorrowTaskAdmissionPolicyConfig) -> None:
        self._config = config
        self._ceilings = {
            (str(ceiling.group), ceiling.resource): ceiling.units for ceiling in config.ceilings
        }

    def evaluate(
        self, item: SchedulableTask, queue: QueueView, admission: TaskAdmissionView
    ) -> TaskAdmissionPolicyDecision:
        """Deny ``borrow_debt`` or ``group_cap``, or allow and say what is borrowed.

        Of each resource: under pressure a group in debt and one above its share are denied; without
        it what goes above the share is borrowed, up to the ceiling. A group without
        ``admitted_limit`` is never held back, nor one that runs nothing: groups whose first tasks
        each ask for more than a share would block one another for ever, as no lease would end. Both
        owe what they take above their share.
        """
        group, amounts = str(item.group.key), item.resource_request.amounts
        out = admission.leased_by_group.get(group, {})
        debt = admission.debt_by_group.get(group, {})
        runs_nothing = admission.running_by_group.get(group, 0) == 0
        is_let_go = runs_nothing or item.group.admitted_limit is None
        borrowed: dict[SchedulerResourceKey, int] = {}
        for resource, amount in sorted(amounts.items()):
            share = self.share(item.group, resource, queue, admission)
            owed = debt.get(resource, 0)
            over = min(amount, out.get(resource, 0) + amount - share)
            if not is_let_go and self._is_pressed(item, resource, queue, admission):
                if owed > 0:
                    return _denied(TaskDenialReason.BORROW_DEBT, resource)
                if over > 0:
                    return _denied(TaskDenialReason.GROUP_CAP, resource)
            elif over > 0:
                ceiling = self._ceiling(group, resource, share, admission)
                if not is_let_go and owed + over > ceiling:
                    return _denied(TaskDenialReason.BORROW_DEBT, resource)
                borrowed[resource] = over
        return TaskAdmissionPolicyDecision(allowed=True, diagnostics={"borrowed": borrowed})

    def on_acquire(
        self, item: SchedulableTask, decision: TaskAdmissionPolicyDecision
    ) -> PolicyStateDelta:
        """Add what was borrowed to the group's debts."""
        borrowed: Mapping[SchedulerResourceKey, int] = decision.diagnostics["borrowed"]
        return PolicyStateDelta(debt_by_group={str(item.group.key): dict(borrowed)})

    def on_release(self, item: SchedulableTask) -> PolicyStateDelta:
        """Repay the group's debts by the amounts of the lease."""
        repaid = {name: -amount for name, amount in item.resource_request.amounts.items()}
        return PolicyStateDelta(debt_by_group={str(item.group.key): repaid})

    def share(
        self,
        group: TaskGroupSpec,
        resource: SchedulerResourceKey,
        queue: QueueView,
        admission: TaskAdmissionView,
    ) -> int:
        """Return a group's strict share of a resource.

        Its weight's part of the limit among all groups whose first tasks fit now and want it; alone
        as if one equal peer existed. At least 1, at most the group's ``admitted_limit``.
        """
        own = _millionths(group.weight)
        everybody = sum(
            _millionths(queue.groups[name].weight)
            for name in fitting_groups(queue, admission)
            if resource in queue.first_candidates[name]
        )
        if everybody <= own:
            everybody = 2 * own
        part = float(admission.limits.get(resource, 0)) * own / everybody
        whole = math.floor(part) if self._config.share_rounding == "down" else math.ceil(part)
        return max(1, whole if group.admitted_limit is None else min(whole, group.admitted_limit))

    def _is_pressed(
        self,
        item: SchedulableTask,
        resource: SchedulerResourceKey,
        queue: QueueView,
        admission: TaskAdmissionView,
    ) -> bool:
        if resource not in pressing_resources(item.resource_request.amounts):
            return False
        return any(
            resource in queue.first_candidates[name]
            and self._would_pass(queue.groups[name], queue, admission)
            for name in queue.considered
            if name != str(item.group.key)
        )

    def _would_pass(
        self, group: TaskGroupSpec, queue: QueueView, admission: TaskAdmissionView
    ) -> bool:
        """Whether a peer's first task would pass in its turn on all its resources.

        A peer that would not pass holds back nobody: what it cannot take would stand idle.
        """
        if group.admitted_limit is None:
            return True
        name = str(group.key)
        out = admission.leased_by_group.get(name, {})
        owed = admission.debt_by_group.get(name, {})
        return all(
            owed.get(resource, 0) == 0
            and out.get(resource, 0) + amount <= self.share(group, resource, queue, admission)
            for resource, amount in queue.first_candidates[name].items()
        )

    def _ceiling(
        self,
        group: str,
        resource: SchedulerResourceKey,
        share: int,
        admission: TaskAdmissionView,
    ) -> int:
        explicit = self._ceilings.get((group, resource), self._config.default_ceiling)
        if explicit is not None:
            return explicit
        limit = admission.limits.get(resource, 0)
        return max(0, limit - self._config.ceiling_reserve - share)


def _denied(
    reason: TaskDenialReason, resource: SchedulerResourceKey
) -> TaskAdmissionPolicyDecision:
    return TaskAdmissionPolicyDecision(
        allowed=False, reason=reason, diagnostics={"resource": resource}
    )


def _millionths(weight: float) -> int:
    """Return a weight as an integer, so that sums are exact."""
    return math.floor(weight * 1_000_000 + 0.5)
