"""The options of commands that write the report of a run at its end."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from forebay.commands.lines import say
from forebay.commands.run_report import RunHistory
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import how_to_install

if TYPE_CHECKING:
    from forebay.workers.runs.driver import RunSummary

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
    """Return the path of a run's report; None for no report.

    Args:
        output: of the run; the report lies beside it where nothing else is said.
        report: the file that was asked for.
        no_report: whether none was.

    Raises:
        UsageError: a file was asked for, and none.
        ConfigurationError: the file is no Markdown file, so that it may hold something else, or it
            cannot be written.
    """
    if no_report and report is not None:
        raise click.UsageError("--report and --no-report exclude each other; say one of them.")
    if report is not None:
        _check_report(output, report)
    return None if no_report else report or output.with_name(f"{output.stem}.report.md")


def _check_report(output: Path, report: Path) -> None:
    """Raise if a report would replace another file, or could not be written.

    Raises:
        ConfigurationError: see there.
    """
    from forebay.workers.runs.output_problems import file_problem, folder_problem, name_problem

    problem = name_problem(report.name)
    if problem is None and report.suffix.lower() != ".md":
        problem = f"{report} is no Markdown file; name one that ends with .md"
    if problem is None and report.absolute() == output.absolute():
        problem = f"{report} is the output; name another file"
    for path in (report, report.with_suffix(".png")):
        problem = problem or file_problem(path, "", [])
    if problem := problem or folder_problem(report.absolute().parent):
        raise ConfigurationError(f"--report: {problem}. Nothing was begun.")


def write_report(history: RunHistory, report: Path, summary: RunSummary) -> None:
    """Write the report of a run that is over; a failure is printed and keeps the exit code."""
    try:
        files_written = history.write(report, summary)
    except ConfigurationError as error:
        say(f"Warning: {error}", err=True)
        return
    has_plots = find_spec("matplotlib") is not None
    no_plot = "" if has_plots else f" (without plots: {how_to_install('demo')} brings them)"
    say(f"report: {', '.join(map(str, files_written))}{no_plot}", err=True)
