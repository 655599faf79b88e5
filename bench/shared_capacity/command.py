"""``python -m bench shared-capacity``: rows as artifacts that an interrupted run keeps."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click

from bench.harness import Fleet as Processes
from bench.shared_capacity.fleets import OTHERS, PAIR
from bench.shared_capacity.load import PROCESSES, serve
from bench.shared_capacity.rows import ROWS, Row
from bench.shared_capacity.run import run_row, write
from bench.shared_capacity.table import table
from forebay.contracts.errors import ConfigurationError

USUAL_RUNS: Final = 3
SMOKE_SECONDS: Final = 3.0


@click.command("shared-capacity")
@click.argument("names", nargs=-1, metavar="[ROW]...")
@click.option("--list", "is_list", is_flag=True, help="Name the rows and their providers.")
@click.option(
    "--runs",
    default=USUAL_RUNS,
    show_default=True,
    type=click.IntRange(min=1),
    help="Runs of each row with the fleets told and steady.",
)
@click.option("--others", is_flag=True, help=f"Also once each: {', '.join(OTHERS)}.")
@click.option("--again", is_flag=True, help="Run what has an artifact already.")
@click.option("--table", "is_table", is_flag=True, help="Run nothing; print what artifacts say.")
@click.option("--smoke", is_flag=True, help="Each row in seconds: invariants, no figures.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/shared-capacity"),
    show_default=True,
)
def shared_capacity(
    names: Sequence[str],
    is_list: bool,
    runs: int,
    others: bool,
    again: bool,
    is_table: bool,
    smoke: bool,
    out: Path,
) -> None:
    """Measure fleets against providers that refuse: all rows by default, minutes each.

    In each run a fleet that is told the provider's limit and one that is told nothing call at the
    same time, each an instance of the provider of its own. Each run is an artifact as soon as it is
    over; what has one is not run again.
    """
    if is_list:
        for row in ROWS.values():
            click.echo(f"{row.name:18} {row.seconds:5g} s  {row.about}")
        return
    if unknown := [name for name in names if name not in ROWS]:
        raise click.UsageError(f"{unknown[0]!r} is no row; --list names them.")
    chosen = [ROWS[name] for name in names or ROWS]
    if not is_table:
        with Processes(len(PAIR) * PROCESSES, serve) as processes:
            if smoke:
                _smoke(processes, chosen, out / "smoke")
                return
            for row in chosen:
                row.needs()  # what is missing must not turn up after an hour
            for row, ways, number in _runs(chosen, runs, has_others=others):
                _run(processes, row, ways, number, out, again=again)
    click.echo(table(out))


def _runs(
    chosen: Sequence[Row], runs: int, *, has_others: bool
) -> Iterator[tuple[Row, Sequence[str], int]]:
    """Yield what is run, each row once before any is run again."""
    for number in range(1, runs + 1):
        for row in chosen:
            yield row, PAIR, number
    for row in chosen if has_others else ():
        for way in OTHERS:
            yield row, (way,), 1


def _run(
    processes: Processes, row: Row, ways: Sequence[str], number: int, out: Path, *, again: bool
) -> None:
    path = out / f"{row.name}.{'-'.join(ways)}.{number}.json"
    if path.exists() and not again:
        return
    click.echo(f"{row.name}: {' and '.join(ways)}, run {number}, {row.seconds:g} s", err=True)
    artifact = run_row(processes, row, ways, number)
    write(artifact, path)
    if find_spec("matplotlib") is not None:
        importlib.import_module("bench.shared_capacity.plot").draw(
            row, artifact, path.with_suffix(".png")
        )


def _smoke(processes: Processes, chosen: Sequence[Row], out: Path) -> None:
    """Run each row for seconds: the books must agree; what it measures means nothing."""
    for row in chosen:
        try:
            row.needs()
        except ConfigurationError as missing:
            click.echo(f"{row.name}: left out: {missing}")
            continue
        part = SMOKE_SECONDS / row.seconds
        short = replace(
            row,
            seconds=SMOKE_SECONDS,
            settled=((0.0, SMOKE_SECONDS),),
            changes=tuple(replace(change, at=change.at * part) for change in row.changes),
            outage_at=row.outage_at * part,
            outage_seconds=row.outage_seconds * part,
        )
        others = OTHERS if row is chosen[0] else ()
        for ways in (PAIR, *((way,) for way in others)):
            artifact = run_row(processes, short, ways, 1, is_smoke=True)
            write(artifact, out / f"{row.name}.{'-'.join(ways)}.1.json")
        click.echo(f"{row.name}: ok")
