from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench import (
    crash,
    handoff,
    harness,
    jobs,
    many_waiters,
    memory,
    micro,
    recovery,
    report,
    transport,
)
from bench.__main__ import main
from bench.figures import Figure, Iterations, in_unit, jain_index, medians, of_rounds, p95, ratios
from bench.harness import InvariantBrokenError, Outcome, new_event_loop, new_runner, rotated
from bench.holds import Hold, handoffs, max_holders, summarize
from bench.plot import draw
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import RequestResourceKey
from forebay.contracts.requests import RequestAdmissionItem
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.server_connection import ServerConnection


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
    assert row == ("f", "≥ 0.998", "0.9979", "", "fifo 0.999", "**no**")


@pytest.mark.parametrize(
    ("rounds", "is_floor", "said"),
    [
        ((1.1, 1.2, 1.3, 1.4, 1.5, 1.6), True, "yes"),
        ((0.9, 1.2, 1.3, 1.4, 1.5, 1.6), True, "yes, close"),
        ((0.6, 0.7, 0.8, 0.9, 0.95, 1.0), True, "**no**, close"),
        ((0.5, 0.6, 0.7, 0.8, 0.9, 0.95), True, "**no**"),
        ((0.6, 0.7, 0.8, 0.9, 0.95, 1.0), False, "yes"),
        ((1.0, 1.2, 1.3, 1.4, 1.5, 1.6), False, "**no**, close"),
        ((0.6, 1.7), True, "yes"),
    ],
)
def test_an_aim_between_the_ends_of_the_interval_is_close(
    rounds: tuple[float, ...], is_floor: bool, said: str
) -> None:
    ordered = sorted(rounds)
    row = figure(*rounds, aim=1.0, is_floor=is_floor).row
    assert row[-1] == said
    assert row[3] == ("" if len(rounds) < 6 else f"{ordered[0]:.4g} - {ordered[-1]:.4g}")


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


class Alike(dict[str, float]):
    """A round in which every measure has the same value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def __missing__(self, name: str) -> float:
        return self._value

    def __contains__(self, name: object) -> bool:
        return True


AIMS_OF_THE_ISSUE = {
    ("at most", 1.4): 1,
    ("at least", 2.5): 1,
    ("at least", 1.0): 9,
    ("at most", 1.0): 1,
    ("at least", 0.96): 5,
    ("at most", 3.0): 10,
    ("at least", 0.998): 5,
    ("at most", 8): 5,
    ("at most", 2.5): 2,
    ("at most", 15.5): 2,
    ("at most", 1.3): 8,
    ("at most", 400): 4,
    ("at most", 500): 4,
}


def every_figure(found: Iterations) -> list[Figure]:
    return [
        *micro.figures(found),
        *handoff.figures(found),
        *recovery.figures(recovery.FULL, found),
        *many_waiters.figures(many_waiters.FULL, found),
        *memory.figures(found),
    ]


def test_every_aim_of_the_issue_has_its_figures() -> None:
    found: Iterations = [Alike(1.0)]
    figures = every_figure(found)
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


# -- a busy machine: a turn in which nothing ended


class IdleFleet:
    """Processes that got no time: each answers that nothing ended in the counted time."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def ask(self, orders: dict[int, Any]) -> list[Any]:
        return [self._answer for _ in orders]


IDLE: Any = IdleFleet([])


def test_a_turn_in_which_nothing_ended_has_a_rate_of_0_and_no_durations() -> None:
    load = micro.Load(1, 64)
    assert micro._measure(IDLE, "raw", load, micro.SMOKE) == {"raw.1x64.pairs_per_second": 0.0}
    case = handoff.CASES[0]
    assert handoff._measure_limiter(IDLE, "fifo", case, handoff.SMOKE) == {
        "grants_per_second": 0.0,
        "max_holders": 0.0,
    }
    assert handoff._measure_publish(IDLE, "publish_idle", case, handoff.SMOKE) == {
        "messages_per_second": 0.0
    }
    answering_none: Any = IdleFleet(0)
    assert set(transport._round(answering_none, transport.SMOKE, 0).values()) == {0.0}


def test_one_grant_that_handed_nothing_on_has_no_gap() -> None:
    found = summarize([hold(1, 2)], cap=8, waiters=1, start=0, end=10)
    assert found == {
        "grants_per_second": 0.1,
        "max_holders": 1.0,
        "jain_index": 1.0,
        "hold_median_ms": 1000.0,
    }


def test_jobs_that_started_at_one_instant_have_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = jobs.Turns(IDLE, StandIn(), "unix:///nowhere", print)
    monkeypatch.setattr(turns, "_ended", lambda *_: [5.0, 5.0])
    assert turns.rate("forebay", 1, 2) is None


def test_a_peer_whose_jobs_take_too_long_is_not_measured_and_forebays_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    turns = jobs.Turns(IDLE, StandIn(), "unix:///nowhere", said.append)
    monkeypatch.setattr(turns, "_is_reached", lambda *_: False)
    assert turns.rate("arq", 1, 2) is None
    assert turns.latencies("arq", jobs.SMOKE) == []
    assert said[0].startswith("jobs: arq (poll 10 ms) did not end 2 jobs within 120 s")
    with pytest.raises(InvariantBrokenError, match="expected each of 2 once"):
        turns.rate("forebay", 1, 2)


class StandIn:
    """A client whose server is emptied."""

    def flushall(self) -> None:
        return None

    def scan_iter(self, *_pattern: str, **_options: int) -> list[bytes]:
        return []


def test_one_duration_is_its_own_95th_percentile() -> None:
    assert p95([0.25]) == 0.25


def test_rate_counts_the_holds_that_ended_in_a_time() -> None:
    holds = [hold(0, 0.9), hold(0, 1), hold(0, 1.5), hold(0, 3)]
    assert crash.rate(holds, 1, 3) == 1.0


def test_no_ratio_is_taken_to_0_nor_to_what_a_round_lacks() -> None:
    found: Iterations = [{"a": 9.0, "b": 0.0}, {"a": 9.0}, {"b": 3.0}, {"a": 6.0, "b": 3.0}]
    assert ratios(found, "a", "b") == (2.0,)


@pytest.mark.parametrize("round_", [{}, Alike(0.0)], ids=["no value", "all 0"])
def test_what_could_not_be_measured_is_said_in_every_output(
    round_: dict[str, float], tmp_path: Path
) -> None:
    figures = every_figure([round_])
    figures += [*jobs.figures(jobs.FULL, [round_]), *crash.figures(crash.FULL, [round_])]
    empty = [aimed for aimed in figures if not aimed.rounds]
    assert empty
    for aimed in empty:
        assert aimed.row[2] == "not measured"
        assert aimed.is_held is None
        assert aimed.as_json()["measured"] is None
    draw(figures, "busy", tmp_path / "busy.png")
    assert (tmp_path / "busy.png").read_bytes().startswith(b"\x89PNG")


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
        connection = runner.run(ServerConnection.open(redis_url))
        held = runner.run(hold_one(connection))
        with pytest.raises(InvariantBrokenError, match="expected no lease, no waiter"):
            harness.final_snapshots(redis_url, micro.PROVIDER_MODEL)
        runner.run(held.close())
        runner.run(connection.close())
    assert harness.final_snapshots(redis_url, micro.PROVIDER_MODEL)


async def hold_one(connection: ServerConnection) -> AdaptiveRequestAdmissionController:
    controller = AdaptiveRequestAdmissionController(connection)
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
        "peers": {"saq": "0.26", "bullmq": "not installed"},
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
    assert "Beside: saq 0.26, bullmq not installed." in text
    assert "| f | ≤ 1.4 | 1.5 |  | raw 1 ms | **no** |" in text
