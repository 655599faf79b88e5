"""The options of commands that write the report of a run at its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def report_options(command: Command) -> Command:
    """Add ``--report`` and ``--no-report`` to a command."""
    report = click.option(
        "--report",
        type=click.Path(path_type=Path),
        help="Write the report to this Markdown file.  [default: OUTPUT.report.md, with a plot]",
    )
    no_report = click.option("--no-report", is_flag=True, help="Write no report.")
    return report(no_report(command))


def report_path(output: Path, report: Path | None, *, no_report: bool) -> Path | None:
    """Return where the report of a run goes; None for none.

    Args:
        output: of the run; the report lies beside it where nothing else is said.
        report: the file that was asked for.
        no_report: whether none was.

    Raises:
        UsageError: a file was asked for, and none.
    """
    if no_report and report is not None:
        raise click.UsageError("--report and --no-report exclude each other; say one of them.")
    return None if no_report else report or output.with_name(f"{output.stem}.report.md")
