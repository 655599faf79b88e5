"""``python -m bench simulate``: the same numbers each time, bounds, what its figures mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from click.testing import CliRunner

from bench.simulate.command import RULES, simulate
from bench.simulate.measures import measure, sparkline
from bench.simulate.rows import ROWS
from bench.simulate.rows.making import at_once, limited, outages
from bench.simulate.simulation import run_oracle, run_rule
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.simulation.timeline import SECOND_US

RULE_NAMES = list(RULES)
NOISY = {"noise-1", "noise-3", "beat-5-noise"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of this module's own: a simulation empties it."""
    with EmbeddedServer() as server:
        yield server.url


@pytest.mark.parametrize("rule", RULE_NAMES)
@pytest.mark.parametrize("name", ["noise-1", "dead-members", "domains", "demand-1.1"])
def test_the_same_seed_gives_the_same_answers(name: str, rule: str, url: str) -> None:
    row = replace(ROWS[name], seconds=12.0, kills=((5, 0),) if ROWS[name].kills else ())
    first, again, other = (run_rule(row, RULES[rule], seed, url) for seed in (1, 1, 2))
    assert (first.answers, first.samples) == (again.answers, again.samples)
    assert len(first.answers) > 100
    assert other.answers != first.answers


@pytest.mark.parametrize("name", ROWS)
def test_every_row_keeps_its_bounds_and_its_oracle_is_never_refused(name: str, url: str) -> None:
    row = replace(ROWS[name], seconds=1.0, settled=((0.0, 1.0),), kills=())
    for tuning in RULES.values():
        run = run_rule(row, tuning, 1, url)  # raises where a window, a lease or the audit is wrong
        assert run.answers or "5s" in name
    oracle = run_oracle(row, 1)
    if name not in NOISY:
        assert all(answer.is_success for answer in oracle.answers)


@pytest.mark.parametrize("rule", RULE_NAMES)
def test_while_all_is_refused_one_attempt_goes_out_each_cooldown(rule: str, url: str) -> None:
    row = replace(ROWS["at-24"], provider=limited(outages((5, 60)), at_once(24)), seconds=60.0)
    run = run_rule(row, RULES[rule], 1, url)
    refused = [a.at_us for a in run.answers if a.at_us > 40 * SECOND_US]
    assert len(refused) >= 8
    cooldown_us = round(RULES[rule].cooldown_seconds * SECOND_US)
    assert all(cooldown_us <= b - a < 1.1 * cooldown_us for a, b in pairwise(refused))


@pytest.mark.parametrize("rule", RULE_NAMES)
def test_a_tenant_whose_requests_never_fit_takes_nobodys_share(rule: str, url: str) -> None:
    row = replace(ROWS["too-large"], seconds=60.0)
    (hopeful, hopeless) = row.fleets[0].callers
    assert (hopeless.is_hopeless, hopeless.per_second) == (True, 2)
    alone = replace(row, fleets=(replace(row.fleets[0], callers=(hopeful,)),))
    served, served_alone = (
        sum(answer.is_success for answer in run_rule(one, RULES[rule], 1, url).answers)
        for one in (row, alone)
    )
    assert served >= 0.98 * served_alone
    assert served_alone > 1_000


def test_leases_of_a_killed_process_come_back_after_its_ttl(url: str) -> None:
    row = replace(ROWS["at-64"], seconds=40.0, kills=((11.0, 0),))
    run = run_rule(row, RULES["aimd"], 1, url)
    dead, again = (
        sum(begins <= a.at_us / SECOND_US < begins + 2 for a in run.answers) for begins in (12, 30)
    )
    assert 0.7 < dead / again < 0.8  # one process of four


def test_figures_are_of_the_settled_spans_beside_the_oracle(url: str) -> None:
    row = replace(ROWS["tenants"], seconds=30.0, settled=((10.0, 20.0), (25.0, 1e9)))
    run, oracle = run_rule(row, RULES["aimd"], 1, url), run_oracle(row, 1)
    found = measure(row, run, oracle)
    spans = [a for a in run.answers if 10e6 <= a.at_us < 20e6 or 25e6 <= a.at_us < 30e6]
    good = [a for a in spans if a.is_success]
    assert found.goodput == len(good) / 15
    assert found.refused == len(spans) - len(good)
    assert 0 < found.ratio < 1.05
    assert found.shares["three"] == pytest.approx(0.75, abs=0.05)


def test_a_step_up_is_followed_when_the_window_has_nine_tenths_of_it(url: str) -> None:
    row = replace(ROWS["steps"], seconds=79.0, settled=((50.0, 79.0),))
    run = run_rule(row, RULES["aimd"], 1, url)
    follows = measure(row, run, run_oracle(row, 1)).follows[0]
    assert follows is not None
    before = [s for s in run.samples[0] if 40e6 <= s.at_us < (40 + follows) * 1e6 - 1]
    assert all(sample.limit < 0.9 * 24 for sample in before)


def test_a_sparkline_has_a_sign_per_part_of_the_time() -> None:
    assert sparkline([1] * 24 + [8] * 24, width=4) == "▁▁██ of 8"
    assert sparkline([]) == ""


def test_the_command_lists_rows_and_refuses_others() -> None:
    listed = CliRunner().invoke(simulate, ["--list"]).output.splitlines()
    assert [line.split()[0] for line in listed] == list(ROWS)
    refused = CliRunner().invoke(simulate, ["at-5"])
    assert refused.exit_code == 2
    assert "'at-5' is no row; --list names them." in refused.output
