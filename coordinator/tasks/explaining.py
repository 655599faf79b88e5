"""Why a task, a group or a pool does not move: ``lua/tasks/explain.lua`` in sentences."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from forebay.contracts.explanations import Explanation, Reason, counted, number, ordinal, some, span
from forebay.contracts.tasks import TaskAdmissionBlockSummary, TaskDenialReason
from forebay.coordinator.keys import encode, pool_shard
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.blocking import (
    PoolFacts,
    blocks,
    decode_facts,
    held_pool,
    not_served,
)
from forebay.coordinator.tasks.names import parse_signature
from forebay.coordinator.tasks.snapshots import MAX_ROWS, group_of


async def read_facts(reader: ServerConnection, pool: str, name: str | None = None) -> PoolFacts:
    """Read one instant of a pool and of its subjects of a name; writes nothing.

    Raises:
        ConfigurationError: a wrong name of a pool.
        CoordinatorError: the server could not be used.
    """
    subjects = [] if name is None else [name, *([encode(name)] if encode(name) != name else [])]
    keys = pool_shard(pool).all
    reply = await reader.read("tasks/explain", keys, [MAX_ROWS, *subjects])
    return decode_facts(pool, json.loads(reply))


def explain_in_pool(facts: PoolFacts, name: str) -> list[Explanation]:
    """Explain the task or group of a pool that has a name, or the pool itself; pure."""
    found: list[Explanation] = []
    if not facts.snapshot.exists:
        return found

    def add(kind: Any, reasons: Sequence[Reason], shown: str = name) -> None:
        found.append(
            Explanation(
                kind=kind,
                name=shown,
                shard=f"pool:{facts.pool}",
                captured_at=facts.now,
                reasons=tuple(reasons),
            )
        )

    if task := facts.capture.get("task"):
        add("task", _of_task(facts, task))
    for group, row in facts.rows.items():
        if name in {group, row["name"]}:
            add("task_group", _of_group(facts, group), group)
    if name in {facts.pool, f"pool:{facts.pool}"}:
        add("pool", of_pool(facts))
    return found


def summary(facts: PoolFacts) -> TaskAdmissionBlockSummary:
    """Return why ready tasks are not admitted, each reason with its tasks; pure."""
    counts: Counter[str] = Counter()
    resources: Counter[str] = Counter()
    sentences: dict[str, None] = {}
    for group, row in facts.rows.items():
        for reason in blocks(facts, group, "The first task") if row["is_in_line"] else ():
            counts[reason.code] += row["in_line"]
            resources.update({reason.resource: row["in_line"]} if reason.resource else {})
            sentences[f"{group}: {reason.says}"] = None
    snapshot = facts.snapshot
    beside = {
        "not_served": int(facts.capture["unserved"]) if snapshot.exists else 0,
        "suspect": int(facts.capture["suspects"]) if snapshot.exists else 0,
        "never_fits": snapshot.parked,
    }
    if snapshot.state == "paused":
        counts, beside["not_served"] = Counter({"paused": snapshot.queue.queued_total}), 0
        beside["suspect"] = 0
    counts.update({code: count for code, count in beside.items() if count})
    known = {TaskDenialReason(code): n for code, n in counts.items() if code in _REASONS and n}
    return TaskAdmissionBlockSummary(
        queued_count=snapshot.queue.queued_total,
        reasons=known,
        available_at=snapshot.blocked.available_at,
        diagnostics={
            "delayed": snapshot.delayed,
            "parked": snapshot.parked,
            "tasks_by_resource": dict(resources),
            "sentences": list(sentences),
        },
    )


_REASONS: Final = frozenset(TaskDenialReason)


def of_pool(facts: PoolFacts) -> list[Reason]:
    """Return, for each waiting group of a pool, why its first task does not start."""
    snapshot = facts.snapshot
    says = (
        f"{counted(snapshot.queue.queued_total, 'task', 'wait')} for a turn,"
        f" {snapshot.delayed} for a later time, {snapshot.parked} for a higher limit;"
        f" {snapshot.running} run."
    )
    reasons = [Reason(code=snapshot.state, says=f"The pool is {snapshot.state}. {says}")]
    if count := int(facts.capture["unserved"]):
        waits = "waits" if count == 1 else "wait"
        says = f"Of those for a turn, {count} {waits} for a worker that serves the task's function."
        reasons.append(Reason(code="not_served", says=says))
    if count := int(facts.capture["suspects"]):
        were = "was" if count == 1 else "were"
        says = f"Of those for a turn, {count} {were} lost with a worker that died (forebay events)."
        reasons.append(Reason(code="suspect", says=says))
    for group, row in facts.rows.items():
        if row["is_in_line"]:
            reasons += blocks(facts, group, f"Task {head_of(row)}, the first of group {group},")
    return list(dict.fromkeys(reasons))  # what holds the whole pool is said once


def _of_task(facts: PoolFacts, task: Mapping[str, Any]) -> list[Reason]:
    of_place: dict[str, Callable[[PoolFacts, Mapping[str, Any]], list[Reason]]] = {
        "finished": lambda *_: [Reason(code="finished", says="It has finished, with a result.")],
        "running": _running,
        "delayed": _delayed,
        "parked": _parked,
        "unserved": lambda facts, task: [not_served(facts, unquote(task["fn"]))],
        "suspect_tasks": _suspect,
        "line": _in_line,
    }
    reasons = of_place[task["place"]](facts, task)
    held = held_pool(facts) if task["place"] in _BESIDE_THE_LINE else None
    return [*reasons, held] if held else reasons


_BESIDE_THE_LINE: Final = frozenset({"delayed", "parked", "unserved", "suspect_tasks"})


def _delayed(facts: PoolFacts, task: Mapping[str, Any]) -> list[Reason]:
    until = int(task["due_us"]) / 1e6
    tries = f"; it was tried {number(int(task['tries']), 'time')}" if task["tries"] else ""
    says = f"It waits for its time, in {span(until - facts.now)}{tries}."
    return [Reason(code="delayed", says=says, until=until)]


def _running(facts: PoolFacts, task: Mapping[str, Any]) -> list[Reason]:
    lease = task.get("lease")
    if not lease:
        return [Reason(code="running", says="It runs.")]
    member, left_us = lease["member_id"], lease["expires_in_us"]
    age = span(facts.now - int(lease["acquired_us"]) / 1e6)
    until = None
    says = f"It runs: member {member} has had its lease {unquote(lease['lease_id'])} for {age}"
    if left_us == "" or int(left_us) <= 0:
        says += (
            ", and that member's heartbeat is overdue, so its process died or hangs: with the next"
            " call of any member the lease ends and the task goes back to the head of its group."
        )
        code = "member_overdue"
    else:
        code, until = "running", facts.now + int(left_us) / 1e6
        left = span(int(left_us) / 1e6)
        says += f"; its heartbeat is due within {left}, else the task runs again."
    return [Reason(code=code, says=says, holders=(member,), until=until)]


def _parked(facts: PoolFacts, task: Mapping[str, Any]) -> list[Reason]:
    limits, reasons = facts.snapshot.admission.limits, []
    for name, amount in parse_signature(task["signature"]).items():
        limit = limits.get(name, 0)
        if amount > limit:
            row = facts.resource(name)
            by = f" (set by {unquote(row['claimed_by'])})" if row["claimed_by"] else ""
            stopped = "nothing that asks for it starts" if limit == 0 else "it can never start"
            says = (
                f"It asks for {amount} of {name}, and the limit is {limit}{by}: {stopped}"
                f" until the limit rises (forebay set-limit {name} {amount} --pool {facts.pool}"
                f" --holder {unquote(row['claimed_by']) or 'operator'})."
            )
            reasons.append(Reason(code="never_fits", says=says, resource=name))
    back = Reason(code="comes_back", says="It goes back into line: the limit it lacked has risen.")
    return reasons or [back]


def _suspect(facts: PoolFacts, task: Mapping[str, Any]) -> list[Reason]:
    lost_with = task["lost_with"].split(",")
    watched = [member["member_id"] for member in facts.members if member["watches"]]
    busy = f" Now {some(watched)} {'runs' if len(watched) == 1 else 'run'} one." if watched else ""
    says = (
        f"It was lost {number(int(task['losses']), 'time')}, with {some(lost_with)}, whose process"
        " died while it ran. It waits for a worker that serves it and runs no other such task;"
        f" before its last chance that worker runs nothing else.{busy}"
    )
    return [Reason(code="suspect", says=says, holders=tuple(lost_with))]


def _in_line(facts: PoolFacts, task: Mapping[str, Any]) -> list[Reason]:
    group = str(group_of(task["group"]))
    row, ahead = facts.rows[group], int(task["ahead"])
    says = (
        f"It is the {ordinal(ahead + 1)} of {number(row['in_line'], 'task')} in line of group"
        f" {group}{_place_of(facts, group)}."
    )
    place = Reason(code="in_line", says=says)
    who = "It" if ahead == 0 else f"Task {head_of(row)}, the first of its group,"
    return [place, *(blocks(facts, group, who) or [_may_start(who)])]


def _of_group(facts: PoolFacts, group: str) -> list[Reason]:
    row = facts.rows[group]
    limit = f" (admitted limit {row['admitted_limit']})" if row["admitted_limit"] else ""
    says = (
        f"Group {group} has weight {row['weight']:g}, runs {number(row['running'], 'task')}{limit}"
        f" and has {row['in_line']} in line{_place_of(facts, group)}."
    )
    reasons = [Reason(code="in_line" if row["is_in_line"] else "not_in_line", says=says)]
    if row["is_in_line"]:
        who = f"Task {head_of(row)}, its first,"
        reasons += blocks(facts, group, who) or [_may_start(who)]
    places = dict(dict(facts.capture["places"]).get(row["name"], {}))
    for place, (code, why) in _BESIDE.items():
        if found := places.get(place):
            waits = counted(int(found["count"]), "task", "wait")
            waits = f"At least {waits}" if found["is_least"] else waits
            first = unquote(found["task_id"])
            says = f"{waits} {why}; see forebay explain {first}."
            reasons.append(Reason(code=code, says=says))
    held = held_pool(facts) if len(reasons) > 1 and not row["is_in_line"] else None
    return [*reasons, held] if held else reasons


_BESIDE: Final = {
    "delayed": ("delayed", "for a later time"),
    "parked": ("never_fits", "for a higher limit of a resource"),
    "unserved": ("not_served", "for a worker that serves the task's function"),
    "suspect_tasks": ("suspect", "to run again one at a time, lost with a worker that died"),
}
"""By the place beside the line: the code of the reason, and what tasks wait for there."""


def _place_of(facts: PoolFacts, group: str) -> str:
    in_line = [name for name, row in facts.rows.items() if row["is_in_line"]]
    groups, count = in_line[:MAX_ROWS], int(facts.capture["groups_in_line"])
    if group not in groups:
        return ""
    return f", which stands {ordinal(groups.index(group) + 1)} of {number(count, 'group')}"


def _may_start(who: str) -> Reason:
    says = f"{who} may start: the next worker with a free slot takes it in its turn."
    return Reason(code="may_start", says=says)


def head_of(row: Mapping[str, Any]) -> str:
    """Return the id of a group's first task."""
    return unquote(row["head"])
