"""Observations of the demo's fleet and provider."""

from __future__ import annotations

from dataclasses import dataclass, field

from forebay.contracts.snapshots import AuditReport, GlobalSnapshot
from forebay.mock_provider.log import RequestRecord, TruthRecord
from forebay.mock_provider.server import MockProviderServer
from forebay.workers.runs.driver import RunSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The state of the shard at one instant, for the live line and the plot."""

    at: float
    window: int
    in_flight: int
    waiting: int
    rate_limited: int
    succeeded: int
    records_done: dict[str, int]


@dataclass(slots=True, kw_only=True)
class Observations:
    """Everything that the demo observed.

    Attributes:
        looks: every tenth of a second; times are seconds since the provider started.
        summaries: how each tenant's run ended.
        finished_at: when each tenant's run ended.
        notes: what was done to the fleet, and when.
        killed_at: when the worker was killed.
        freed_at: when its membership ended, so that its leases and tasks were free again.
        requests: what the provider saw.
        truths: what the provider could do, and since when.
        final: the shard at the end.
        audits: of the request shard and of the pool.
        idle_gaps: seconds in which a worker had a free slot beside ready work that fitted.
        beyond_sdks: calls that were refused more often than SDKs try again.
    """

    looks: list[Look] = field(default_factory=list)
    summaries: dict[str, RunSummary] = field(default_factory=dict)
    finished_at: dict[str, float] = field(default_factory=dict)
    notes: list[tuple[float, str]] = field(default_factory=list)
    killed_at: float | None = None
    freed_at: float | None = None
    requests: list[RequestRecord] = field(default_factory=list)
    truths: list[TruthRecord] = field(default_factory=list)
    final: GlobalSnapshot | None = None
    audits: list[AuditReport] = field(default_factory=list)
    idle_gaps: list[float] = field(default_factory=list)
    records: int = 0
    beyond_sdks: int = 0


def take_log(provider: MockProviderServer, seen: Observations) -> None:
    """Add the provider's requests and truths from its log."""
    for _index, record in provider.state.log.since(0):
        if isinstance(record, RequestRecord):
            seen.requests.append(record)
        else:
            seen.truths.append(record)
