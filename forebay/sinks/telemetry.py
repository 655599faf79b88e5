"""Events as metrics and spans of the OpenTelemetry API; needs the extra ``otel``.

It configures no SDK and no exporter: what a program has set up is used, else nothing is recorded.
Names are those of the semantic conventions for generative AI where there are any.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from opentelemetry import metrics, trace

from forebay.contracts.events import RuntimeEvent
from forebay.contracts.identity import RequestDomain
from forebay.sinks.base import BothStreams
from forebay.sinks.labels import BOUNDED, Labels

_OPERATIONS: Final = {
    RequestDomain.CHAT: "chat",
    RequestDomain.EMBEDDING: "embeddings",
    RequestDomain.IMAGE: "generate_content",
}


class OpenTelemetrySink(BothStreams):
    """Records a counter of events, the durations of waits and calls, tokens, and a span per call.

    Ids are attributes of spans alone, never of metrics.

    Args:
        labels: attributes of the counter.
        models: model ids that may be attributes of metrics; others are ``other``.
        meter_provider: of the API; None is the global one.
        tracer_provider: of the API; None is the global one.

    Raises:
        ConfigurationError: a label is none of the bounded ones, such as an id.
    """

    def __init__(
        self,
        *,
        labels: Sequence[str] = BOUNDED,
        models: Collection[str] = (),
        meter_provider: metrics.MeterProvider | None = None,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        self._labels = Labels(labels, models)
        self._of_calls = Labels(("provider", "model"), models)
        meter = metrics.get_meter("forebay", meter_provider=meter_provider)
        self._tracer = trace.get_tracer("forebay", tracer_provider=tracer_provider)
        self._events = meter.create_counter("forebay.events", description="Events of this process.")
        self._waits = meter.create_histogram(
            "forebay.request.wait", "s", "Seconds that attempts waited for a lease."
        )
        self._calls = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "Seconds that provider calls took."
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens of provider calls."
        )

    def take(self, event: RuntimeEvent) -> None:
        """Record an event."""
        labels = self._labels.of(event)
        self._events.add(1, {f"forebay.{name}": value for name, value in labels.items()})
        if "wait_seconds" in event.diagnostics:
            self._waits.record(event.diagnostics["wait_seconds"], self._of_call(event))
        if "call_seconds" in event.diagnostics:
            self._record_call(event)

    def _record_call(self, event: RuntimeEvent) -> None:
        attributes, details = self._of_call(event), event.diagnostics
        if event.reason_or_outcome != "success":
            attributes["error.type"] = Labels(("reason",)).of(event)["reason"]
        self._calls.record(details["call_seconds"], attributes)
        for kind in ("input", "output"):
            if (tokens := details.get(f"{kind}_tokens")) is not None:
                self._tokens.record(tokens, {**attributes, "gen_ai.token.type": kind})
        ended_ns = round(event.captured_at * 1e9)
        span = self._tracer.start_span(
            f"{attributes['gen_ai.operation.name']} {attributes['gen_ai.request.model']}",
            kind=trace.SpanKind.CLIENT,
            start_time=ended_ns - round(details["call_seconds"] * 1e9),
            attributes={**attributes, **_ids_of(event)},
        )
        if event.reason_or_outcome != "success":
            span.set_status(trace.StatusCode.ERROR, event.reason_or_outcome)
        span.end(ended_ns)

    def _of_call(self, event: RuntimeEvent) -> dict[str, Any]:
        labels, resource = self._of_calls.of(event), event.request_resource_key
        domain = RequestDomain.CHAT if resource is None else resource.domain
        return {
            "gen_ai.operation.name": _OPERATIONS.get(domain, domain.value),
            "gen_ai.provider.name": labels["provider"],
            "gen_ai.request.model": labels["model"],
        }


def _ids_of(event: RuntimeEvent) -> dict[str, str]:
    """Return the ids of an event, which may be attributes of a span."""
    ids = {
        "forebay.request_attempt_id": event.request_attempt_id,
        "forebay.request_group": event.request_group_key,
        "forebay.task_execution_id": event.task_execution_id,
        "forebay.run_id": None if event.correlation is None else event.correlation.run_id,
    }
    return {name: value for name, value in ids.items() if value is not None}
