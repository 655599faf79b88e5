from __future__ import annotations

import pytest

from bench import handoff, micro
from bench.__main__ import handoff_rows, markdown, micro_rows
from bench.handoff import HandoffInputs, Hold


def hold(start: float, end: float, waiter: int = 0) -> Hold:
    return Hold(process=waiter % 2, waiter=waiter, start=start, end=end)


def gaps(holds: list[Hold], cap: int) -> list[float]:
    return [after.start - before.end for before, after in handoff.handoffs(holds, cap)]


@pytest.mark.parametrize(
    ("amounts", "index"), [([5, 5, 5, 5], 1.0), ([8, 0, 0, 0], 0.25), ([0, 0], 1.0), ([], 1.0)]
)
def test_jain_index_goes_from_one_over_n_to_one(amounts: list[float], index: float) -> None:
    assert handoff.jain_index(amounts) == pytest.approx(index)


def test_most_holders_counts_what_was_open_at_one_instant() -> None:
    assert handoff.max_holders([hold(0, 4), hold(1, 2), hold(3, 5), hold(3.5, 6)]) == 3


def test_a_slot_handed_on_in_the_same_instant_is_held_once() -> None:
    assert handoff.max_holders([hold(0, 1), hold(1, 2)]) == 1


def test_no_hold_has_no_holder() -> None:
    assert handoff.max_holders([]) == 0


def test_each_release_is_paired_with_the_start_it_made_room_for() -> None:
    holds = [hold(0, 5), hold(0, 3), hold(3.5, 9), hold(5.25, 10)]
    assert gaps(holds, cap=2) == [0.5, 0.25]


def test_a_hold_beyond_the_cap_shows_as_a_negative_gap() -> None:
    assert gaps([hold(0, 5), hold(1, 6)], cap=1) == [-4]


def test_only_what_started_in_the_window_is_counted_but_every_holder_is_seen() -> None:
    holds = [hold(0, 2, 0), hold(0, 2, 1), hold(0, 2, 2)]  # before the window
    holds += [hold(n, n + 0.5, n % 2) for n in range(10, 20)]
    found = handoff.summarize(holds, HandoffInputs(cap=1, waiters=2), 10, 20)
    assert found == pytest.approx(
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
    found = handoff.summarize(holds, HandoffInputs(cap=1, waiters=4), 0, 10)
    assert found["jain_index"] == pytest.approx(0.25)


def turn(rate: float, holders: float = 8) -> dict[str, float]:
    return {
        "grants_per_second": rate,
        "crossing_share": 0.5,
        "gap_median_ms": 1.0,
        "gap_p95_ms": 2.0,
        "hold_median_ms": 5.0,
        "jain_index": 1.0,
        "max_holders": holders,
    }


def test_handoff_reports_the_median_of_paired_ratios_and_the_worst_holders() -> None:
    rounds = [
        {"forebay": turn(90, 7), "semaphore": turn(100), "fifo": turn(90)},
        {"forebay": turn(40, 8), "semaphore": turn(80), "fifo": turn(50)},
        {"forebay": turn(80, 7), "semaphore": turn(100), "fifo": turn(80)},
    ]
    derived = handoff.derive(rounds)
    assert derived["forebay"]["grants_per_second"] == 80
    assert derived["forebay"]["max_holders"] == 8
    assert derived["forebay_to_semaphore"] == 0.8
    assert derived["forebay_to_fifo"] == 1.0
    assert handoff_rows(derived)[-2] == ("hand-off, ratio", "forebay / semaphore", "0.800")
    assert handoff_rows(derived)[-1] == ("", "forebay / fifo", "1.000")


def test_micro_reports_the_median_of_paired_ratios() -> None:
    def found(alone: float, rate: float) -> dict[str, float]:
        return {
            "forebay_alone_ms": alone,
            "raw_alone_ms": 0.5,
            "forebay_64_pairs_per_second": rate,
            "forebay_256_pairs_per_second": rate * 2,
            "raw_64_pairs_per_second": 10.0,
        }

    derived = micro.derive([found(1.0, 20), found(0.5, 30), found(0.25, 40)])
    assert derived["forebay_alone_ms"] == 0.5
    assert derived["alone_time_to_raw"] == 1.0
    assert derived["64_rate_to_raw"] == 3.0
    assert derived["256_rate_to_raw"] == 6.0
    assert micro_rows(derived)[2] == ("", "forebay / raw", "1.00")


def test_the_summary_says_with_which_command_and_where_it_was_measured() -> None:
    where = {
        "command_line": "python -m bench all",
        "date": "2026-01-01",
        "machine": {"cores": 2},
        "versions": {"python": "3.11", "loop": "uvloop"},
        "rounds": 5,
    }
    text = markdown(where, [("a", "b", "1")])
    assert "`python -m bench all`, 2026-01-01, 2 cores, Python 3.11, uvloop" in text
    assert text.endswith("| a | b | 1 |\n")
