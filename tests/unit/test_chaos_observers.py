"""The observers of `tests.chaos` find broken promises; equal seeds give equal faults."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.observers import (
    ALL,
    RUNS,
    CapMove,
    LossPeriod,
    ProviderCall,
    hung_or_untyped,
    overruns,
    read_calls,
    read_jobs,
    standstills,
    twice_at_once,
    wrong_output,
)
from tests.chaos.schedule import KINDS, schedule

CAP = [CapMove(0.0, 0.0, 2)]


def call(begin: float, end: float, process: str = "7", status: int = 200) -> ProviderCall:
    return ProviderCall(begin=begin, end=end, process=process, status=status, is_left=status == 499)


def test_equal_seeds_give_equal_faults_and_other_seeds_other_faults() -> None:
    assert schedule(3, 60.0, 20.0, [*KINDS]) == schedule(3, 60.0, 20.0, [*KINDS])
    assert schedule(3, 60.0, 20.0, [*KINDS]) != schedule(4, 60.0, 20.0, [*KINDS])


def test_a_schedule_has_each_kind_where_there_is_room_and_stays_within_its_time() -> None:
    faults = schedule(1, 600.0, 17.0, [*KINDS])
    assert len(faults) == 170
    assert {fault.kind for fault in faults} == set(KINDS)
    assert all(0 <= fault.at <= 600.0 for fault in faults)
    spans = [(KINDS[fault.kind].seconds, fault.seconds) for fault in faults]
    assert all(least <= seconds <= most for (least, most), seconds in spans)


def test_a_call_too_many_is_found_with_its_instant() -> None:
    calls = [call(1.0, 3.0), call(1.5, 3.0), call(2.0, 3.0)]
    assert [difference.at for difference in overruns(calls, CAP, [])] == [2.0]


@pytest.mark.parametrize(
    "others",
    [
        [call(1.0, 1.5), call(1.5, 3.0)],  # one ended before the third began
        [call(1.0, 2.1, status=499), call(1.5, 3.0)],  # its client had left
    ],
)
def test_calls_within_the_cap_are_no_difference(others: list[ProviderCall]) -> None:
    assert overruns([*others, call(2.0, 3.0)], CAP, []) == []


@pytest.mark.parametrize("process", ["7", ALL])
def test_calls_of_a_member_that_may_have_been_expired_do_not_count(process: str) -> None:
    calls = [call(1.0, 9.0), call(6.0, 9.0, "8"), call(6.5, 9.0, "8")]
    assert overruns(calls, CAP, [LossPeriod(1.5, 5.0, process)]) == []
    assert overruns(calls, CAP, [LossPeriod(9.5, 10.0, process)]) != []


def test_a_fallen_cap_counts_once_older_leases_are_over() -> None:
    calls = [call(at, at + 0.5) for at in (10.0, 10.1)]
    assert overruns(calls, [*CAP, CapMove(9.0, 9.1, 1)], []) == []
    assert overruns(calls, [*CAP, CapMove(3.0, 3.1, 1)], []) != []


def test_a_standstill_outside_of_faults_is_found() -> None:
    calls = [call(0.0, 1.0), call(20.0, 21.0)]
    assert [found.at for found in standstills(calls, [], 12.0, 22.0)] == [1.0]
    assert standstills(calls, [(2.0, 8.0), (5.0, 12.0)], 12.0, 22.0) == []
    assert [found.at for found in standstills(calls, [], 12.0, 40.0)] == [1.0, 21.0]


LINES: list[list[Any]] = [[1.0, "begin", "j", 7], [2.0, "begin", "j", 8], [3.0, "end", "j", 8]]


def test_a_job_that_begins_while_it_runs_elsewhere_is_found() -> None:
    jobs = read_jobs(LINES)
    assert [found.at for found in twice_at_once(jobs, {}, [], 9.0)] == [2.0]
    assert twice_at_once(jobs, {"7": 1.5}, [], 9.0) == []
    assert twice_at_once(jobs, {}, [LossPeriod(0.5, 1.5, "7")], 9.0) == []


def test_an_output_with_too_much_or_too_little_is_found() -> None:
    assert wrong_output("r", ["a"], ["b"], ["a", "b"], 9.0) == []
    for output, dropped in ((["a"], []), (["a", "a", "b"], []), (["a", "b", "c"], [])):
        assert len(wrong_output("r", output, dropped, ["a", "b"], 9.0)) == 1


def test_a_call_that_hangs_or_ends_untyped_is_found() -> None:
    lines = [[1.0, 2.0, "ok"], [1.0, 2.0, "CoordinatorUnavailable"]]
    assert hung_or_untyped(lines) == []
    assert len(hung_or_untyped([[1.0, 46.0, "hung"], [1.0, 2.0, "untyped KeyError: 1"]])) == 2
    assert len(hung_or_untyped([[1.0, 2.0, "CoordinatorError"]])) == 1


def test_the_provider_s_log_is_read_as_calls() -> None:
    record = {"kind": "request", "arrived_at": 1.0, "finished_at": 2.0, "status": 499}
    records = [
        {**record, "refused_by": None, "tag": None},
        {**record, "refused_by": "concurrency", "tag": "7"},
        {"kind": "truth"},
    ]
    assert read_calls(records, 100.0) == [call(101.0, 102.0, RUNS, status=499)]
