"""The page docs/reference/metrics.md: metrics of ``forebay ops`` and of the metric sinks.

What a sink makes is seen by giving it one event: so its names, labels and buckets are true.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric

from forebay.contracts.event_kinds import RequestEventKind
from forebay.contracts.events import EventSubject, RuntimeEvent
from forebay.contracts.identity import ProviderModelKey, RequestDomain, RequestResourceKey
from forebay.ops.metrics import METRICS
from forebay.sinks.prometheus import PrometheusSink
from forebay.sinks.telemetry import OpenTelemetrySink

_HEAD: Final = """# Metrics

Made from the code by `python -m docs.site.reference`; a test keeps it current. Three sources
tell metrics: `forebay ops` those of the whole fleet, read from Redis; the two sinks those of the
process that they are given to. Labels are bounded: groups, runs, members and ids are never
labels.
"""
_OPS: Final = """## `forebay ops`

Served at `/metrics` ([ops.md](../ops.md)). A model has a label of its own where `--metric-model`
names it; all others are summed under `other`.
"""
_PROMETHEUS: Final = """## `forebay.sinks.prometheus.PrometheusSink`

Extra `prometheus` ([events.md](../events.md)). A histogram has the samples `_bucket`, `_sum` and
`_count`. The value of a label without one in the event is `none`, one beyond the bound is
`other`.
"""
_TELEMETRY: Final = """## `forebay.sinks.telemetry.OpenTelemetrySink`

Extra `otel`. Names with `gen_ai` are those of OpenTelemetry's semantic conventions. Beside these
a span for each provider call, with the ids of the attempt, its group, its task and its run.
"""
_EVENT: Final = RuntimeEvent(
    event_kind=RequestEventKind.MODEL_REQUEST_COMPLETED,
    subject=EventSubject(
        stream="request",
        correlation=None,
        request_attempt_id="attempt",
        request_resource_key=RequestResourceKey(
            provider_model=ProviderModelKey(provider_name="openai", model_id="gpt"),
            domain=RequestDomain.CHAT,
        ),
    ),
    captured_at=1.0,
    ordinal=1,
    reason_or_outcome="provider_failure",
    diagnostics={"wait_seconds": 1.0, "call_seconds": 1.0, "input_tokens": 1, "output_tokens": 1},
)
"""An event of which each sink makes all its metrics."""


class _Instrument:
    """Stands in for an instrument of OpenTelemetry, and notes its attributes."""

    def __init__(self, kind: str, name: str, unit: str, description: str) -> None:
        self.kind, self.name, self.unit, self.description = kind, name, unit, description
        self.attributes: dict[str, None] = {}

    def add(self, _amount: float, attributes: Mapping[str, Any]) -> None:
        """Note the attributes."""
        self.attributes.update(dict.fromkeys(attributes))

    record = add


class _Meter:
    """Stands in for a meter provider of OpenTelemetry and its one meter."""

    def __init__(self) -> None:
        self.instruments: list[_Instrument] = []

    def get_meter(self, *_: Any, **__: Any) -> _Meter:
        return self

    def create_counter(self, name: str, unit: str = "", description: str = "") -> _Instrument:
        return self._made(_Instrument("counter", name, unit, description))

    def create_histogram(self, name: str, unit: str = "", description: str = "") -> _Instrument:
        return self._made(_Instrument("histogram", name, unit, description))

    def _made(self, instrument: _Instrument) -> _Instrument:
        self.instruments.append(instrument)
        return instrument


def metrics_page() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *_of_ops(), *_of_prometheus(), *_of_telemetry()])


def _of_ops() -> Iterator[str]:
    yield from (_OPS, "| metric | type | labels | meaning |", "| --- | --- | --- | --- |")
    for name, spec in METRICS.items():
        is_counter = spec.kind is CounterMetricFamily
        kind, full = ("counter", f"{name}_total") if is_counter else ("gauge", name)
        yield f"| `{full}` | {kind} | {', '.join(spec.labels)} | {spec.meaning} |"
    yield ""


def _of_prometheus() -> Iterator[str]:
    registry = CollectorRegistry()
    PrometheusSink(registry).take(_EVENT)
    families = list(registry.collect())
    yield from (_PROMETHEUS, "| metric | type | labels | meaning |", "| --- | --- | --- | --- |")
    for family in families:
        full = f"{family.name}_total" if family.type == "counter" else family.name
        labels = (name for name in family.samples[0].labels if name != "le")
        yield f"| `{full}` | {family.type} | {', '.join(labels)} | {family.documentation} |"
    yield ""
    yield f"Buckets of both histograms, in seconds: {', '.join(_buckets_of(families))}.\n"


def _buckets_of(families: list[Metric]) -> list[str]:
    """Return the bounds of the buckets, which all histograms have in common."""
    found = [
        [
            sample.labels["le"].removesuffix(".0")
            for sample in family.samples
            if "le" in sample.labels
        ]
        for family in families
        if family.type == "histogram"
    ]
    if any(buckets != found[0] for buckets in found):
        raise ValueError("the histograms have different buckets; let the page name each metric's")
    return found[0]


def _of_telemetry() -> Iterator[str]:
    meter = _Meter()
    provider: Any = meter
    OpenTelemetrySink(meter_provider=provider).take(_EVENT)
    yield from (
        _TELEMETRY,
        "| metric | type | unit | attributes | meaning |",
        "| --- | --- | --- | --- | --- |",
    )
    for one in meter.instruments:
        attributes = ", ".join(f"`{name}`" for name in one.attributes)
        unit = one.unit.strip("{}")
        yield f"| `{one.name}` | {one.kind} | {unit} | {attributes} | {one.description} |"
    yield ""
