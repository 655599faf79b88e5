"""The rows of a comparison: as a table for a terminal, and as an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from textwrap import wrap
from typing import Any, Final

from bench.compare.driver import Pairs
from bench.compare.intervals import CONFIDENCE, MARGIN, median_interval, verdict
from bench.compare.measures import MEASURES, Measure
from bench.compare.sides import Side
from bench.report import ARTIFACT_SCHEMA_VERSION, HARNESS_VERSION

SCENARIO_VERSION: Final = 1
LINE: Final = 79
WIDTHS: Final = (29, 8, 9, 5, 11, 12)
"""Widths of the table's columns."""
HEADERS: Final = ("median of the pairs", "baseline", "candidate", "ratio", "95 %", "verdict")
NONE: Final = "-"
THOUSAND: Final = 1_000
MILLION: Final = 1_000_000
METHOD: Final = (
    f"ratio: median of the paired ratios, candidate to baseline; {CONFIDENCE * 100:g} %: its"
    " interval by order statistics (sign test)"
)
RULE: Final = (
    f"worse, better: the whole interval lies beyond {MARGIN * 100:g} %; same: within it;"
    " else inconclusive"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measure of both sides.

    Attributes:
        measure: which.
        baseline: its values, a pair each.
        candidate: the same.
        ratios: candidate to baseline, pair by pair.
    """

    measure: Measure
    baseline: tuple[float, ...]
    candidate: tuple[float, ...]
    ratios: tuple[float, ...]

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the median ratio; None of too few pairs."""
        return median_interval(self.ratios)

    @property
    def verdict(self) -> str:
        """The verdict about the candidate; ``not measured`` where no pair has a ratio."""
        if not self.ratios:
            return "not measured"
        return verdict(self.interval, is_rate=self.measure.is_rate)

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        if not self.ratios:
            return (self.measure.said, NONE, NONE, NONE, NONE, self.verdict)
        interval = self.interval
        return (
            self.measure.said,
            number(median(self.baseline)),
            number(median(self.candidate)),
            f"{median(self.ratios):.3f}",
            NONE if interval is None else "{:.3f}-{:.3f}".format(*interval),
            self.verdict,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the row for an artifact."""
        return {
            "said": self.measure.said,
            "more_is_better": self.measure.is_rate,
            "counted": self.measure.is_counted,
            "baseline_median": median(self.baseline) if self.baseline else None,
            "candidate_median": median(self.candidate) if self.candidate else None,
            "ratios": self.ratios,
            "ratio_median": median(self.ratios) if self.ratios else None,
            "ratio_interval": self.interval,
            "verdict": self.verdict,
        }


def number(value: float) -> str:
    """Return a value with four digits that count, in at most eight characters."""
    if value >= MILLION:
        return f"{value / MILLION:.4g}M"
    return f"{value:.0f}" if value >= THOUSAND else f"{value:.4g}"


def rows_of(scenario: str, pairs: Pairs) -> list[Row]:
    """Return the rows of all measures, measured or not."""
    return [
        Row(
            measure=measure,
            baseline=pairs.values("baseline", measure.name),
            candidate=pairs.values("candidate", measure.name),
            ratios=pairs.ratios(measure.name),
        )
        for measure in MEASURES[scenario]
    ]


def table(scenario: str, sides: tuple[Side, Side], rows: Sequence[Row], pairs: Pairs) -> str:
    """Return the comparison as lines of at most 79 characters."""
    baseline, candidate = sides
    lines = [f"{scenario}: candidate {candidate.sha[:12]} to baseline {baseline.sha[:12]}", ""]
    lines += [_line(cells) for cells in (HEADERS, *(row.cells for row in rows))]
    lines.append("")
    for text in (METHOD, RULE, _counts(rows), _not_counted(pairs), _differences(pairs.versions)):
        lines += wrap(text, LINE)
    return "\n".join(lines) + "\n"


def _counts(rows: Sequence[Row]) -> str:
    """Return how many pairs stand behind the rows: instructions are counted in fewer."""
    counted = {len(row.ratios) for row in rows if row.measure.name.endswith(".instructions")}
    timed = {len(row.ratios) for row in rows if not row.measure.name.endswith(".instructions")}
    said = f"pairs of turns: {max(timed)}"
    return f"{said}; {max(counted)} under callgrind, for instructions" if max(counted) else said


def _line(cells: Sequence[str]) -> str:
    first, *rest = cells
    last = rest.pop()
    middle = " ".join(f"{cell:>{width}}" for cell, width in zip(rest, WIDTHS[1:-1], strict=True))
    return f"{first:<{WIDTHS[0]}} {middle} {last}".rstrip()


def _not_counted(pairs: Pairs) -> str:
    return f"instructions were not counted: {pairs.not_counted}" if pairs.not_counted else ""


def _differences(versions: Mapping[str, Mapping[str, str]]) -> str:
    baseline, candidate = versions["baseline"], versions["candidate"]
    others = [
        f"{name} {baseline[name]} and {candidate[name]}"
        for name in baseline
        if baseline[name] != candidate.get(name)
    ]
    return f"versions differ besides the commits: {'; '.join(others)}" if others else ""


def artifact(
    scenario: str,
    sides: tuple[Side, Side],
    rows: Sequence[Row],
    pairs: Pairs,
    where: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the comparison's artifact (design 08, *Artifact*); what it has none of is null."""
    baseline, candidate = sides
    return {
        "scenario_id": f"compare.{scenario}",
        **where,
        "artifact_schema_version": ARTIFACT_SCHEMA_VERSION,
        "scenario_version": SCENARIO_VERSION,
        "harness_version": HARNESS_VERSION,
        "baseline_sha": baseline.sha,
        "candidate_sha": candidate.sha,
        "inputs": {"scenario": scenario, "pairs": max(len(row.ratios) for row in rows)},
        "provider_script": None,
        "clock_script": None,
        "capacity_plan": None,
        "iterations": pairs.iterations,
        "timeline": None,
        "derived_metrics": {
            "method": f"{METHOD}; {RULE}",
            "comparisons": {row.measure.name: row.as_json() for row in rows},
            "instructions_not_counted": pairs.not_counted,
        },
        "final_task_snapshot": pairs.task_snapshots or None,
        "final_request_snapshot": pairs.request_snapshots or None,
        "output_hashes": None,
        "versions_of_sides": pairs.versions,
    }
