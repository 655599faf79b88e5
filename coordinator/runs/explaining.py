"""Explains why a run does not move, from the reply of ``lua/tasks/explain.lua``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from forebay.contracts.explanations import Explanation, Reason, number
from forebay.coordinator.runs.looking import problem_of
from forebay.coordinator.tasks.blocking import PoolFacts, blocks
from forebay.coordinator.tasks.explaining import head_of
from forebay.coordinator.tasks.snapshots import group_of


def explain_run(facts: PoolFacts, name: str) -> list[Explanation]:
    """Return the explanations of the runs of a name in a pool, if any; pure."""
    run = facts.capture.get("run")
    if not run:
        return []
    return [
        Explanation(
            kind="run",
            name=name,
            shard=f"pool:{facts.pool}",
            captured_at=facts.now,
            reasons=tuple(_reasons(facts, run)),
        )
    ]


def _reasons(facts: PoolFacts, run: Mapping[str, Any]) -> list[Reason]:
    left = int(run["records"]) - int(run["done"]) - int(run["dropped"])
    says = (
        f"{run['done']} of {number(int(run['records']), 'record')} are done, {run['dropped']}"
        f" dropped, {left} left; {run['open']} of {number(int(run['row_groups']), 'row group')}"
        f" are open, {run['written']} written."
    )
    reasons = [Reason(code="progress", says=says)]
    if run["stopped"]:
        why = problem_of({"stopped": run["stopped"].encode(), "refused": None})
        says = (
            f"It stopped itself: {str(why).rstrip('.')}. Mend the cause, then:"
            f" forebay resume {unquote(run['run_id'])}."
        )
        reasons.append(Reason(code="stopped", says=says))
    if run["refused"]:
        says = f"No worker makes it: {run['refused'].rstrip('.')}."
        reasons.append(Reason(code="refused", says=says))
    if not run["is_attended"]:
        gone = f" (the last one, {run['owner']}, is gone)" if run["owner"] else ""
        says = (
            f"No process drives it{gone}: open row groups are worked to their end and no other is"
            f" opened or written. Go on with: forebay resume {unquote(run['run_id'])}."
        )
        reasons.append(Reason(code="unattended", says=says))
    if run["held_back"]:
        says = f"No further row group is opened: {run['held_back'].replace('_', ' ')}."
        reasons.append(Reason(code=f"held_back_{run['held_back']}", says=says))
    if int(run["unwritten"]):
        says = f"{number(int(run['unwritten']), 'row group')} wait for the driver to write them."
        reasons.append(Reason(code="unwritten", says=says))
    told = dict.fromkeys(reasons + _tasks_of_run(facts, run))
    return list(told)  # what holds the whole pool is said once


def _tasks_of_run(facts: PoolFacts, run: Mapping[str, Any]) -> list[Reason]:
    reasons: list[Reason] = []
    for name, counts in dict(run["groups"]).items():
        group = str(group_of(name))
        row, waiting = facts.rows.get(group), sum(n for k, n in counts.items() if k != "running")
        says = f"In group {group}: {counts.get('running', 0)} run, {waiting} wait."
        reasons.append(Reason(code="tasks", says=says))
        if row and row["is_in_line"]:
            reasons += blocks(facts, group, f"Task {head_of(row)}, the first of the group,")
    return reasons
