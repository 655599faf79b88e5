"""``python -m bench``: measures every figure of a scenario, or of all, and writes what it found.

With ``--baseline REF`` it compares the checked out commit with another one instead.
``python -m bench simulate`` simulates a fleet's window,
``python -m bench day`` simulates a day of a large fleet,
``python -m bench cluster`` measures a pair on three masters beside one server,
``python -m bench shared-capacity`` runs fleets against providers that refuse,
``python -m bench proxy`` measures the proxy beside LiteLLM's,
``python -m bench reliability`` writes the tables of docs/reliability.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from bench import (
    crash,
    crowd,
    event_cost,
    handoff,
    jobs,
    many_waiters,
    memory,
    micro,
    recovery,
    report,
    run_cost,
    runs,
    transport,
)
from bench.cluster import cluster
from bench.compare.command import FEWEST_PAIRS, USUAL_PAIRS, compare
from bench.harness import new_event_loop
from bench.proxies.command import proxy
from bench.reliability.command import reliability
from bench.shared_capacity.command import shared_capacity
from bench.simulate.command import simulate
from bench.simulate.day_command import day

SCENARIOS = {
    "micro": micro,
    "handoff": handoff,
    "recovery": recovery,
    "crash": crash,
    "many_waiters": many_waiters,
    "crowd": crowd,
    "memory": memory,
    "transport": transport,
    "events": event_cost,
    "jobs": jobs,
    "runs": runs,
    "run_cost": run_cost,
}

COMMANDS = {
    "simulate": simulate,
    "cluster": cluster,
    "day": day,
    "shared-capacity": shared_capacity,
    "reliability": reliability,
    "proxy": proxy,
}
"""Benchmarks that take options of their own, as subcommands."""


def progress(line: str) -> None:
    """Print the progress of a long run on standard error."""
    click.echo(line, err=True)


@click.command()
@click.argument("scenario", type=click.Choice([*SCENARIOS, "all"]), default="all")
@click.option("--rounds", type=click.IntRange(min=1), help="Repeats instead of the usual five.")
@click.option("--smoke", is_flag=True, help="Run each in seconds: invariants, no figures.")
@click.option(
    "--baseline",
    metavar="REF",
    help="Compare HEAD with another commit: each is installed apart, and they take turns.",
)
@click.option(
    "--pairs",
    type=click.IntRange(min=FEWEST_PAIRS),
    help=f"Pairs of turns with --baseline, {USUAL_PAIRS} by default.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/bench"),
    show_default=True,
)
def main(
    scenario: str,
    rounds: int | None,
    smoke: bool,
    baseline: str | None,
    pairs: int | None,
    out: Path,
) -> None:
    """Measure Forebay and its peers, on servers of its own.

    ``python -m bench simulate --help``: a fleet's window against simulated providers;
    ``python -m bench day --help``: a large fleet's day on a simulated clock;
    ``python -m bench cluster --help``: three masters beside one server;
    ``python -m bench shared-capacity --help``: against real ones that refuse;
    ``python -m bench proxy --help``: the proxy beside LiteLLM's;
    ``python -m bench reliability --help``: the tables of docs/reliability.md.
    """
    if baseline is None and pairs is not None:
        raise click.UsageError("--pairs is for --baseline REF; --rounds repeats a scenario.")
    if baseline is not None and rounds is not None:
        raise click.UsageError("--rounds repeats a scenario; --baseline REF takes --pairs.")
    new_event_loop().close()  # says at once, not in the middle, that uvloop is missing
    if baseline is not None:
        compare(baseline, scenario, pairs=pairs, out=out, is_smoke=smoke, progress=progress)
        return
    where = report.origin(is_smoke=smoke)
    outcomes = {}
    for name in SCENARIOS if scenario == "all" else [scenario]:
        module = SCENARIOS[name]
        inputs = module.SMOKE if smoke else module.FULL
        outcomes[name] = module.run(replace(inputs, rounds=rounds or inputs.rounds), progress)
    report.write(out, where, outcomes)
    report.show([figure for outcome in outcomes.values() for figure in outcome.figures])


def run(arguments: Sequence[str]) -> None:
    """Run a command, or the scenarios where the first argument names none."""
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None:
        main(list(arguments))
    else:
        command(list(arguments[1:]), prog_name=f"python -m bench {arguments[0]}")


if __name__ == "__main__":
    run(sys.argv[1:])
