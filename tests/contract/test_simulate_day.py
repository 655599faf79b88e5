"""``python -m bench day``: the same day from the same seed, with deaths and refusals in it."""

from __future__ import annotations

from dataclasses import replace

from bench.simulate.day import Fleet, simulate_day
from forebay.coordinator.server.embedded import EmbeddedServer

SMALL = Fleet(members=40, models=4, hours=0.1, bursts=800.0, deaths=200.0)


def test_day_is_the_same_from_the_same_seed_alone() -> None:
    with EmbeddedServer() as server:
        first, again = (simulate_day(SMALL, 1, server.url) for _ in range(2))
        other = simulate_day(replace(SMALL, seed=2), 1, server.url)
    assert first == again
    assert other.digest != first.digest
    assert first.served > 100
    assert first.refused > 0
    assert first.deaths > 0


def test_each_member_uses_two_models_and_dies_at_the_same_instants_in_both() -> None:
    used = [model for model in range(100) for member in Fleet().members_of(model) if member == 42]
    assert len(used) == 2
    assert list(SMALL.deaths_of(42)) == list(SMALL.deaths_of(42))
    assert list(replace(Fleet(), deaths=20.0, seed=2).deaths_of(42)) != list(
        replace(Fleet(), deaths=20.0).deaths_of(42)
    )
