"""The command line: `forebay COMMAND`. Errors are one sentence with a remedy.

Exit codes: 0 done; 1 an error, said in one sentence, or Ctrl-C; 2 wrong usage; 3 a run that dropped
records.
"""

from __future__ import annotations

import importlib
import io
import logging
import sys
import traceback
from typing import Final

import click
import structlog
from pydantic import ValidationError

from forebay.contracts.errors import ForebayError

COMMANDS: Final = {
    "demo": ("forebay.commands.demo:demo_command", "demo"),
    "drain": ("forebay.commands.pool_state:drain_command", ""),
    "mock-provider": ("forebay.commands.mock_provider:mock_provider_command", "mock"),
    "pause": ("forebay.commands.pool_state:pause_command", ""),
    "reset": ("forebay.commands.reset:reset_command", ""),
    "resume-pool": ("forebay.commands.pool_state:resume_command", ""),
    "run": ("forebay.commands.run:run_command", "run"),
    "snapshot": ("forebay.commands.snapshot:snapshot_command", ""),
    "worker": ("forebay.commands.worker:worker_command", ""),
}
"""Where each command lies, and the extra that it needs."""


class _LazyCommands(click.Group):
    """Imports a command when it is asked for: each needs only its own extra."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        place, extra = COMMANDS[cmd_name]
        module, _, name = place.partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            return _command_without_extra(cmd_name, str(error.name), extra)
        return command


def _command_without_extra(name: str, missing: str, extra: str) -> click.Command:
    """Return a command that says what to install; the help of the others still works."""
    remedy = f"needs pip install 'forebay[{extra}]'"

    def refuse() -> None:
        raise click.ClickException(f"{name} {remedy}: {missing} is not installed.")

    return click.Command(
        name,
        callback=refuse,
        help=f"{remedy}.",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


@click.group(cls=_LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks and debug logs.")
@click.version_option(package_name="forebay")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Share the capacity of model providers over many processes, fairly, through Redis."""
    ctx.obj = debug
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if debug else logging.WARNING
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def main() -> None:
    """Run the command line and exit."""
    debug = "--debug" in sys.argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that a terminal cannot show
    try:
        cli(standalone_mode=not debug)
    except Exception as error:
        if debug:
            raise
        click.echo(f"Error: {sentence_of(error)}", err=True)
        sys.exit(1)


def sentence_of(error: Exception) -> str:
    """Return an error as one line with a remedy; an unexpected one is told with its place."""
    match error:
        case ForebayError():
            text = str(error)
        case ValidationError():
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            problem = first["msg"].removeprefix("Value error, ").rstrip(".")
            text = f"{place}: {problem}; correct the option."
        case _:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            text = (
                f"{type(error).__name__}: {str(error) or 'without a message'} (at {frame.filename}:"
                f"{frame.lineno}), which was not expected; see the traceback with `forebay"
                " --debug ...`, and report it unless the fault is in code of your own."
            )
    return " ".join(text.split("\n"))
