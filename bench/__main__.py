"""``python -m bench``: runs scenarios and writes JSON and a Markdown summary."""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from bench import handoff, loop_name, micro
from coordinator.embedded_files import find_server_binary

ARTIFACT_SCHEMA_VERSION = 1

Row = tuple[str, str, str]


def progress(line: str) -> None:
    """Say how far a long run is; not part of the result, so on standard error."""
    click.echo(line, err=True)


def _output_of(*command: str) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def origin(rounds: int) -> dict[str, Any]:
    """Return what a reader needs to repeat the run: machine, versions, commit, command."""
    return {
        "artifact_schema_version": ARTIFACT_SCHEMA_VERSION,
        "candidate_sha": _output_of("git", "rev-parse", "HEAD"),
        "has_uncommitted_changes": bool(_output_of("git", "status", "--porcelain")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command_line": "python -m bench " + " ".join(sys.argv[1:]),
        "rounds": rounds,
        "machine": {"cores": os.cpu_count(), "platform": platform.platform()},
        "versions": {
            "python": platform.python_version(),
            "loop": loop_name(),
            "redis-py": metadata.version("redis"),
            "server": _output_of(str(find_server_binary()), "--version"),
        },
    }


def handoff_rows(derived: dict[str, Any]) -> list[Row]:
    """Return the hand-off's table."""
    rows = []
    for limiter in handoff.LIMITERS:
        found = derived[limiter]
        rows += [
            (f"hand-off, {limiter}", "grants per second", f"{found['grants_per_second']:.0f}"),
            (
                "",
                "gap, median / p95",
                f"{found['gap_median_ms']:.2f} / {found['gap_p95_ms']:.2f} ms",
            ),
            ("", "handed to another process", f"{found['crossing_share']:.0%}"),
            ("", "hold, median", f"{found['hold_median_ms']:.2f} ms"),
            ("", "Jain's index over waiters", f"{found['jain_index']:.4f}"),
            ("", "most holders", f"{found['max_holders']:.0f}"),
        ]
    rows += [
        ("hand-off, ratio", "forebay / semaphore", f"{derived['forebay_to_semaphore']:.3f}"),
        ("", "forebay / fifo", f"{derived['forebay_to_fifo']:.3f}"),
    ]
    return rows


def micro_rows(derived: dict[str, Any]) -> list[Row]:
    """Return the micro scenario's table."""
    return [
        ("pair alone", "forebay", f"{derived['forebay_alone_ms']:.3f} ms"),
        ("", "raw", f"{derived['raw_alone_ms']:.3f} ms"),
        ("", "forebay / raw", f"{derived['alone_time_to_raw']:.2f}"),
        ("in flight", "forebay, 64", f"{derived['forebay_64_pairs_per_second']:.0f} pairs/s"),
        ("", "forebay, 256", f"{derived['forebay_256_pairs_per_second']:.0f} pairs/s"),
        ("", "raw, 64", f"{derived['raw_64_pairs_per_second']:.0f} pairs/s"),
        ("", "forebay 64 / raw", f"{derived['64_rate_to_raw']:.2f}"),
        ("", "forebay 256 / raw", f"{derived['256_rate_to_raw']:.2f}"),
    ]


def markdown(where: dict[str, Any], rows: list[Row]) -> str:
    """Return the summary: the table and where it comes from."""
    run = (
        f"`{where['command_line']}`, {where['date']}, {where['machine']['cores']} cores,"
        f" Python {where['versions']['python']}, {where['versions']['loop']}; medians of"
        f" {where['rounds']} rounds."
    )
    lines = [
        run,
        "",
        "| scenario | measure | value |",
        "|---|---|---:|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def show(rows: list[Row], text: str) -> None:
    """Print the table, with rich where it is installed."""
    if find_spec("rich") is None:
        click.echo(text)
        return
    table = importlib.import_module("rich.table").Table("scenario", "measure", "value")
    for row in rows:
        table.add_row(*row)
    importlib.import_module("rich").print(table)


@click.command()
@click.argument("scenario", type=click.Choice(["handoff", "micro", "all"]), default="all")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--arrival-ms",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Hand-off: time between two waiters' first calls; 0 is all at once.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/bench"),
    show_default=True,
)
def main(scenario: str, rounds: int, arrival_ms: float, out: Path) -> None:
    """Measure Forebay beside what it is compared with, on a server of its own."""
    where = origin(rounds)
    artifacts = []
    rows: list[Row] = []
    if scenario in {"handoff", "all"}:
        inputs = handoff.HandoffInputs(rounds=rounds, arrival_seconds=arrival_ms / 1e3)
        artifacts.append(handoff.run(inputs, progress))
        rows += handoff_rows(artifacts[-1]["derived_metrics"])
    if scenario in {"micro", "all"}:
        artifacts.append(micro.run(micro.MicroInputs(rounds=rounds), progress))
        rows += micro_rows(artifacts[-1]["derived_metrics"])
    out.mkdir(parents=True, exist_ok=True)
    for artifact in artifacts:
        path = out / f"{artifact['scenario_id']}.json"
        path.write_text(json.dumps(where | artifact, indent=2) + "\n")
    text = markdown(where, rows)
    (out / "summary.md").write_text(text)
    show(rows, text)


if __name__ == "__main__":
    main()
