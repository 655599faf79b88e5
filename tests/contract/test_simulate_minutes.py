"""Budgets by the minute on the simulated clock: what is learned, and that outages are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.resources import files
from typing import Final

import pytest

from bench.simulate.command import RULES
from bench.simulate.measures import Measures, measure
from bench.simulate.provider import Steps
from bench.simulate.rows import ROWS
from bench.simulate.rows.making import (
    MakeProvider,
    about,
    at_once,
    constant,
    fleet,
    limited,
    outages,
    steps,
)
from bench.simulate.scenario import FLOOD, Scenario
from bench.simulate.simulation import Run, run_oracle, run_rule
from forebay.coordinator.scripts.composing import Script, compose
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.simulation import server as simulated

FRAGMENT: Final = "lib/requests/window_minute"
EVIDENCE: Final = "MINUTE.enough, MINUTE.most = 3, 5"
AT_ONCE: Final = 6
SLOW: Final = about(1)
"""Few calls, so that ten minutes of them are simulated in seconds."""

Simulate = Callable[[Scenario], Run]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of this module's own: a simulation empties it."""
    with EmbeddedServer() as server:
        yield server.url


@pytest.fixture
def learning(url: str) -> Simulate:
    return lambda row: run_rule(row, RULES["steady"], 1, url)


@pytest.fixture
def never_learning(url: str, monkeypatch: pytest.MonkeyPatch) -> Simulate:
    """Runs a row with production scripts for which no evidence of a budget is enough."""
    text = (files("forebay.lua") / f"{FRAGMENT}.lua").read_text()
    assert text.count(EVIDENCE) == 1
    deaf = text.replace(EVIDENCE, "MINUTE.enough, MINUTE.most = 1000, 1000")

    def composed(name: str, fragments: Mapping[str, str]) -> Script:
        return compose(name, {**fragments, FRAGMENT: deaf})

    def simulate(row: Scenario) -> Run:
        with monkeypatch.context() as patched:
            patched.setattr(simulated, "compose", composed)
            return run_rule(row, RULES["steady"], 1, url)

    return simulate


def figures(row: Scenario, run: Run) -> Measures:
    return measure(row, run, run_oracle(row, 1))


def served(run: Run) -> int:
    return sum(answer.is_success for answer in run.answers)


def refused(run: Run) -> int:
    return len(run.answers) - served(run)


def assert_costs_little(with_it: Run, without: Run) -> None:
    """A false budget is gone after six calls' times, in which one is out instead of `AT_ONCE`."""
    assert served(with_it) >= served(without) - 6 * AT_ONCE
    assert refused(with_it) <= refused(without) + 3


# -- budgets that are learned


@pytest.mark.parametrize("name", ["minute-200", "minute-200-late", "sliding-200", "minute-60-5s"])
def test_budget_by_the_minute_is_used_up_at_under_3_percent_of_refusals(
    name: str, learning: Simulate, never_learning: Simulate
) -> None:
    row = ROWS[name]
    with_it, without = figures(row, learning(row)), figures(row, never_learning(row))
    assert with_it.ratio >= 0.97
    assert with_it.refused_share <= 0.03
    assert without.refused_share >= 0.10


def test_minutes_that_another_user_shortens_cost_few_refusals(learning: Simulate) -> None:
    row = ROWS["minute-200-shared-5"]
    found = figures(row, learning(row))
    assert found.ratio >= 0.97
    assert found.refused_share <= 0.05


def test_demand_below_the_budget_is_never_held_back(
    learning: Simulate, never_learning: Simulate
) -> None:
    row = replace(ROWS["minute-200-demand-3"], seconds=300.0)
    assert learning(row).answers == never_learning(row).answers


# -- outages that are no budgets


def down(
    count: int, seconds: float, limit: float | Steps = AT_ONCE, *more: tuple[float, float]
) -> MakeProvider:
    """Return a maker of a provider that is down for so long so often, 60 s apart, and once more."""
    spans = [(40.0 + 60 * number, 40.0 + 60 * number + seconds) for number in range(count)]
    return limited(outages(*spans, *more), at_once(limit), latency=SLOW)


def a_row(provider: MakeProvider, seconds: float) -> Scenario:
    return Scenario("down", "", provider, seconds=seconds, fleets=(fleet(FLOOD),))


@pytest.mark.parametrize("count", [2, 3])
def test_two_or_three_outages_on_the_beat_change_nothing(
    count: int, learning: Simulate, never_learning: Simulate
) -> None:
    row = a_row(down(count, 20), 300.0)
    assert learning(row).answers == never_learning(row).answers


ADVERSARIES: Final = {
    "four outages": (down(4, 20), 420.0),
    "five, then half the limit": (down(5, 20, steps((0, AT_ONCE), (310, 3))), 480.0),
    "five, then down for a minute off the beat": (down(5, 20, AT_ONCE, (330, 390)), 480.0),
    "ten short ones": (down(10, 2), 660.0),
}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_outages_on_the_beat_cost_at_most_six_calls_times(
    name: str, learning: Simulate, never_learning: Simulate
) -> None:
    row = a_row(*ADVERSARIES[name])
    with_it, without = learning(row), never_learning(row)
    assert_costs_little(with_it, without)


def test_outages_of_calls_in_lock_step_cost_at_most_six_calls_times(
    learning: Simulate, never_learning: Simulate
) -> None:
    """All minutes serve the very same number, which is what a budget looks like."""
    spans = [(40.0 + 60 * number, 60.0 + 60 * number) for number in range(5)]
    provider = limited(outages(*spans), at_once(AT_ONCE), latency=constant(1.0))
    row = a_row(provider, 480.0)
    with_it, without = learning(row), never_learning(row)
    assert_costs_little(with_it, without)
