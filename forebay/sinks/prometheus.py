"""Events as Prometheus metrics; needs the extra ``prometheus``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from forebay.contracts.events import RuntimeEvent
from forebay.sinks.base import BothStreams
from forebay.sinks.labels import BOUNDED, Labels

_OF_TIMES: Final = ("provider", "model", "domain", "reason")
_SECONDS: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class PrometheusSink(BothStreams):
    """Counts events, and measures the seconds of waits and calls.

    Its metrics are ``forebay_events_total``, ``forebay_request_wait_seconds`` and
    ``forebay_model_request_seconds``.

    Args:
        registry: to which the metrics belong; a program has one sink for each.
        labels: of the counter.
        models: model ids that may be values of the label ``model``; others are ``other``.

    Raises:
        ConfigurationError: a label is none of the bounded ones, such as an id.
    """

    def __init__(
        self,
        registry: CollectorRegistry = REGISTRY,
        *,
        labels: Sequence[str] = BOUNDED,
        models: Collection[str] = (),
    ) -> None:
        self._labels = Labels(labels, models)
        self._of_times = Labels(_OF_TIMES, models)
        self._events = Counter(
            "forebay_events",
            "Events of this process, by kind.",
            self._labels.names,
            registry=registry,
        )
        self._seconds = {
            "wait_seconds": Histogram(
                "forebay_request_wait_seconds",
                "Seconds that attempts waited for a lease, however short.",
                _OF_TIMES,
                registry=registry,
                buckets=_SECONDS,
            ),
            "call_seconds": Histogram(
                "forebay_model_request_seconds",
                "Seconds that provider calls took.",
                _OF_TIMES,
                registry=registry,
                buckets=_SECONDS,
            ),
        }

    def take(self, event: RuntimeEvent) -> None:
        """Count an event, and observe its duration, if it has one."""
        self._events.labels(**self._labels.of(event)).inc()
        for name, histogram in self._seconds.items():
            if name in event.diagnostics:
                histogram.labels(**self._of_times.of(event)).observe(event.diagnostics[name])
