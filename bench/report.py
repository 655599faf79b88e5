"""Writes an artifact per scenario, and the figures as CSV, Markdown and a table."""

from __future__ import annotations

import csv
import importlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click

from bench.figures import Figure, medians
from bench.harness import Outcome, loop_name
from bench.peers.registry import versions
from forebay.contracts.extras import how_to_install
from forebay.coordinator.server.embedded_files import find_server_binary

ARTIFACT_SCHEMA_VERSION: Final = 3
HARNESS_VERSION: Final = 2
SCENARIO_VERSION: Final = 2
HEADERS: Final = ("figure", "aim", "measured", "95 % interval", "ours / beside it", "held?")


def _output_of(*command: str) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def origin(*, is_smoke: bool) -> dict[str, Any]:
    """Return the facts for repeating the run: machine, versions, commit, command."""
    return {
        "artifact_schema_version": ARTIFACT_SCHEMA_VERSION,
        "scenario_version": SCENARIO_VERSION,
        "harness_version": HARNESS_VERSION,
        "baseline_sha": None,  # one ref is measured, beside the raw cost
        "candidate_sha": _output_of("git", "rev-parse", "HEAD") or "unknown",
        "has_uncommitted_changes": bool(_output_of("git", "status", "--porcelain")),
        "is_smoke": is_smoke,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command_line": " ".join(["python -m bench", *sys.argv[1:]]),
        "machine": {
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "load_average_at_start": os.getloadavg(),
        },
        "versions": {
            "python": platform.python_version(),
            "loop": loop_name(),
            "redis-py": metadata.version("redis"),
            "hiredis": metadata.version("hiredis"),
            "server": _output_of(str(find_server_binary()), "--version"),
        },
        "peers": versions(),
    }


def artifact(where: Mapping[str, Any], scenario: str, outcome: Outcome) -> dict[str, Any]:
    """Return a scenario's artifact (design 08, *Artifact*); what it has none of is null."""
    return {
        "scenario_id": scenario,
        **where,
        "inputs": outcome.inputs,
        "provider_script": None,
        "clock_script": None,
        "capacity_plan": None,
        "iterations": outcome.iterations,
        "timeline": [*outcome.timelines] or None,  # names of the files beside the artifact
        "derived_metrics": {
            "medians": medians(outcome.iterations),
            "figures": {figure.name: figure.as_json() for figure in outcome.figures},
        },
        "final_task_snapshot": outcome.final_task_snapshots,
        "final_request_snapshot": outcome.final_request_snapshots,
        "output_hashes": outcome.output_hashes,
    }


def markdown(where: Mapping[str, Any], outcomes: Mapping[str, Outcome]) -> str:
    """Return the summary: the figures and where they come from."""
    software, machine = where["versions"], where["machine"]
    rounds = max(outcome.inputs["rounds"] for outcome in outcomes.values())
    lines = [
        f"`{where['command_line']}`, {where['date']}, commit {where['candidate_sha'][:12]}"
        + (" with uncommitted changes" if where["has_uncommitted_changes"] else "")
        + f"; {machine['cores']} cores, load {machine['load_average_at_start'][0]:.2f} at the"
        f" start; Python {software['python']}, {software['loop']}, redis-py {software['redis-py']},"
        f" {software['server']}. Medians of {rounds} rounds; a ratio is the median of the rounds'.",
        "The interval of a median needs six rounds; close: it lies on both sides of the aim.",
        f"Beside: {', '.join(f'{name} {version}' for name, version in where['peers'].items())}.",
        "",
    ]
    if where["is_smoke"]:
        lines += ["**A smoke run: it is too short for its figures to mean anything.**", ""]
    for scenario, outcome in outcomes.items():
        lines += [
            f"## {scenario}",
            "",
            f"| {' | '.join(HEADERS)} |",
            "|---|---:|---:|---|---|---|",
            *(f"| {' | '.join(figure.row)} |" for figure in outcome.figures),
            "",
        ]
    return "\n".join(lines)


def show(figures: Sequence[Figure]) -> None:
    """Print the figures, with rich where it is installed."""
    if find_spec("rich") is None:
        for figure in figures:
            click.echo("  ".join(figure.row))
        return
    table = importlib.import_module("rich.table").Table(*HEADERS)
    for figure in figures:
        table.add_row(*(cell.strip("*") for cell in figure.row))
    importlib.import_module("rich").print(table)


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def write(out: Path, where: Mapping[str, Any], outcomes: Mapping[str, Outcome]) -> None:
    """Write artifacts, ``figures.csv``, ``measures.csv``, ``summary.md``, and plots if possible."""
    out.mkdir(parents=True, exist_ok=True)
    figures = []
    measures = []
    for scenario, outcome in outcomes.items():
        text = json.dumps(artifact(where, scenario, outcome), indent=2)
        (out / f"{scenario}.json").write_text(text + "\n")
        for name, events in outcome.timelines.items():
            lines = "".join(f"{json.dumps(event)}\n" for event in events)
            (out / f"{scenario}.{name}.events.jsonl").write_text(lines)
        figures += [(scenario, *figure.row) for figure in outcome.figures]
        measures += [
            (scenario, number, name, value)
            for number, found in enumerate(outcome.iterations)
            for name, value in found.items()
        ]
    _write_csv(out / "figures.csv", ("scenario", *HEADERS), figures)
    _write_csv(out / "measures.csv", ("scenario", "round", "measure", "value"), measures)
    (out / "summary.md").write_text(markdown(where, outcomes))
    if find_spec("matplotlib") is None:
        remedy = how_to_install("demo")
        click.echo(f"matplotlib is not installed: no plots; run {remedy}", err=True)
        return
    for scenario, outcome in outcomes.items():
        draw = importlib.import_module("bench.plot").draw
        draw(outcome.figures, scenario, out / f"{scenario}.png")
