"""Which transport sends a request (docs/adr/0008)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from forebay.contracts.errors import CoordinatorUnavailable
from forebay.transports.lanes import UNUSED_SECONDS, Exchange, ManyLanes, OneLane


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_lane_sends_one_request_at_a_time_and_the_last_used_goes_first() -> None:
    lanes = ManyLanes(object)
    first, second = lanes.take(), lanes.take()
    assert first is not second
    lanes.release(second)
    lanes.release(first)
    assert [lanes.take(), lanes.take()] == [first, second]
    assert set(lanes.close()) == {first, second}


def test_a_lane_that_nobody_used_for_long_is_handed_out_once_to_be_closed() -> None:
    clock = Clock()
    lanes = ManyLanes(object, clock)
    busy, idle = lanes.take(), lanes.take()
    lanes.release(idle)
    assert lanes.unused() is None
    clock.now += UNUSED_SECONDS
    assert lanes.unused() is idle
    assert lanes.unused() is None
    assert lanes._open == {busy}
    lanes.release(busy)
    assert lanes.take() is busy


def test_a_passage_gives_its_lane_back_once() -> None:
    lanes = ManyLanes(object)
    exchange = Exchange()
    lane = exchange.before_sending(lanes)
    assert not exchange.is_closed
    exchange.closed()
    exchange.closed()
    assert exchange.is_closed
    assert lanes.take() is lane
    assert lanes.take() is not lane


def test_one_lane_is_for_all() -> None:
    transport = object()
    lanes = OneLane(transport)
    assert {lanes.take(), lanes.take()} == {transport}
    lanes.release(transport)
    assert (lanes.unused(), lanes.close()) == (None, [transport])


def test_a_lane_of_an_event_loop_that_has_ended_is_never_given_again() -> None:
    lanes = ManyLanes(object)
    busy, free = lanes.take(), lanes.take()
    lanes.release(free)
    others = lanes.anew()
    lanes.release(busy)
    assert others.take() not in {busy, free}


def test_one_lane_is_made_anew_for_another_event_loop_unless_it_is_the_programs_own() -> None:
    given, made = OneLane(object()), OneLane(object(), object)
    before = given.take(), made.take()
    assert given.anew().take() is before[0]
    assert made.anew().take() is not before[1]


def test_lanes_of_a_closed_client_are_as_closed_on_another_event_loop() -> None:
    lanes = ManyLanes(object)
    lanes.close()
    with pytest.raises(CoordinatorUnavailable, match="closed"):
        lanes.anew().take()


def test_a_thread_that_takes_a_lane_while_its_process_forks_stops_no_child() -> None:
    lanes = ManyLanes(object)
    with lanes._lock, ThreadPoolExecutor(1) as child:
        assert child.submit(lambda: lanes.anew().take()).result(10)


def test_who_waited_while_all_lanes_were_closed_opens_none() -> None:
    lanes = ManyLanes(object)
    busy = lanes.take()
    assert lanes.close() == [busy]
    lanes.release(busy)
    with pytest.raises(CoordinatorUnavailable, match="closed"):
        lanes.take()
    assert lanes.close() == []
