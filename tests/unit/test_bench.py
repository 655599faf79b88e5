from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench import handoff, harness, many_waiters, memory, micro, recovery, report
from bench.__main__ import SCENARIOS, main
from bench.figures import Figure, Iterations, in_unit, jain_index, medians, of_rounds, ratios
from bench.harness import InvariantBrokenError, Outcome, new_event_loop, new_runner, rotated
from bench.holds import Hold, handoffs, max_holders, summarize
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import RequestResourceKey
from forebay.contracts.requests import RequestAdmissionItem
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController

ROOT = Path(__file__).parents[2]


def hold(start: float, end: float, waiter: int = 0) -> Hold:
    return Hold(process=waiter % 2, waiter=waiter, start=start, end=end)


def gaps(holds: list[Hold], cap: int) -> list[float]:
    return [after.start - before.end for before, after in handoffs(holds, cap)]


# -- holds


@pytest.mark.parametrize(
    ("amounts", "index"), [([5, 5, 5, 5], 1.0), ([8, 0, 0, 0], 0.25), ([0, 0], 1.0), ([], 1.0)]
)
def test_jain_index_goes_from_one_over_n_to_one(amounts: list[float], index: float) -> None:
    assert jain_index(amounts) == pytest.approx(index)


def test_most_holders_counts_what_was_open_at_one_instant() -> None:
    assert max_holders([hold(0, 4), hold(1, 2), hold(3, 5), hold(3.5, 6)]) == 3


def test_a_slot_handed_on_in_the_same_instant_is_held_once() -> None:
    assert max_holders([hold(0, 1), hold(1, 2)]) == 1


def test_no_hold_has_no_holder() -> None:
    assert max_holders([]) == 0


def test_each_release_is_paired_with_the_start_it_made_room_for() -> None:
    holds = [hold(0, 5), hold(0, 3), hold(3.5, 9), hold(5.25, 10)]
    assert gaps(holds, cap=2) == [0.5, 0.25]


def test_a_hold_beyond_the_cap_shows_as_a_negative_gap() -> None:
    assert gaps([hold(0, 5), hold(1, 6)], cap=1) == [-4]


def test_only_what_started_in_the_window_is_counted_but_every_holder_is_seen() -> None:
    holds = [hold(0, 2, 0), hold(0, 2, 1), hold(0, 2, 2)]  # before the window
    holds += [hold(n, n + 0.5, n % 2) for n in range(10, 20)]
    assert summarize(holds, cap=1, waiters=2, start=10, end=20) == pytest.approx(
        {
            "grants_per_second": 1.0,
            "crossing_share": 1.0,
            "gap_median_ms": 500.0,
            "gap_p95_ms": 500.0,
            "hold_median_ms": 500.0,
            "jain_index": 1.0,
            "max_holders": 3,
        }
    )


def test_a_waiter_that_got_nothing_lowers_the_index() -> None:
    holds = [hold(n, n + 0.5, 0) for n in range(10)]
    assert summarize(holds, cap=1, waiters=4, start=0, end=10)["jain_index"] == pytest.approx(0.25)


# -- figures


def figure(*rounds: float, **fields: Any) -> Figure:
    return Figure(name="f", rounds=rounds, **fields)


@pytest.mark.parametrize(
    ("aimed", "held"),
    [
        (figure(1.0, 1.4, 9.0, aim=1.4), True),
        (figure(1.0, 1.41, 9.0, aim=1.4), False),
        (figure(2.4, 2.5, 2.6, aim=2.5, is_floor=True), True),
        (figure(2.4, 2.49, 2.6, aim=2.5, is_floor=True), False),
        (figure(8, 8, 9, aim=8, is_worst=True), False),
        (figure(8, 8, 8, aim=8, is_worst=True), True),
        (figure(3, 2, 3, aim=3, is_floor=True, is_worst=True), False),
        (figure(7), None),
    ],
)
def test_an_aim_is_held_by_the_median_or_by_the_worst_round(
    aimed: Figure, held: bool | None
) -> None:
    assert aimed.is_held is held


def test_a_figure_just_short_of_its_aim_is_not_printed_as_the_aim() -> None:
    row = figure(0.9979, aim=0.998, is_floor=True, beside="fifo 0.999").row
    assert row == ("f", "≥ 0.998", "0.9979", "fifo 0.999", "**no**")


def test_large_numbers_are_printed_whole() -> None:
    assert in_unit(23456.7, "pairs/s") == "23457 pairs/s"


def test_a_ratio_is_taken_round_by_round() -> None:
    found: Iterations = [{"a": 9.0, "b": 10.0}, {"a": 4.0, "b": 5.0}, {"a": 8.0, "b": 8.0}]
    assert ratios(found, "a", "b") == (0.9, 0.8, 1.0)


def test_a_measure_of_the_last_round_only_has_one_value() -> None:
    found: Iterations = [{"a": 1.0}, {"a": 3.0, "late": 7.0}]
    assert of_rounds(found, "late") == (7.0,)
    assert medians(found) == {"a": 2.0, "late": 7.0}


def test_each_goes_first_in_some_round() -> None:
    assert [rotated("abc", number)[0] for number in range(4)] == ["a", "b", "c", "a"]


class Same(dict[str, float]):
    """A round in which every measure is the same, but for those named."""

    def __missing__(self, name: str) -> float:
        return 1.0

    def __contains__(self, name: object) -> bool:
        return True


AIMS_OF_THE_ISSUE = {
    ("at most", 1.4): 1,
    ("at least", 2.5): 1,
    ("at least", 1.0): 2,
    ("at least", 0.96): 4,
    ("at most", 3.0): 8,
    ("at least", 0.998): 4,
    ("at most", 8): 4,
    ("at most", 2.5): 2,
    ("at most", 15.5): 2,
    ("at most", 1.3): 8,
    ("at most", 400): 4,
    ("at most", 500): 4,
}


def test_every_aim_of_the_issue_has_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (micro, handoff, many_waiters, memory):
        monkeypatch.setattr(module, "medians", lambda found: found[0])
    found: Iterations = [Same()]
    figures = [
        *micro.figures(found),
        *handoff.figures(found),
        *recovery.figures(recovery.FULL, found),
        *many_waiters.figures(many_waiters.FULL, found),
        *memory.figures(found),
    ]
    aims: dict[tuple[str, float], int] = {}
    for aimed in figures:
        if aimed.aim is not None:
            aim = ("at least" if aimed.is_floor else "at most", aimed.aim)
            aims[aim] = aims.get(aim, 0) + 1
    assert aims == AIMS_OF_THE_ISSUE
    assert len({aimed.name for aimed in figures}) == len(figures)


def test_64_in_flight_is_compared_with_64_raw_pairs_of_one_process() -> None:
    found: Iterations = [
        {
            f"{limiter}.{load}.{measure}": rate
            for limiter, rate in (("forebay", 30.0), ("raw", 10.0))
            for load in micro.LOADS
            for measure in ("pairs_per_second", "mean_ms", "p50_ms", "p95_ms")
        }
    ]
    by_name = {aimed.name: aimed for aimed in micro.figures(found)}
    ratio = by_name["64 in flight in 1 process, to raw"]
    assert (ratio.measured, ratio.is_held) == (3.0, True)
    assert ratio.beside == "30 pairs/s / 10 pairs/s"
    assert by_name["pair alone, mean, in raw pairs"].is_held is False


# -- the harness


def test_without_uvloop_nothing_is_measured_and_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(ConfigurationError, match=r"run pip install '\.\[uvloop\]' in "):
        new_event_loop()
    assert isinstance(CliRunner().invoke(main, ["--smoke"]).exception, ConfigurationError)


async def end_at_once(_orders: harness.Orders) -> None:
    """Be a process that ends without saying that it is ready."""


def test_a_process_that_ends_instead_of_answering_is_named() -> None:
    with pytest.raises(InvariantBrokenError, match="process 0 ended instead of answering"):
        harness.Fleet(1, end_at_once).__enter__()


def test_a_lease_that_is_left_behind_is_named_and_ends_the_run(redis_url: str) -> None:
    with new_runner() as runner:
        coordinator = runner.run(Coordinator.open(redis_url))
        held = runner.run(hold_one(coordinator))
        with pytest.raises(InvariantBrokenError, match="expected no lease, no waiter"):
            harness.final_snapshots(redis_url, micro.PROVIDER_MODEL)
        runner.run(held.close())
        runner.run(coordinator.close())
    assert harness.final_snapshots(redis_url, micro.PROVIDER_MODEL)


async def hold_one(coordinator: Coordinator) -> AdaptiveRequestAdmissionController:
    controller = AdaptiveRequestAdmissionController(coordinator)
    await controller.register(micro.PROVIDER_MODEL, "bench", 1)
    resource = RequestResourceKey(provider_model=micro.PROVIDER_MODEL)
    await controller.acquire(RequestAdmissionItem(resource=resource))
    return controller


def test_the_summary_says_with_which_command_and_where_it_was_measured() -> None:
    where = {
        "command_line": "python -m bench all",
        "date": "2026-01-01",
        "candidate_sha": "0123456789abcdef",
        "has_uncommitted_changes": True,
        "is_smoke": False,
        "machine": {"cores": 2, "load_average_at_start": (0.125, 0, 0)},
        "versions": {"python": "3.11", "loop": "uvloop 1", "redis-py": "5.3", "server": "Valkey 9"},
    }
    outcome = Outcome(
        inputs={"rounds": 5},
        iterations=[],
        figures=[figure(1.5, aim=1.4, beside="raw 1 ms")],
        final_request_snapshots={},
    )
    text = report.markdown(where, {"micro": outcome})
    assert "`python -m bench all`, 2026-01-01, commit 0123456789ab with uncommitted" in text
    assert "2 cores, load 0.12 at the start; Python 3.11, uvloop 1, redis-py 5.3, Valkey 9" in text
    assert "Medians of 5 rounds" in text
    assert "| f | ≤ 1.4 | 1.5 | raw 1 ms | **no** |" in text


def test_smoke_runs_every_scenario_and_leaves_no_lease_and_no_waiter(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "bench", "--smoke", "--out", tmp_path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    figures = list(csv.reader((tmp_path / "figures.csv").read_text().splitlines()))
    assert {row[0] for row in figures[1:]} == set(SCENARIOS)
    assert "A smoke run" in (tmp_path / "summary.md").read_text()
    for name in SCENARIOS:
        artifact = json.loads((tmp_path / f"{name}.json").read_text())
        assert artifact["scenario_id"] == name
        assert artifact["versions"]["loop"].startswith("uvloop")
        assert artifact["derived_metrics"]["figures"]
        assert all(found["wall_time_seconds"] > 0 for found in artifact["iterations"])
        assert artifact["final_request_snapshot"] or artifact["final_task_snapshot"]
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    holders = json.loads((tmp_path / "handoff.json").read_text())["iterations"][0]
    assert all(most <= 8 for name, most in holders.items() if name.endswith("max_holders"))
