"""Sinks take events, refuse ids as labels, and disturb nothing (issue 19.1)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeter, NoOpMeterProvider
from opentelemetry.trace import NoOpTracer, NoOpTracerProvider
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import CapturingLogger, capture_logs

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.event_kinds import RequestEventKind, SchedulerEventKind
from forebay.contracts.events import EventStream, EventSubject, RuntimeCorrelation, RuntimeEvent
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.coordinator import event_outlet
from forebay.coordinator.event_outlet import EventOutlet
from forebay.sinks import LogSink, MemorySink
from forebay.sinks.labels import BOUNDED
from forebay.sinks.prometheus import PrometheusSink
from forebay.sinks.telemetry import OpenTelemetrySink

CHAT = RequestResourceKey(provider_model=ProviderModelKey(provider_name="p", model_id="secret-m"))
CALL: dict[str, Any] = {
    "reason": "success",
    "diagnostics": {"call_seconds": 2.0, "input_tokens": 7, "output_tokens": 3},
}
ATTEMPT = EventSubject(
    stream=EventStream.REQUEST,
    correlation=RuntimeCorrelation(run_id="run-1"),
    request_attempt_id="attempt-1",
    request_group_key="tenant-7",
    request_resource_key=CHAT,
)
UNCORRELATED = EventSubject(stream=EventStream.REQUEST, request_attempt_id="a")
TASK = EventSubject(stream=EventStream.SCHEDULER, task_id="t")
IDS = ("attempt-1", "tenant-7", "run-1", "secret-m")


class OfRequests:
    def __init__(self) -> None:
        self.taken: list[str] = []

    def emit_request_event(self, event: RuntimeEvent) -> None:
        self.taken.append(event.event_kind)


class Unforeseen(BaseException):
    """No `Exception`, as pytest and trio have some."""


class Raising:
    def emit_request_event(self, event: RuntimeEvent) -> None:
        raise ValueError(event.event_kind)


def tell(*sinks: Any, **fields: Any) -> EventOutlet:
    outlet = EventOutlet(sinks)
    subject = fields.pop("subject", ATTEMPT)
    outlet.emit(RequestEventKind.MODEL_REQUEST_COMPLETED, subject, (5.0, 17), **(fields or CALL))
    return outlet


def told(count: int) -> list[RuntimeEvent]:
    kept = MemorySink()
    for _ in range(count):
        tell(kept)
    return list(kept.events)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of the events that are constructed."""
    kinds: list[str] = []

    def construct(kind: str, *fields: Any) -> RuntimeEvent:
        kinds.append(kind)
        return RuntimeEvent(kind, *fields)

    monkeypatch.setattr(event_outlet, "RuntimeEvent", construct)
    return kinds


def test_no_event_is_built_that_no_sink_takes(built: list[str]) -> None:
    sink = OfRequests()
    for outlet in (EventOutlet(), EventOutlet([sink])):
        outlet.emit(SchedulerEventKind.SELECTED, TASK, (1.0, 1))
    tell()
    assert (built, sink.taken) == ([], [])

    tell(sink, sink)
    assert (built, sink.taken) == (["model_request_completed"], ["model_request_completed"] * 2)


def test_each_layers_sink_gets_that_layers_events_alone() -> None:
    of_requests, of_both = OfRequests(), MemorySink()
    outlet = EventOutlet([of_requests, of_both])
    outlet.emit(SchedulerEventKind.SELECTED, TASK, (1.0, 1))
    outlet.emit(RequestEventKind.REQUEST_WAIT_STARTED, ATTEMPT, (None, None))

    assert of_requests.taken == ["request_wait_started"]
    assert of_both.kinds() == ["selected", "request_wait_started"]
    assert [event.ordinal for event in of_both.events] == [1, 2]
    assert [event.diagnostics for event in of_both.events] == [{}, {"clock": "process"}]


def test_sink_that_raises_loses_its_event_alone_and_is_counted_and_logged_once() -> None:
    after = MemorySink()
    with capture_logs() as logged:
        outlet = EventOutlet([Raising(), after])
        for _ in range(3):
            outlet.emit(RequestEventKind.REQUEST_WAIT_STARTED, ATTEMPT, (1.0, 1))

    assert (outlet.lost, len(after.events)) == ({"Raising": 3}, 3)
    assert [line["event"] for line in logged] == ["event_sink_raised"]


@pytest.mark.parametrize("sink", [object(), MemorySink, print])
def test_an_object_that_takes_no_events_is_refused_as_a_sink(sink: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected an object with emit_scheduler_event"):
        EventOutlet([sink])


def test_an_event_without_a_task_says_that_it_is_uncorrelated() -> None:
    sink = MemorySink()
    tell(sink, subject=UNCORRELATED)
    assert sink.events[0].as_json()["correlation"] is None


def test_log_lines_are_named_by_their_kind() -> None:
    logger = CapturingLogger()
    tell(LogSink(logger, "info"))
    [call] = logger.calls
    assert (call.method_name, call.args) == ("info", ("model_request_completed",))
    assert call.kwargs["reason_or_outcome"] == "success"


def test_prometheus_counts_and_measures_without_ids_or_models_that_are_not_listed() -> None:
    registry = CollectorRegistry()
    tell(PrometheusSink(registry))
    text = generate_latest(registry).decode()

    assert 'event_kind="model_request_completed"' in text
    assert 'forebay_model_request_seconds_sum{domain="chat",model="other",provider="p"' in text
    assert [word for word in IDS if word in text] == []


def test_a_listed_model_is_a_label() -> None:
    registry = CollectorRegistry()
    tell(PrometheusSink(registry, models=["secret-m"]))
    assert 'model="secret-m"' in generate_latest(registry).decode()


def test_a_reason_that_is_none_of_the_known_words_is_other() -> None:
    registry = CollectorRegistry()
    tell(PrometheusSink(registry), **CALL | {"reason": "user text 17"})
    text = generate_latest(registry).decode()
    assert 'reason="other"' in text
    assert "user text" not in text


@pytest.mark.parametrize("label", ["request_attempt_id", "run_id", "group", "model_id", "column"])
def test_metrics_refuse_an_id_as_a_label(label: str) -> None:
    with pytest.raises(ConfigurationError, match="ids, groups, runs and columns"):
        PrometheusSink(CollectorRegistry(), labels=[*BOUNDED, label])
    with pytest.raises(ConfigurationError, match="ids, groups, runs and columns"):
        OpenTelemetrySink(labels=[label])


class Instrument:
    def __init__(self, name: str, seen: list[Any]) -> None:
        self.name, self.seen = name, seen

    def record(self, value: float, attributes: Any) -> None:
        self.seen.append((self.name, value, attributes))

    add = record


class Meter(NoOpMeter):
    def __init__(self, seen: list[Any]) -> None:
        super().__init__("test")
        self.seen = seen

    def create_counter(self, name: str, *_: Any, **__: Any) -> Any:
        return Instrument(name, self.seen)

    create_histogram = create_counter


class Span:
    def __init__(self) -> None:
        self.status: list[Any] = []
        self.ended_ns = 0

    def set_status(self, *status: Any) -> None:
        self.status = [*status]

    def end(self, ended_ns: int) -> None:
        self.ended_ns = ended_ns


class Tracer(NoOpTracer):
    def __init__(self) -> None:
        self.spans: list[tuple[str, Any, Span]] = []

    def start_span(self, name: str, *_: Any, **terms: Any) -> Any:
        self.spans.append((name, terms, Span()))
        return self.spans[-1][2]


def test_telemetry_has_ids_in_spans_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    meters, tracers, tracer = NoOpMeterProvider(), NoOpTracerProvider(), Tracer()
    monkeypatch.setattr(meters, "get_meter", lambda *_, **__: Meter(seen))
    monkeypatch.setattr(tracers, "get_tracer", lambda *_, **__: tracer)
    tell(OpenTelemetrySink(meter_provider=meters, tracer_provider=tracers))
    [(name, terms, span)] = tracer.spans

    assert {one[0] for one in seen} == {
        "forebay.events", "gen_ai.client.operation.duration", "gen_ai.client.token.usage"
    }  # fmt: skip
    assert [word for word in IDS if word in str(seen)] == []
    assert name == "chat other"
    assert terms["attributes"]["forebay.request_attempt_id"] == "attempt-1"
    assert (terms["start_time"], span.ended_ns) == (3_000_000_000, 5_000_000_000)
    assert span.status == []


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, Unforeseen])
def test_sink_that_raises_no_exception_class_loses_its_event_alone(
    error: type[BaseException],
) -> None:
    class RaisingAny:
        def emit_request_event(self, event: RuntimeEvent) -> None:
            raise error

    after = MemorySink()
    outlet = tell(RaisingAny(), after)
    assert (outlet.lost, after.kinds()) == (
        {RaisingAny.__qualname__: 1},
        ["model_request_completed"],
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interruption_of_the_program_within_a_sink_goes_on(error: type[BaseException]) -> None:
    class Interrupted:
        def emit_request_event(self, event: RuntimeEvent) -> None:
            raise error

    with pytest.raises(error):
        tell(Interrupted())


def test_sink_that_blocks_its_caller_is_counted_and_logged_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]

    class Slow:
        def emit_request_event(self, event: RuntimeEvent) -> None:
            clock[0] += 10.0

    monkeypatch.setattr(event_outlet.time, "monotonic", lambda: clock[0])
    with capture_logs() as logged:
        outlet = EventOutlet([Slow(), MemorySink()])
        for _ in range(2):
            outlet.emit(RequestEventKind.REQUEST_WAIT_STARTED, ATTEMPT, (1.0, 1))
    assert outlet.blocked == {Slow.__qualname__: 2}
    assert [(line["event"], line["seconds"]) for line in logged] == [("event_sink_blocked", 10.0)]
