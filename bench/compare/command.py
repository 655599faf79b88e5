"""``python -m bench --baseline REF SCENARIO``: both commits are built, measured and compared."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from bench import report
from bench.compare.comparison import artifact, rows_of, table
from bench.compare.driver import Driver
from bench.compare.errors import ComparisonError
from bench.compare.measures import MEASURES
from bench.compare.sides import ROOT, build, clean_head, commit_of
from bench.harness import Progress

SMOKE_PAIRS: Final = 2
FEWEST_PAIRS: Final = 20
USUAL_PAIRS: Final = 30


def scenarios_of(name: str) -> list[str]:
    """Return the scenarios that a name on the command line selects.

    Raises:
        ComparisonError: it has no turns that two commits could take.
    """
    if name == "all":
        return [*MEASURES]
    if name not in MEASURES:
        raise ComparisonError(
            f"{name} compares no commits, expected one of {', '.join(MEASURES)}, or all; choose"
            " one of these."
        )
    return [name]


def compare(
    baseline: str,
    name: str,
    *,
    pairs: int | None,
    out: Path,
    is_smoke: bool,
    progress: Progress,
    root: Path = ROOT,
) -> None:
    """Build both sides, let them take turns, print a table and write an artifact per scenario.

    Args:
        baseline: a ref; the candidate is what is checked out.
        name: a scenario, or ``all``.
        pairs: how many; None for the usual number.
        out: the folder of ``compare-<scenario>.json`` and ``.txt``.
        is_smoke: a few tiny turns, whose figures mean nothing.
        progress: told what happens.
        root: the repository.

    Raises:
        ComparisonError: the ref, the work tree, an installation or a turn is not as it should be.
    """
    scenarios: Sequence[str] = scenarios_of(name)
    head, base = clean_head(root), commit_of(baseline, root)
    where = report.origin(is_smoke=is_smoke)
    out.mkdir(parents=True, exist_ok=True)
    with _copy_of_bench() as folder:
        sides = build("baseline", base, progress, root), build("candidate", head, progress, root)
        driver = Driver(sides, folder, progress, is_smoke=is_smoke)
        for scenario in scenarios:
            found = driver.compare(scenario, SMOKE_PAIRS if is_smoke else pairs or USUAL_PAIRS)
            rows = rows_of(scenario, found)
            text = table(scenario, sides, rows, found)
            if is_smoke:
                text += "A smoke run: it is too short for its figures to mean anything.\n"
            written = json.dumps(artifact(scenario, sides, rows, found, where), indent=2)
            (out / f"compare-{scenario}.json").write_text(written + "\n")
            (out / f"compare-{scenario}.txt").write_text(text)
            click.echo(text)


@contextlib.contextmanager
def _copy_of_bench() -> Iterator[Path]:
    """Yield a folder with this bench alone: beside it no library that a side could import."""
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        here = Path(__file__).parents[1]
        no_caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(here, Path(folder) / here.name, ignore=no_caches)
        yield Path(folder)
