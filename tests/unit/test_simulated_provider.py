"""The simulated provider's limits, by themselves."""

from __future__ import annotations

from random import Random

import pytest

from bench.simulate.provider import (
    AtOnce,
    ByTheMinute,
    Drift,
    Limit,
    Outages,
    Provider,
    Rate,
    Sliding,
    Steps,
    fixed,
)
from forebay.simulation.timeline import SECOND_US, Timeline


def admitted(limit: Limit, *seconds: float) -> list[bool]:
    """Return which calls that arrive at these instants are admitted, none of which ends."""
    found = []
    for second in seconds:
        us = round(second * SECOND_US)
        found.append(not limit.refuses(us))
        if found[-1]:
            limit.take(us)
    return found


def test_at_most_so_many_at_once() -> None:
    limit = AtOnce(Steps(values=((0, 2), (10, 1))))
    assert admitted(limit, 0, 0, 0) == [True, True, False]
    limit.leave()
    assert admitted(limit, 5) == [True]
    limit.leave()
    assert admitted(limit, 10) == [False]


def test_places_that_others_take_are_not_to_be_had() -> None:
    assert admitted(AtOnce(fixed(2), fixed(1)), 0, 0) == [True, False]


def test_a_rate_admits_its_burst_and_one_then_one_each_interval() -> None:
    limit = Rate(fixed(10), burst=2)
    assert admitted(limit, 0, 0, 0, 0, 0.05, 0.1, 0.15) == [True] * 3 + [False, False, True, False]


def test_a_rate_tells_when_it_admits_the_next() -> None:
    limit = Rate(fixed(10), burst=0)
    limit.take(0)
    assert limit.next_us(0) == SECOND_US // 10
    assert limit.refuses(SECOND_US // 10 - 1)
    assert not limit.refuses(SECOND_US // 10)


def test_a_minute_of_the_clock_begins_at_its_boundary() -> None:
    limit = ByTheMinute(fixed(2), begins_us=15 * SECOND_US)
    assert admitted(limit, 0, 1, 2, 14.9, 15, 16, 74, 75) == [True, True] + [False] * 2 + [
        True,
        True,
        False,
        True,
    ]
    assert limit.next_us(80 * SECOND_US) == 135 * SECOND_US


def test_a_sliding_span_forgets_call_by_call() -> None:
    limit = Sliding(2)
    assert admitted(limit, 0, 30, 59, 60, 61, 90) == [True, True, False, True, False, True]


def test_an_outage_refuses_within_its_spans() -> None:
    limit = Outages((10, 20), (30, 40))
    assert admitted(limit, 9.9, 10, 19.9, 20, 35) == [True, False, False, True, False]
    assert limit.next_us(25 * SECOND_US) == 40 * SECOND_US


def test_a_drift_goes_from_its_least_to_its_most_and_back() -> None:
    drift = Drift(low=12, high=24, seconds=60)
    assert [drift.at(s * SECOND_US) for s in (0, 30, 60)] == pytest.approx([12, 24, 12])


def test_only_a_limit_that_counts_refused_calls_counts_one_that_another_refuses() -> None:
    def refused_by_the_other(counts: tuple[type, ...]) -> bool:
        rate = Rate(fixed(1), burst=0)
        provider = Provider(
            rate, AtOnce(fixed(0)), latency=lambda _: 1.0, random=Random(1), counts_refused=counts
        )
        assert not provider.admits(0)
        return rate.refuses(0)

    assert refused_by_the_other((Rate,))
    assert not refused_by_the_other(())


def test_a_hint_says_the_rest_of_the_minute() -> None:
    provider = Provider(
        ByTheMinute(fixed(0)), latency=lambda _: 1.0, random=Random(1), hint_seconds="rest"
    )
    assert provider.hint_at(45 * SECOND_US) == 15.0


def test_calls_take_longer_beyond_what_is_served_at_full_speed() -> None:
    provider = Provider(latency=lambda _: 1.0, random=Random(1), useful=2)
    for _ in range(6):
        provider.admits(0)
    assert provider.latency_us() == 3 * SECOND_US


def test_things_of_one_instant_happen_in_the_order_in_which_they_were_given() -> None:
    timeline, seen = Timeline(), []
    timeline.at(20, seen.append, "c")
    timeline.at(10, seen.append, "a")
    timeline.at(10, lambda: timeline.after(0, seen.append, "b"))
    timeline.run(20)
    assert seen == ["a", "b"]
    assert timeline.now_us == 20
