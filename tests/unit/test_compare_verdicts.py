"""What paired ratios say of two commits, and how it is told."""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from pathlib import Path

import pytest

from bench.compare import comparison
from bench.compare.comparison import artifact, rows_of, table
from bench.compare.driver import Pairs
from bench.compare.intervals import median_interval, verdict
from bench.compare.measures import MEASURES
from bench.compare.sides import Side
from bench.compare.turns import TURNS

SIDES = (
    Side(role="baseline", sha="b" * 40, python=Path("python")),
    Side(role="candidate", sha="c" * 40, python=Path("python")),
)
VERSIONS = {"python": "3.11.7", "server": "Valkey 9.1"}
FIELDS_OF_SPEC_08 = {
    "scenario_id", "artifact_schema_version", "scenario_version", "harness_version",
    "baseline_sha", "candidate_sha", "inputs", "provider_script", "clock_script",
    "capacity_plan", "iterations", "derived_metrics", "final_task_snapshot",
    "final_request_snapshot", "output_hashes", "machine", "versions", "command_line",
}  # fmt: skip

# -- the interval


@pytest.mark.parametrize(
    ("count", "ranks"),
    [(6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (20, (6, 15)), (25, (8, 18)), (30, (10, 21))],
)
def test_the_interval_of_the_median_is_that_of_the_sign_test(
    count: int, ranks: tuple[int, int]
) -> None:
    shuffled = [float(value) for value in [*range(2, count + 1, 2), *range(1, count + 1, 2)]]
    assert median_interval(shuffled) == ranks


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few_values_have_no_interval(count: int) -> None:
    assert median_interval([1.0] * count) is None


@pytest.mark.parametrize("count", range(6, 120))
def test_the_interval_misses_the_median_in_at_most_one_case_of_twenty(count: int) -> None:
    found = median_interval([float(value) for value in range(1, count + 1)])
    assert found is not None
    low, high = found

    def missed(rank: float) -> float:
        """How often fewer than ``rank`` of so many coins show heads, or as few show tails."""
        return 2 * sum(comb(count, heads) for heads in range(int(rank))) / 2**count

    assert missed(low) <= 0.05 < missed(low + 1), "as narrow as it may be"
    assert low + high == count + 1, "and as far from either end"


# -- the verdict


@pytest.mark.parametrize(
    ("interval", "of_rate", "of_cost"),
    [
        ((1.031, 1.2), "better", "worse"),
        ((0.8, 0.969), "worse", "better"),
        ((0.97, 1.03), "same", "same"),
        ((0.969, 1.0), "inconclusive", "inconclusive"),
        ((1.0, 1.031), "inconclusive", "inconclusive"),
        ((1.02, 1.5), "inconclusive", "inconclusive"),
        ((0.5, 2.0), "inconclusive", "inconclusive"),
        (None, "inconclusive", "inconclusive"),
    ],
)
def test_only_an_interval_that_lies_beyond_3_percent_is_a_change(
    interval: tuple[float, float] | None, of_rate: str, of_cost: str
) -> None:
    assert verdict(interval, is_rate=True) == of_rate
    assert verdict(interval, is_rate=False) == of_cost


# -- pairs


def pairs_of(scenario: str, value: Callable[[str], float], count: int = 20) -> Pairs:
    one = {
        f"{role}.{measure.name}": value(role)
        for role in ("baseline", "candidate")
        for measure in MEASURES[scenario]
    }
    versions = {"baseline": VERSIONS, "candidate": VERSIONS}
    return Pairs(iterations=[dict(one) for _ in range(count)], versions=versions)


def test_a_ratio_is_taken_pair_by_pair_where_both_sides_have_a_value() -> None:
    pairs = Pairs(
        iterations=[
            {"baseline.a": 2.0, "candidate.a": 3.0},
            {"baseline.a": 0.0, "candidate.a": 3.0},  # a turn in which nothing ended
            {"candidate.a": 3.0},
            {"baseline.a": 4.0, "candidate.a": 4.0},
        ]
    )
    assert pairs.ratios("a") == (1.5, 1.0)
    assert pairs.values("baseline", "a") == (2.0, 4.0)


def test_every_scenario_that_is_compared_has_turns_and_measures() -> None:
    assert set(TURNS) == set(MEASURES) == {"micro", "handoff", "jobs"}


# -- the table


@pytest.mark.parametrize("scenario", MEASURES)
@pytest.mark.parametrize("value", [0.000123456, 0.3354, 99_999.4, 999_999.4, 123_456_789.1])
def test_every_line_of_the_table_fits_a_terminal(scenario: str, value: float) -> None:
    pairs = pairs_of(scenario, lambda role: value if role == "baseline" else value * 12.3456)
    pairs.not_counted = "valgrind is not installed, expected it on PATH (apt-get install valgrind)"
    pairs.versions["candidate"] = VERSIONS | {"server": "another server of a long name " * 3}
    lines = table(scenario, SIDES, rows_of(scenario, pairs), pairs).splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.endswith(("better", "worse"))]
    assert len(rows) == len(MEASURES[scenario])


def test_the_table_tells_both_commits_values_ratio_interval_and_verdict() -> None:
    pairs = pairs_of("handoff", lambda role: 1000.0 if role == "baseline" else 1100.0)
    text = table("handoff", SIDES, rows_of("handoff", pairs), pairs)
    assert "candidate cccccccccccc to baseline bbbbbbbbbbbb" in text
    cells = next(line for line in text.splitlines() if line.startswith("grants/s")).split()
    assert cells == ["grants/s", "1000", "1100", "1.100", "1.100-1.100", "better"]
    assert "gap, median, ms" in text
    assert "order statistics (sign test)" in text
    assert "pairs of turns: 20" in text


def test_what_was_not_counted_or_not_measured_is_said() -> None:
    pairs = pairs_of("jobs", lambda _role: 1.0)
    for one in pairs.iterations:
        del one["baseline.jobs.instructions"]
    pairs.not_counted = "valgrind is not installed"
    pairs.versions["candidate"] = VERSIONS | {"python": "3.13.0"}
    text = table("jobs", SIDES, rows_of("jobs", pairs), pairs)
    row = next(line for line in text.splitlines() if line.startswith("job: instructions"))
    assert row.split()[2:] == ["-", "-", "-", "-", "not", "measured"]
    assert "instructions were not counted: valgrind is not installed" in text
    assert "versions differ besides the commits: python 3.11.7 and 3.13.0" in text


def test_the_artifact_has_every_field_of_the_others() -> None:
    pairs = pairs_of("micro", lambda _role: 2.0)
    pairs.request_snapshots = {"baseline": {}, "candidate": {}}
    rows = rows_of("micro", pairs)
    where = {"machine": {}, "versions": {}, "command_line": "", "baseline_sha": None}
    written = artifact("micro", SIDES, rows, pairs, where)
    assert set(written) >= FIELDS_OF_SPEC_08
    assert (written["baseline_sha"], written["candidate_sha"]) == ("b" * 40, "c" * 40)
    assert written["inputs"]["pairs"] == 20
    found = written["derived_metrics"]["comparisons"]["1x64.pairs_per_second"]
    assert found["ratio_interval"] == (1.0, 1.0)
    assert found["verdict"] == "same"
    assert comparison.METHOD in written["derived_metrics"]["method"]
