"""The command line: `forebay COMMAND`. Errors are one sentence with a remedy.

Exit codes: 0 done; 1 an error, said in one sentence, or Ctrl-C; 2 wrong usage; 3 a run that dropped
records.
"""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Final

import click
import structlog
from pydantic import ValidationError

from contracts.errors import ForebayError

COMMANDS: Final = {
    "demo": "forebay.commands.demo:demo_command",
    "mock-provider": "forebay.commands.mock_provider:mock_provider_command",
    "reset": "forebay.commands.reset:reset_command",
    "run": "forebay.commands.run:run_command",
    "snapshot": "forebay.commands.snapshot:snapshot_command",
    "worker": "forebay.commands.worker:worker_command",
}


class _LazyCommands(click.Group):
    """Imports a command when it is asked for: each needs only its own extra."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"{cmd_name} needs {error.name}, which is not installed:"
                " pip install 'forebay[demo]'"
            ) from error
        return command


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
    try:
        cli(standalone_mode=not debug)
    except ValidationError as error:
        if debug:
            raise
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        click.echo(f"Error: {place}: {first['msg']}; correct the option.", err=True)
        sys.exit(1)
    except ForebayError as error:
        if debug:
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
