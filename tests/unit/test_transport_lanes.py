"""Which transport sends a request (docs/adr/0008)."""

from __future__ import annotations

from forebay.transports.lanes import UNUSED_SECONDS, ManyLanes, OneLane, Passage


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_lane_sends_one_request_at_a_time_and_the_last_used_goes_first() -> None:
    lanes = ManyLanes(object)
    first, second = lanes.take(), lanes.take()
    assert first is not second
    lanes.give_back(second)
    lanes.give_back(first)
    assert [lanes.take(), lanes.take()] == [first, second]
    assert set(lanes.all()) == {first, second}


def test_a_lane_that_nobody_used_for_long_is_handed_out_once_to_be_closed() -> None:
    clock = Clock()
    lanes = ManyLanes(object, clock)
    busy, idle = lanes.take(), lanes.take()
    lanes.give_back(idle)
    assert lanes.unused() is None
    clock.now += UNUSED_SECONDS
    assert lanes.unused() is idle
    assert lanes.unused() is None
    assert lanes.all() == [busy]
    lanes.give_back(busy)
    assert lanes.take() is busy


def test_a_passage_gives_its_lane_back_once() -> None:
    lanes = ManyLanes(object)
    passage = Passage()
    lane = passage.before_sending(lanes)
    assert not passage.is_closed
    passage.closed()
    passage.closed()
    assert passage.is_closed
    assert lanes.take() is lane
    assert lanes.take() is not lane


def test_one_lane_is_for_all() -> None:
    transport = object()
    lanes = OneLane(transport)
    assert {lanes.take(), lanes.take()} == {transport}
    lanes.give_back(transport)
    assert (lanes.unused(), lanes.all()) == (None, [transport])
