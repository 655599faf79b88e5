"""The metrics of `forebay ops`: the state of every shard, for Prometheus (design 07, *Page*).

Labels are bounded: a model is named where the operator put it on the list; the values of all others
are summed under ``other``. Groups, runs, members and ids are no labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from forebay.contracts.identity import ProviderModelKey
from forebay.contracts.snapshots import DomainSnapshot, GlobalSnapshot
from forebay.coordinator.tasks.snapshots import PoolSnapshot
from forebay.ops.watcher import Watcher

OTHER: Final = "other"
"""Label of the models that are not on the list."""
_WINDOW_LABELS: Final = ("provider", "model", "domain")
_MODEL_LABELS: Final = ("provider", "model")
_POOL_STATES: Final = ("open", "paused", "draining")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One metric: its name without the suffix of a counter, its kind, labels and meaning."""

    name: str
    kind: type[GaugeMetricFamily | CounterMetricFamily]
    labels: tuple[str, ...]
    meaning: str


def _gauge(name: str, labels: tuple[str, ...], meaning: str) -> MetricSpec:
    return MetricSpec(name=name, kind=GaugeMetricFamily, labels=labels, meaning=meaning)


def _counter(name: str, labels: tuple[str, ...], meaning: str) -> MetricSpec:
    return MetricSpec(name=name, kind=CounterMetricFamily, labels=labels, meaning=meaning)


METRICS: Final = {
    metric.name: metric
    for metric in (
        _gauge(
            "forebay_up", (), "1 where the last look at the server succeeded within 15 s, else 0."
        ),
        _gauge("forebay_shards_unread", (), "Shards that could not be read, or beyond the bound."),
        _gauge("forebay_window", _WINDOW_LABELS, "Calls that the window allows at once."),
        _gauge("forebay_window_max", _WINDOW_LABELS, "Most that the window may grow to."),
        _gauge("forebay_in_flight", _WINDOW_LABELS, "Leases in force."),
        _gauge("forebay_waiters", _WINDOW_LABELS, "Attempts that wait for a lease."),
        _gauge(
            "forebay_cooldown_seconds", _WINDOW_LABELS, "Seconds until the cooldown ends; or 0."
        ),
        _counter("forebay_leases_granted", _WINDOW_LABELS, "Leases ever granted."),
        _counter("forebay_window_cuts", _WINDOW_LABELS, "Times the window was cut."),
        _counter(
            "forebay_outcomes", (*_WINDOW_LABELS, "outcome"), "Leases that ended, by outcome."
        ),
        _gauge("forebay_static_cap", _MODEL_LABELS, "Bound of all domains of a model together."),
        _gauge("forebay_members", _MODEL_LABELS, "Processes that take part in the shard."),
        _gauge("forebay_members_overdue", _MODEL_LABELS, "Members whose heartbeat is overdue."),
        _gauge("forebay_leases_overdue", _MODEL_LABELS, "Leases whose member is overdue."),
        _gauge("forebay_out_of_order", _MODEL_LABELS, "Leases counted twice, or not counted."),
        _gauge("forebay_quota_left", (*_MODEL_LABELS, "budget"), "What is left of a quota."),
        _gauge("forebay_pool_running", ("pool",), "Tasks that run."),
        _gauge("forebay_pool_queued", ("pool",), "Tasks that are ready and wait."),
        _gauge("forebay_pool_delayed", ("pool",), "Tasks whose time has not come."),
        _gauge("forebay_pool_parked", ("pool",), "Tasks that ask for more than a limit."),
        _gauge("forebay_pool_state", ("pool", "state"), "1 for the state that the pool is in."),
        _gauge("forebay_runs", ("pool", "state"), "Runs that are not over."),
    )
}
"""Every metric of /metrics, by name; a counter's sample has the suffix ``_total``."""


class FleetCollector(Collector):
    """Builds the metrics from a watcher's last look, so that a scrape costs the server nothing.

    Args:
        watcher: what looks.
        labels: label of each model that is named; the others are summed under ``other``.
    """

    def __init__(self, watcher: Watcher, labels: Mapping[ProviderModelKey, str]) -> None:
        self._watcher = watcher
        self._labels = labels

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering reads nothing."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with its samples."""
        samples = _Samples()
        fleet = self._watcher.fleet
        samples.add("forebay_up", (), int(self._watcher.is_current))
        if fleet is not None:
            samples.add("forebay_shards_unread", (), len(fleet.problems) + fleet.unread)
            for key, shard in fleet.models.items():
                _add_model(samples, (key.provider_name, self._labels.get(key, OTHER)), shard)
            for name, pool in fleet.pools.items():
                _add_pool(samples, name, pool)
            for name, look in fleet.runs:
                samples.add("forebay_runs", (name, look.state), 1)
        yield from samples.families()


def metrics_text(watcher: Watcher, labels: Mapping[ProviderModelKey, str]) -> bytes:
    """Return the metrics in the text form of Prometheus."""
    registry = CollectorRegistry()
    registry.register(FleetCollector(watcher, labels))
    return generate_latest(registry)


class _Samples:
    """Samples of all metrics; those with the same labels are summed."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in METRICS}

    def add(self, name: str, labels: tuple[str, ...], value: float) -> None:
        values = self._values[name]
        values[labels] = values.get(labels, 0) + value

    def families(self) -> Iterator[Metric]:
        for name, values in self._values.items():
            spec = METRICS[name]
            family = spec.kind(name, spec.meaning, labels=spec.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family


def _add_model(samples: _Samples, labels: tuple[str, str], shard: GlobalSnapshot) -> None:
    samples.add("forebay_static_cap", labels, shard.static_cap)
    samples.add("forebay_members", labels, shard.member_count)
    samples.add("forebay_members_overdue", labels, shard.overdue_member_count)
    windows = [window for window in shard.domains.values() if window.is_used]
    found = shard.leak_diagnostics
    samples.add("forebay_leases_overdue", labels, found.get("overdue_leases", 0))
    samples.add("forebay_out_of_order", labels, abs(found.get("uncounted_leases", 0)))
    for quota in shard.budgets:
        samples.add("forebay_quota_left", (*labels, str(quota.budget)), quota.level)
    for window in windows:
        _add_window(samples, (*labels, window.resource.domain.value), window)


def _add_window(samples: _Samples, labels: tuple[str, ...], window: DomainSnapshot) -> None:
    samples.add("forebay_window", labels, window.current_limit)
    samples.add("forebay_window_max", labels, window.effective_max)
    samples.add("forebay_in_flight", labels, window.in_flight_count)
    samples.add("forebay_waiters", labels, window.waiters)
    samples.add("forebay_cooldown_seconds", labels, window.cooldown_remaining_seconds)
    samples.add("forebay_leases_granted", labels, window.granted)
    samples.add("forebay_window_cuts", labels, window.cuts)
    for outcome, count in window.outcomes.items():
        samples.add("forebay_outcomes", (*labels, outcome.value), count)


def _add_pool(samples: _Samples, name: str, pool: PoolSnapshot) -> None:
    samples.add("forebay_pool_running", (name,), pool.running)
    samples.add("forebay_pool_queued", (name,), pool.queue.queued_total)
    samples.add("forebay_pool_delayed", (name,), pool.delayed)
    samples.add("forebay_pool_parked", (name,), pool.parked)
    for state in _POOL_STATES:
        samples.add("forebay_pool_state", (name, state), int(pool.state == state))
