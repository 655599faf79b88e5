"""``python -m bench shared-capacity``: what its figures mean, and what an interrupted run keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import CliRunner

from bench.shared_capacity import command, run
from bench.shared_capacity.command import shared_capacity
from bench.shared_capacity.figures import misses, see
from bench.shared_capacity.fleets import OTHERS, way_of
from bench.shared_capacity.rows import ROWS, Aims
from bench.shared_capacity.table import table
from forebay import RequestDomain

STEPS = ROWS["mock-steps"]


def fleet(answers: list[tuple[float, int, str]], windows: Any = ()) -> dict[str, Any]:
    return {"answers": answers, "windows": list(windows)}


def evenly(per_second: int, begins: float, ends: float, status: int = 200) -> list[Any]:
    count = round(per_second * (ends - begins))
    return [(begins + n / per_second, status, "all") for n in range(count)]


def test_goodput_is_of_the_settled_spans_and_to_the_fleet_that_ran_beside() -> None:
    row = replace(ROWS["mock-24"], settled=((10.0, 20.0),))
    told = fleet(evenly(10, 0, 30))
    seen = see(row, fleet([*evenly(9, 0, 20), *evenly(1, 0, 20, 429)]), told)
    assert (seen.goodput, seen.to_told) == (9.0, 0.9)
    assert (seen.refused, seen.refused_share) == (10, 0.1)
    assert (seen.refused_in_all, seen.first) == (20, 10)
    assert seen.wasted == pytest.approx(0.1)


def test_503_and_529_are_refusals_too() -> None:
    answers = [(40.0, 503, "all"), (41.0, 529, "all"), (42.0, 200, "all")]
    assert see(ROWS["mock-24"], fleet(answers), None).refused == 2


def test_a_step_is_followed_at_nine_tenths_up_and_when_no_more_are_out_down() -> None:
    windows = [
        (39.0, 12, 12),
        (45.0, 21, 20),
        (46.0, 22, 22),
        (80.1, 22, 22),
        (81.0, 11, 13),
        (82.5, 11, 12),
    ]
    seen = see(STEPS, fleet([], windows), None)
    assert seen.recovery == (6.0, 2.5)
    assert see(STEPS, fleet([], windows[:2]), None).recovery == (None, None)


def test_after_an_outage_goodput_is_back_at_nine_tenths_of_before() -> None:
    row = ROWS["mock-outage"]
    answers = [*evenly(40, 0, 30), *evenly(20, 50, 53), *evenly(37, 53, 80)]
    answers += [(31.0, 503, "all"), (36.0, 503, "all"), (38.0, 503, "all")]
    seen = see(row, fleet(answers), None)
    assert seen.recovery[0] == pytest.approx(2.8, abs=0.3)
    assert (seen.first, seen.probes) == (1, 2)


def test_each_aim_that_is_missed_is_named() -> None:
    row = replace(
        ROWS["mock-tenants"],
        settled=((0.0, 10.0),),
        aims=Aims(first=0, share_error=0.02),
    )
    good = [(n / 10, 200, "three" if n % 2 else "one") for n in range(100)]
    found = misses(row, see(row, fleet([*good, (1.0, 429, "one"), (2.0, 429, "one")]), None))
    assert found == [
        "429s 2 > 2",
        "first refusals 2 > 0",
        "share of three 50.0%",
        "share of one 50.0%",
    ]


def test_a_fleet_that_is_told_has_the_limit_and_follows_its_changes() -> None:
    way = way_of("told", STEPS)
    assert way.max_parallel_requests == 24
    assert way.config.initial_limits == {RequestDomain.CHAT: 12}
    assert [STEPS.limit_at(second) for second in (0, 39, 40, 80)] == [12, 12, 24, 12]


def test_each_fleet_reaches_the_provider_in_its_own_way() -> None:
    row = ROWS["mock-24"]
    assert way_of("steady", row).config.tuning.rule == "steady"
    assert way_of("aimd", row).config.tuning.rule == "aimd"
    assert way_of("aimd-each", row).is_apart
    assert way_of("split", row).connections == 6
    assert way_of("sdk", row).max_parallel_requests is None


def test_an_artifact_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "row.told-steady.1.json"
    run.write({"fleets": {}}, path)
    with pytest.raises(TypeError):
        run.write({"fleets": object()}, path)
    assert json.loads(path.read_text()) == {"fleets": {}}


class Done(Exception):  # noqa: N818 - it stands for an interruption
    """The run was interrupted."""


class NoProcesses:
    """Stands for the processes that call."""

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_an_interrupted_run_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, tuple[str, ...], int]] = []

    def run_row(_: Any, row: Any, ways: Any, number: int) -> dict[str, Any]:
        if len(ran) == 3:
            raise Done
        ran.append((row.name, tuple(ways), number))
        parts = {way: fleet(evenly(10, 0, 90)) for way in ways}
        return {"inputs": {"row": row.name}, "fleets": parts}

    monkeypatch.setattr(command, "run_row", run_row)
    monkeypatch.setattr(command, "Processes", NoProcesses)
    arguments = ["mock-24", "mock-noise", "--runs", "2", "--others", "--out", str(tmp_path)]
    assert isinstance(CliRunner().invoke(shared_capacity, arguments).exception, Done)
    first, ran[:] = list(ran), []
    pair = ("told", "steady")
    assert first == [("mock-24", pair, 1), ("mock-noise", pair, 1), ("mock-24", pair, 2)]
    assert isinstance(CliRunner().invoke(shared_capacity, arguments).exception, Done)
    assert ran == [("mock-noise", pair, 2), *(("mock-24", (way,), 1) for way in OTHERS[:2])]


def test_the_table_has_the_worst_of_the_runs(tmp_path: Path) -> None:
    for number, per_second in ((1, 10), (2, 8)):
        parts = {"told": fleet(evenly(10, 0, 90)), "steady": fleet(evenly(per_second, 0, 90))}
        run.write({"fleets": parts}, tmp_path / f"mock-24.told-steady.{number}.json")
    run.write({"fleets": {"sdk": fleet(evenly(5, 0, 90))}}, tmp_path / "mock-24.sdk.1.json")
    steady, sdk = table(tmp_path).splitlines()[-2:]
    assert "| steady | 2 | 8.00 | 80.0% |" in steady
    assert "goodput 80.0% < 97%" in steady
    assert "| sdk | 1 | 5.00 | 50.0% |" in sdk


def test_a_row_that_does_not_exist_is_refused() -> None:
    refused = CliRunner().invoke(shared_capacity, ["nginx"])
    assert refused.exit_code == 2
    assert "'nginx' is no row; --list names them." in refused.output
