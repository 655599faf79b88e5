"""Figures of the demo; pure functions over its observations."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from itertools import pairwise

from forebay.coordinator.tasks.idle_gaps import p99
from forebay.demo.observations import Observations
from forebay.demo.scenario import TENANTS, WORKFLOW

SERVED = 200
REFUSED = 429


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantShare:
    """The records of a tenant while every tenant had work, against its weight."""

    tenant: str
    weight: float
    records: int
    share: float
    fair_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSummary:
    """The figures of one demo.

    Attributes:
        written, dropped, lost, doubled: records, over all tenants.
        attempts, refused: what the provider saw.
        refused_rate: refused attempts of all attempts.
        goodput_ratio: slot-seconds of served answers over those that the hidden capacity allowed,
            from the first request to the last answer.
        steps: the same between two changes of the hidden capacity.
        seconds: from the first request to the last answer.
        shares: per tenant, while all had work.
        leases_left, waiters_left: at the end.
        audit_differences: over both audits.
        freed_after_seconds: from the SIGKILL until the dead worker's membership was over.
        idle_gaps, idle_gap_p99_seconds, longest_idle_gap_seconds: the times in which a worker had
            a free slot beside ready work that fits, by the pool's events.
    """

    records: int
    written: int
    dropped: int
    lost: int
    doubled: int
    attempts: int
    refused: int
    refused_rate: float
    goodput_ratio: float
    steps: tuple[StepGoodput, ...]
    seconds: float
    shares: tuple[TenantShare, ...]
    leases_left: int
    waiters_left: int
    audit_differences: tuple[str, ...]
    freed_after_seconds: float | None
    idle_gaps: int
    idle_gap_p99_seconds: float
    longest_idle_gap_seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing was lost, doubled or leaked."""
        return not (
            self.lost
            or self.doubled
            or self.leases_left
            or self.waiters_left
            or self.audit_differences
        )


def capacity_steps(seen: Observations, end: float) -> list[tuple[float, float, int]]:
    """Return the hidden capacity over time: from, until, concurrency."""
    changes = [
        (truth.at, int(truth.changes["concurrency"]))
        for truth in seen.truths
        if truth.changes.get("concurrency") is not None
    ]
    times = [at for at, _capacity in changes] + [end]
    return [
        (start, stop, capacity)
        for (start, stop), (_at, capacity) in zip(pairwise(times), changes, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepGoodput:
    """Calls served between two changes of the provider's hidden capacity.

    Attributes:
        capacity: calls at once in that time.
        seconds: how long it was so.
        available: slot-seconds that there were, at most one slot for each call that was left.
        used: slot-seconds of served answers.
    """

    capacity: int
    seconds: float
    available: float
    used: float

    @property
    def ratio(self) -> float:
        """Share of the available slot-seconds that were used."""
        return self.used / self.available if self.available else 0.0


def goodput_by_step(seen: Observations) -> tuple[StepGoodput, ...]:
    """Return the goodput at each capacity, from the first request to the last answer.

    When fewer calls are left than the capacity, no more than those can be served: the last
    ``capacity`` calls fill a slot each until they end.
    """
    served = [record for record in seen.requests if record.status == SERVED]
    start = min(record.arrived_at for record in seen.requests)
    ends = sorted(record.finished_at for record in served)
    end = ends[-1]
    spans = [
        (max(begin, start), min(stop, end), capacity)
        for begin, stop, capacity in capacity_steps(seen, end)
    ]
    return tuple(
        StepGoodput(
            capacity=capacity,
            seconds=max(0.0, stop - begin),
            available=sum(max(0.0, min(at, stop) - begin) for at in ends[-capacity:]),
            used=sum(
                max(0.0, min(record.finished_at, stop) - max(record.arrived_at, begin))
                for record in served
            ),
        )
        for begin, stop, capacity in spans
    )


def goodput(seen: Observations) -> tuple[float, float]:
    """Return slot-seconds served over slot-seconds there were, and the seconds that took."""
    steps = goodput_by_step(seen)
    available = sum(step.available for step in steps)
    return sum(step.used for step in steps) / available, sum(step.seconds for step in steps)


def refusals(seen: Observations) -> int:
    """Return how many attempts the provider refused."""
    return sum(record.status == REFUSED for record in seen.requests)


def tenant_shares(seen: Observations) -> tuple[TenantShare, ...]:
    """Return each tenant's records just before the first tenant finished."""
    first_end = min(seen.finished_at.values())
    before = [look for look in seen.looks if look.at < first_end]
    done = max((look.records_done for look in before), key=lambda counts: sum(counts.values()))
    total, weights = sum(done.values()) or 1, sum(TENANTS.values())
    return tuple(
        TenantShare(
            tenant=tenant,
            weight=weight,
            records=done[tenant],
            share=done[tenant] / total,
            fair_share=weight / weights,
        )
        for tenant, weight in TENANTS.items()
    )


def summarize(seen: Observations) -> DemoSummary:
    """Return the figures of the observations; records are counted in the files."""
    assert seen.final is not None  # noqa: S101 - for mypy; the scenario concluded
    with WORKFLOW.with_name("messages.csv").open(newline="") as file:
        expected = {row["ticket_id"] for row in csv.DictReader(file)}
    lost = doubled = written = dropped = 0
    for summary in seen.summaries.values():
        ids = [
            json.loads(line)["ticket_id"]
            for line in summary.output.read_text().splitlines()
            if line
        ]
        written += len(ids)
        dropped += summary.dropped
        doubled += len(ids) - len(set(ids))
        lost += len(expected - set(ids)) - summary.dropped
    refused = refusals(seen)
    ratio, seconds = goodput(seen)
    killed, freed = seen.killed_at, seen.freed_at
    return DemoSummary(
        records=seen.records,
        written=written,
        dropped=dropped,
        lost=lost,
        doubled=doubled,
        attempts=len(seen.requests),
        refused=refused,
        refused_rate=refused / max(1, len(seen.requests)),
        goodput_ratio=ratio,
        steps=goodput_by_step(seen),
        seconds=seconds,
        shares=tenant_shares(seen),
        leases_left=seen.final.aggregate_in_flight,
        waiters_left=seen.final.waiters,
        audit_differences=tuple(d for audit in seen.audits for d in audit.differences),
        freed_after_seconds=freed - killed if killed and freed else None,
        idle_gaps=len(seen.idle_gaps),
        idle_gap_p99_seconds=p99(seen.idle_gaps),
        longest_idle_gap_seconds=max(seen.idle_gaps, default=0.0),
    )
