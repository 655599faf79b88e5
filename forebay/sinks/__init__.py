"""Sinks of events: `forebay.connect(..., event_sinks=[...])` takes them (docs/events.md).

`telemetry.OpenTelemetrySink` and `prometheus.PrometheusSink` need the extras ``otel`` and
``prometheus``, so each is imported from its own module.
"""

from forebay.sinks.json_lines import JsonLinesSink
from forebay.sinks.logged import LogSink
from forebay.sinks.memory import MemorySink
from forebay.sinks.stream import RedisStreamSink

__all__ = ["JsonLinesSink", "LogSink", "MemorySink", "RedisStreamSink"]
