"""The rows of the page and of /api: parts of a snapshot as plain JSON."""

from __future__ import annotations

from typing import Any, Final

from forebay.contracts.outcomes import RequestOutcomeKind
from forebay.contracts.run_use import sum_by_model
from forebay.contracts.snapshots import DomainSnapshot, GlobalSnapshot
from forebay.coordinator.runs.looking import RunLook
from forebay.coordinator.tasks.snapshots import PoolSnapshot
from forebay.ops.fleet import Fleet

Row = dict[str, Any]
MOST_GROUPS: Final = 20
"""Groups of a pool that a row lists: those with the most tasks that wait."""


def fleet_rows(fleet: Fleet) -> Row:
    """Return a look at the fleet as one JSON object, with times in seconds."""
    return {
        "at": fleet.at,
        "models": [row for shard in fleet.models.values() for row in model_rows(shard)],
        "pools": [pool_row(name, pool) for name, pool in fleet.pools.items()],
        "runs": [run_row(pool, look) for pool, look in fleet.runs],
        "events": list(fleet.events),
        "problems": list(fleet.problems),
        "unread": fleet.unread,
    }


def model_rows(shard: GlobalSnapshot) -> list[Row]:
    """Return a row for each domain of a provider/model that is used."""
    return [_domain_row(shard, window) for window in shard.domains.values() if window.is_used]


def _domain_row(shard: GlobalSnapshot, window: DomainSnapshot) -> Row:
    return {
        "provider": window.resource.provider_model.provider_name,
        "model": window.resource.provider_model.model_id,
        "domain": window.resource.domain.value,
        "cap": shard.static_cap,
        "window": window.current_limit,
        "window_max": window.effective_max,
        "in_flight": window.in_flight_count,
        "waiting": window.waiters,
        "cooldown_seconds": round(window.cooldown_remaining_seconds, 3),
        "blocked_for": window.blocked_for,
        "outlook": window.outlook,
        "granted": window.granted,
        "cuts": window.cuts,
        "rate_limited": window.outcomes.get(RequestOutcomeKind.RATE_LIMITED, 0),
        "succeeded": window.outcomes.get(RequestOutcomeKind.SUCCESS, 0),
        "ended": sum(window.outcomes.values()),
        "members": shard.member_count,
        "overdue_members": shard.overdue_member_count,
        "out_of_order": {**shard.leak_diagnostics, **window.leak_diagnostics},
    }


def pool_row(name: str, pool: PoolSnapshot) -> Row:
    """Return a task pool with its resources and the groups that have most tasks waiting."""
    admission = pool.admission
    waiting = pool.queue.queued_by_group
    running = admission.running_by_group
    names = sorted({*waiting, *running}, key=lambda group: (-waiting.get(group, 0), group))
    weights = {group: spec.weight for group, spec in pool.queue.groups.items()}
    return {
        "pool": name,
        "state": pool.state,
        "policy": pool.policy,
        "running": pool.running,
        "queued": pool.queue.queued_total,
        "delayed": pool.delayed,
        "parked": pool.parked,
        "resources": [
            {"resource": resource, "limit": limit, "leased": admission.leased.get(resource, 0)}
            for resource, limit in admission.limits.items()
        ],
        "group_count": len(names),
        "groups": [
            {
                "group": group,
                "weight": weights.get(group),
                "waiting": waiting.get(group, 0),
                "running": running.get(group, 0),
            }
            for group in names[:MOST_GROUPS]
        ],
        "blocked": {str(reason): count for reason, count in pool.blocked.reasons.items()},
    }


def run_row(pool: str, look: RunLook) -> Row:
    """Return a run that is not over: its driver, its records, and what it has used."""
    models = sum_by_model(look.columns)
    return {
        "run": look.spec.run_id,
        "pool": pool,
        "workflow": look.spec.workflow.name,
        "tenant": look.spec.tenant,
        "state": look.state,
        "driver": look.owner or look.driver,
        "done": look.done,
        "dropped": look.dropped,
        "records": look.spec.workflow.record_count,
        "age_seconds": None if look.begun_at is None else look.captured_at - look.begun_at,
        "calls": sum(use.calls for use in models.values()),
        "problem": look.problem,
    }
