"""The measures of compared scenarios: name, unit and better direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One row of a comparison.

    Attributes:
        name: in the iterations of the artifact.
        said: in the table, with the unit.
        is_rate: more is better; of all others less is.
        is_counted: by the server or by callgrind, so the machine's speed is no part of it.
    """

    name: str
    said: str
    is_rate: bool = False
    is_counted: bool = False


def _costs(name: str, said: str) -> tuple[Measure, ...]:
    return (
        Measure(name=f"{name}.fcall_us", said=f"{said}: FCALL, us"),
        Measure(name=f"{name}.commands", said=f"{said}: commands", is_counted=True),
    )


def _instructions(name: str, said: str) -> Measure:
    return Measure(name=f"{name}.instructions", said=f"{said}: instructions", is_counted=True)


MEASURES: Final[dict[str, tuple[Measure, ...]]] = {
    "micro": (
        Measure(name="1x1.mean_ms", said="pair alone, mean, ms"),
        Measure(name="1x1.p95_ms", said="pair alone, p95, ms"),
        Measure(name="1x1.client_cpu_us", said="pair alone: client's CPU, us"),
        *_costs("1x1", "pair alone"),
        _instructions("1x1", "pair alone"),
        Measure(name="1x64.pairs_per_second", said="64 at once, pairs/s", is_rate=True),
        Measure(name="1x64.client_cpu_us", said="64 at once: client's CPU, us"),
        *_costs("1x64", "64 at once"),
        _instructions("1x64", "64 at once"),
        Measure(name="2x64.pairs_per_second", said="2 processes of 64, pairs/s", is_rate=True),
        *_costs("2x64", "2 of 64"),
    ),
    "handoff": (
        Measure(name="handoff.grants_per_second", said="grants/s", is_rate=True),
        Measure(name="handoff.gap_median_ms", said="gap, median, ms"),
        Measure(name="handoff.gap_p95_ms", said="gap, p95, ms"),
        *_costs("handoff", "grant"),
        _instructions("handoff", "grant"),
    ),
    "jobs": (
        Measure(name="jobs.jobs_per_second", said="no-op jobs/s, 1 worker", is_rate=True),
        Measure(name="jobs.submit_to_start_median_ms", said="submit to start, median, ms"),
        *_costs("jobs", "job"),
        _instructions("jobs", "job"),
    ),
}
"""Scenario -> measures of a turn, in the table's order."""
