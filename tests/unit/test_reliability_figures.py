"""Figures of docs/reliability.md are worked out from what was seen, not from what was hoped."""

from __future__ import annotations

from bench.reliability.restart import full_after
from bench.reliability.scale import Reclaimed, longest_calls_ms


def test_throughput_is_full_again_from_the_first_second_that_is() -> None:
    before = 10.0
    ends = [3.0 + number / before for number in range(40)]
    found = full_after(ends, back_at=0.0, before=before, until=7.0)
    assert found is not None
    assert abs(found - 3.0) < 0.15
    assert full_after(ends[:5], back_at=0.0, before=before, until=7.0) is None
    assert full_after(ends, back_at=0.0, before=before, until=3.5) is None


def test_a_script_that_is_long_in_every_run_is_told_and_noise_of_one_run_is_not() -> None:
    runs = [(2.0, 9.0, 30.0), (2.5, 8.0, 3.0)]
    rounds = [Reclaimed(seconds=1.0, calls_ms=calls) for calls in runs]
    assert longest_calls_ms(rounds) == [2.0, 8.0, 3.0]
