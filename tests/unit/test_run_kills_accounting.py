"""What ``make run-kills`` takes for a call that was paid for twice without need."""

from __future__ import annotations

import pytest

from forebay.mock_provider.log import RequestRecord
from tests.run_kills.accounting import Loss, paid_again


def call(begin: float, end: float, *, status: int = 200, digest: str = "a") -> RequestRecord:
    return RequestRecord(
        arrived_at=begin,
        finished_at=end,
        path="/v1/chat/completions",
        model="m",
        status=status,
        in_flight_on_arrival=0,
        concurrency_limit=None,
        digest=digest,
    )


KILL = Loss(at=2.0, since=2.0, most=1)
CUT = Loss(at=2.0, since=1.5, most=None)


@pytest.mark.parametrize("status", [200, 499])
def test_a_call_in_flight_at_a_kill_may_be_paid_for_again(status: int) -> None:
    assert paid_again([call(1.9, 2.1, status=status), call(3, 4)], [KILL]) == (1, [])


def test_a_failed_call_is_not_paid_for() -> None:
    assert paid_again([call(0, 1, status=500), call(3, 4)], []) == (0, [])


@pytest.mark.parametrize(
    "calls",
    [
        [call(0, 1), call(1.2, 1.4)],
        [call(2.1, 2.2), call(3, 4)],
    ],
)
def test_a_call_that_no_kill_explains_is_told(calls: list[RequestRecord]) -> None:
    again, told = paid_again(calls, [KILL])
    assert (again, len(told)) == (1, 1)


def test_more_calls_than_were_in_flight_are_told() -> None:
    calls = [call(1.9, 2.1, digest=d) for d in "ab"] + [call(3, 4, digest=d) for d in "ab"]
    again, told = paid_again(calls, [KILL])
    assert (again, len(told)) == (2, 1)


def test_only_what_a_cut_file_lost_may_be_paid_for_again() -> None:
    assert paid_again([call(1, 1.6), call(3, 4)], [CUT]) == (1, [])
    assert len(paid_again([call(1, 1.4), call(3, 4)], [CUT])[1]) == 1


def test_a_kill_with_a_bound_is_not_charged_for_what_a_cut_file_lost() -> None:
    calls = [call(1.9, 2.1, digest=d) for d in "abc"] + [call(3, 4, digest=d) for d in "abc"]
    assert paid_again(calls, [KILL, CUT]) == (3, [])
