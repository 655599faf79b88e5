"""Explains why the first task of a group is not admitted (design 04, *Explaining*).

The order is that of ``lua/lib/tasks/select.lua``: the pool, who serves the function, the ledger,
the reservation, the policy, and at last the slots of workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from forebay.contracts.explanations import Reason, number, some, span
from forebay.contracts.task_policies import (
    MOST_CONSIDERED,
    BoundedBorrowTaskAdmissionPolicyConfig,
    DebtCeiling,
    QueueView,
    TaskAdmissionPolicyDecision,
)
from forebay.contracts.tasks import SchedulableTask, SchedulerResourceRequest, TaskDenialReason
from forebay.coordinator.tasks.names import parse_signature
from forebay.coordinator.tasks.policies import (
    BoundedBorrowTaskAdmissionPolicy,
    StrictFairTaskAdmissionPolicy,
    TaskAdmissionPolicy,
)
from forebay.coordinator.tasks.snapshots import PoolSnapshot, decode_snapshot, group_of, spec_of

CEILING: Final = "ceiling:"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """One instant of a pool, as ``lua/tasks/explain.lua`` reads it.

    Attributes:
        pool: its name.
        snapshot: the same instant as views.
        rows: its groups by name, as they were read.
        capture: the whole reply.
    """

    pool: str
    snapshot: PoolSnapshot
    rows: Mapping[str, Mapping[str, Any]]
    capture: Mapping[str, Any]

    @property
    def now(self) -> float:
        """Server time in seconds."""
        return self.snapshot.captured_at

    @property
    def members(self) -> Sequence[Mapping[str, Any]]:
        """The pool's members, the first to expire first."""
        return list(self.capture["members"])

    def resource(self, name: str) -> Mapping[str, Any]:
        """Return the facts of a resource that a waiting task needs."""
        found = {unquote(key): row for key, row in dict(self.capture["resources"]).items()}
        row: Mapping[str, Any] = found[name]
        return row


def decode_facts(pool: str, capture: Mapping[str, Any]) -> PoolFacts:
    """Decode a reply of ``lua/tasks/explain.lua``; pure."""
    rows = {str(group_of(row["name"])): row for row in capture.get("groups", ())}
    return PoolFacts(pool=pool, snapshot=decode_snapshot(capture), rows=rows, capture=capture)


def blocks(facts: PoolFacts, group: str, who: str) -> list[Reason]:
    """Return why a group's first task does not start now; pure.

    Args:
        facts: of the pool.
        group: name of a group that stands in line.
        who: what the sentences call its first task.
    """
    if found := held_pool(facts):
        return [found]
    row = facts.rows[group]
    asked = parse_signature(row["signature"])
    if found := _not_served(facts, unquote(row["fn"]), f"{who} waits"):
        return [found]
    if row["holds"] == "cooldown":
        return [_cooling(facts, name, who) for name in asked if _cools_until(facts, name)]
    if row["holds"] in {"no_capacity", "reserved"}:
        return _without_room(facts, asked, who)
    if found := _denied(facts, group, who):
        return [found]
    found = _without_slots(facts, unquote(row["fn"]), who)
    return [found] if found else []


def held_pool(facts: PoolFacts) -> Reason | None:
    """Return why the whole pool starts nothing; None where it is open."""
    until = int(facts.capture["recovering_us"]) / 1e6
    if until:
        says = (
            "The pool is being rebuilt from what its members state, and starts nothing until that"
            f" is over, in {span(until - facts.now)} at most."
        )
        return Reason(code="recovering", says=says, until=until)
    if facts.snapshot.state == "paused":
        says = (
            "The pool is paused: it starts nothing until an operator opens it"
            f" (forebay open {facts.pool})."
        )
        return Reason(code="paused", says=says)
    return None


def _not_served(facts: PoolFacts, function: str, who_waits: str) -> Reason | None:
    """Say that no live worker has a function; None where one has, or no function is named."""
    if not function or any(function in _functions(member) for member in facts.members):
        return None
    served = sorted({name for member in facts.members for name in _functions(member)})
    count = sum(bool(member["functions"]) for member in facts.members)
    start = f"start one that does (forebay worker --pool {facts.pool} ...)."
    if not count:
        none = f"none of this pool serves {function!r}, or any other"
        says = f"{who_waits} for a worker: {none}; {start}"
        return Reason(code="no_worker", says=says, resource=function)
    says = (
        f"{who_waits} for a worker that serves {function!r}: {number(count, 'worker')} of this pool"
        f" {'serves' if count == 1 else 'serve'} {some(served)} alone; {start}"
    )
    return Reason(code="not_served", says=says, resource=function)


def not_served(facts: PoolFacts, function: str) -> Reason:
    """Say why a task waits beside its group: no live worker has its function."""
    found = _not_served(facts, function, "It waits")
    back = f"It goes back into line: a worker that serves {function!r} is there again."
    return found or Reason(code="comes_back", says=back, resource=function)


def _functions(member: Mapping[str, Any]) -> list[str]:
    return [unquote(name) for name in member["functions"]]


def _cools_until(facts: PoolFacts, name: str) -> float:
    until = facts.resource(name)["cooling_until_us"]
    return int(until) / 1e6 if until else 0.0


def _cooling(facts: PoolFacts, name: str, who: str) -> Reason:
    until = _cools_until(facts, name)
    says = (
        f"{who} waits {span(until - facts.now)} more for {name}, whose provider had no room for a"
        " call of a run and said until when."
    )
    return Reason(code="cooldown", says=says, resource=name, until=until)


def _without_room(facts: PoolFacts, asked: Mapping[str, int], who: str) -> list[Reason]:
    view, reasons = facts.snapshot.admission, []
    for name, amount in asked.items():
        left = view.limits.get(name, 0) - view.leased.get(name, 0)
        if amount > left:
            reasons.append(_no_capacity(facts, name, amount, who))
        elif amount > view.available.get(name, 0):
            reasons.append(_reserved(facts, name, who))
    return reasons


def _no_capacity(facts: PoolFacts, name: str, amount: int, who: str) -> Reason:
    """Say that a resource has too little left, and which leases have it."""
    row, view = facts.resource(name), facts.snapshot.admission
    limit, leased = view.limits.get(name, 0), view.leased.get(name, 0)
    oldest = list(row["oldest"])
    by = f" (set by {unquote(row['claimed_by'])})" if row["claimed_by"] else ""
    says = (
        f"{who} asks for {amount} of {name}; {leased} of its limit {limit}{by} are in use,"
        f" {max(0, limit - leased)} left."
    )
    if oldest:
        says += f" The oldest leases: {some([_held(facts, lease) for lease in oldest])}."
    says += f" It may start when a lease of {name} ends or the limit rises."
    holders = tuple(unquote(lease["lease_id"]) for lease in oldest)
    return Reason(code="no_capacity", says=says, resource=name, holders=holders)


def _held(facts: PoolFacts, lease: Mapping[str, Any]) -> str:
    age = span(facts.now - int(lease["acquired_us"]) / 1e6)
    return f"{unquote(lease['task_id'])} on {lease['member_id']} for {age}"


def _reserved(facts: PoolFacts, name: str, who: str) -> Reason:
    first = unquote(facts.capture["first_task"])
    stood = span(facts.now - int(facts.capture["first_since_us"]) / 1e6)
    says = (
        f"{who} would fit, but what comes free of {name} is kept for task {first}, which has stood"
        f" first for {stood} without fitting; it may start once that task has."
    )
    return Reason(code="reserved", says=says, resource=name, holders=(first,))


def _denied(facts: PoolFacts, group: str, who: str) -> Reason | None:
    decision = evaluate(facts, group)
    if decision.allowed:
        return None
    row, spec = facts.rows[group], spec_of(facts.rows[group])
    if decision.reason is TaskDenialReason.BORROW_DEBT:
        name = str(decision.diagnostics["resource"])
        debt = parse_signature(row["debt"]).get(name, 0)
        says = (
            f"{who} yields to others: its group owes {debt} of {name}, which it borrowed above its"
            " share; it may start when leases of its group end, which repay that."
        )
        return Reason(code="borrow_debt", says=says, resource=name)
    peer = decision.diagnostics.get("peer")
    other = f"group {peer}, which is below its own" if peer else "others that are within theirs"
    what = f"its group runs {number(row['running'], 'task')}, at or above its"
    bound = f"admitted limit {spec.admitted_limit}" if peer else "share"
    says = (
        f"{who} yields to {other}: {what} {bound}. It may start when a task of its group ends, or"
        " when nobody else waits for the same."
    )
    return Reason(
        code="group_cap",
        says=says,
        resource=decision.diagnostics.get("resource"),
        holders=(str(peer),) if peer else (),
    )


def evaluate(facts: PoolFacts, group: str) -> TaskAdmissionPolicyDecision:
    """Ask the pool's policy about the first task of a group that fits; pure."""
    queue = facts.snapshot.queue
    fitting = [name for name, row in facts.rows.items() if row["is_in_line"] and row["fits"]]
    considered = QueueView(
        queued_total=queue.queued_total,
        queued_by_group=queue.queued_by_group,
        demand_by_group=queue.demand_by_group,
        groups={name: queue.groups[name] for name in fitting},
        first_candidates={name: queue.first_candidates[name] for name in fitting},
        considered=tuple(fitting[:MOST_CONSIDERED]),
        peer_demand=queue.peer_demand,
    )
    row = facts.rows[group]
    item = SchedulableTask(
        task_id=unquote(row["head"]),
        payload=b"",
        group=spec_of(row),
        resource_request=SchedulerResourceRequest(amounts=parse_signature(row["signature"])),
    )
    return _policy(facts).evaluate(item, considered, facts.snapshot.admission)


def _policy(facts: PoolFacts) -> TaskAdmissionPolicy:
    if facts.snapshot.policy != "borrow":
        return StrictFairTaskAdmissionPolicy()
    config = dict(facts.capture["config"])
    ceilings = []
    for field, units in config.items():
        if field.startswith(CEILING):
            group, _, resource = field.removeprefix(CEILING).partition("\0")
            key = group_of(group)
            of = {"kind": key.kind, "identity": key.identity, "resource": unquote(resource)}
            ceilings.append(DebtCeiling(units=int(units), **of))
    return BoundedBorrowTaskAdmissionPolicy(
        BoundedBorrowTaskAdmissionPolicyConfig(
            share_rounding=config.get("share_rounding") or "up",
            ceilings=tuple(ceilings),
            default_ceiling=int(config["ceiling"]) if config.get("ceiling") else None,
            ceiling_reserve=int(config.get("ceiling_reserve") or 0),
        )
    )


def _may_take(member: Mapping[str, Any]) -> bool:
    """Whether a member offers a slot, or is a worker that runs nothing."""
    return bool(member["free_slots"] or (member["functions"] and not member["lease_count"]))


def _without_slots(facts: PoolFacts, function: str, who: str) -> Reason | None:
    """Say that all workers are busy; None where one has a free slot, or none is known to work."""
    workers = [
        member
        for member in facts.members
        if (function in _functions(member) if function else member["lease_count"])
    ]
    if any(_may_take(member) for member in facts.members if not function or member in workers):
        return None
    names = tuple(member["member_id"] for member in workers)
    if not names:
        says = f"{who} may start, but no worker asks: no member of this pool runs or wants a task."
        return Reason(code="no_worker", says=says)
    running = sum(member["lease_count"] for member in workers)
    says = (
        f"All slots are busy: {number(len(names), 'worker')} that may run it ({some(names)})"
        f" {'runs' if len(names) == 1 else 'run'} {number(running, 'task')} and offer no free"
        f" slot. {who} starts when one of these tasks ends, or with another worker."
    )
    return Reason(code="all_slots_busy", says=says, holders=names[:3])
