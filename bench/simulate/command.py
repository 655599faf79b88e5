"""``python -m bench simulate``: rows under the production Lua on a simulated clock."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click

from bench import report
from bench.simulate.measures import Measures, measure, sparkline
from bench.simulate.rows import ROWS
from bench.simulate.scenario import Scenario
from bench.simulate.simulation import Run, run_oracle, run_rule
from forebay.contracts.settings import RequestAdmissionTuningConfig
from forebay.coordinator.server.embedded import EmbeddedServer

RULES: Final = {
    "steady": RequestAdmissionTuningConfig(),
    "aimd": RequestAdmissionTuningConfig(rule="aimd"),
}


@click.command()
@click.argument("names", nargs=-1, metavar="[ROW]...")
@click.option("--list", "is_list", is_flag=True, help="Name the rows and what each simulates.")
@click.option(
    "--rule", "rules", type=click.Choice(list(RULES)), multiple=True, help="Each by default."
)
@click.option("--seed", default=1, show_default=True, help="Same seed, same numbers.")
@click.option(
    "--seeds",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Runs of each row, from the seed on; the worst of each figure counts.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write each row's figures, and a plot of its worst run.",
)
def simulate(
    names: Sequence[str],
    is_list: bool,
    rules: Sequence[str],
    seed: int,
    seeds: int,
    out: Path | None,
) -> None:
    """Simulate rows, all by default: seconds each, no provider, no waiting.

    A line gives a rule's settled goodput to that of an oracle, which knows the provider's limits at
    every instant; settled 429s and their share of the answers; all 429s; those of the first ten
    seconds, or of an outage's first five; the window over time.
    """
    if is_list:
        for row in ROWS.values():
            click.echo(f"{row.name:22} {row.seconds:5g} s  {row.about}")
        return
    if unknown := [name for name in names if name not in ROWS]:
        raise click.UsageError(f"{unknown[0]!r} is no row; --list names them.")
    with EmbeddedServer() as server:
        for name in names or ROWS:
            for rule in rules or RULES:
                _simulate(ROWS[name], rule, range(seed, seed + seeds), server.url, out)


def _simulate(row: Scenario, rule: str, seeds: Sequence[int], url: str, out: Path | None) -> None:
    began = time.monotonic()
    runs = [run_rule(row, RULES[rule], seed, url) for seed in seeds]
    found = [
        measure(row, run, run_oracle(row, seed)) for run, seed in zip(runs, seeds, strict=True)
    ]
    click.echo(f"{line(row.name, rule, found)}  ({time.monotonic() - began:.1f} s)")
    if out is not None:
        worst = min(range(len(found)), key=lambda number: found[number].ratio)
        _write(out, row, rule, seeds, found, runs[worst])


def line(name: str, rule: str, found: Sequence[Measures]) -> str:
    """Return a row as a line of text: the worst of each figure over the seeds."""
    worst = min(found, key=lambda measures: measures.ratio)
    refused = max(found, key=lambda measures: measures.refused_share)
    texts = [
        f"{name:22} {rule:6} {worst.ratio:6.1%} of {worst.best:6.2f}/s",
        f"429s {refused.refused:4d} {refused.refused_share:6.2%}",
        f"all {max(m.refused_in_all for m in found):4d}",
        f"first {max(m.refused_first for m in found):3d}",
        sparkline(worst.limits),
    ]
    if worst.follows:
        steps = ("never" if seconds is None else f"{seconds:g} s" for seconds in worst.follows)
        texts.append(f"follows in {', '.join(steps)}")
    texts += [f"{who} {share:.1%}" for who, share in worst.shares.items()]
    if worst.jain is not None:
        texts.append(f"Jain {min(m.jain or 0.0 for m in found):.4f}")
    return "  ".join(texts)


def _write(
    out: Path,
    row: Scenario,
    rule: str,
    seeds: Sequence[int],
    found: Sequence[Measures],
    worst: Run,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    artifact = {
        "scenario_id": f"simulate/{row.name}",
        **report.origin(is_smoke=False),
        "inputs": {"row": row.name, "about": row.about, "rule": rule, "seeds": list(seeds)},
        "iterations": [measures.as_json() for measures in found],
    }
    path = out / f"{row.name}.{rule}.json"
    path.write_text(json.dumps(artifact, indent=2) + "\n")
    if find_spec("matplotlib") is not None:
        draw = importlib.import_module("bench.simulate.plot").draw
        draw(worst, f"{row.name} ({row.about}), {rule}", path.with_suffix(".png"))
