"""The command line: `forebay COMMAND`. Errors are one sentence with a remedy.

Exit codes: 0 done; 1 an error, said in one sentence; 2 wrong usage; 3 a run that is not all that
was asked; 4 a run that stopped itself; 5 `doctor` found something wrong; 128 and the signal's
number where one ended the command, but for a worker (docs/runs.md).

This module imports click alone, and each command when it is asked for: `forebay --version` and
wrong usage need neither Redis nor pydantic, and the help of a command needs no extra.
"""

from __future__ import annotations

import importlib
import io
import signal
import sys
import textwrap
import traceback
from collections.abc import Sequence
from typing import Final

import click

from forebay import __version__
from forebay.interrupts import end_at_once

COMMANDS: Final = {
    "acl": "forebay.commands.acl:acl_command",
    "apply": "forebay.commands.apply:apply_command",
    "attach": "forebay.commands.runs:attach_command",
    "audit": "forebay.commands.audit:audit_command",
    "cancel": "forebay.commands.runs:cancel_command",
    "check": "forebay.commands.check:check_command",
    "classify": "forebay.commands.classify:classify_command",
    "demo": "forebay.commands.demo:demo_command",
    "doctor": "forebay.commands.doctor:doctor_command",
    "drain": "forebay.commands.pool_state:drain_command",
    "events": "forebay.commands.events:events_command",
    "explain": "forebay.commands.explain:explain_command",
    "members": "forebay.commands.questions:members_command",
    "mock-provider": "forebay.commands.mock_provider:mock_provider_command",
    "ops": "forebay.commands.ops:ops_command",
    "pause": "forebay.commands.pool_state:pause_command",
    "open": "forebay.commands.pool_state:open_command",
    "plan": "forebay.commands.plan:plan_command",
    "preview": "forebay.commands.preview:preview_command",
    "proxy": "forebay.commands.proxy:proxy_command",
    "replay": "forebay.commands.replay:replay_command",
    "reset": "forebay.commands.reset:reset_command",
    "resume": "forebay.commands.runs:resume_command",
    "resume-pool": "forebay.commands.pool_state:resume_command",
    "run": "forebay.commands.run:run_command",
    "runs": "forebay.commands.runs:runs_command",
    "set-cap": "forebay.commands.setting:set_cap_command",
    "set-limit": "forebay.commands.setting:set_limit_command",
    "shards": "forebay.commands.questions:shards_command",
    "shares": "forebay.commands.questions:shares_command",
    "snapshot": "forebay.commands.snapshot:snapshot_command",
    "top": "forebay.commands.top:top_command",
    "waiters": "forebay.commands.questions:waiters_command",
    "who": "forebay.commands.questions:who_command",
    "worker": "forebay.commands.worker:worker_command",
}
"""Command -> module and function; a command checks for its extra when it runs."""


WIDTH: Final = 80
"""Columns of a terminal that error lines keep to."""
MOST_MISTAKES: Final = 50
"""Most mistakes of a workflow file that are shown at once."""


class _LazyCommands(click.Group):
    """Imports a command when it is used."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; one that Ctrl-C ends has the exit code of that signal.

        An error of the server has a note where the server's URL is that of a variable.
        """
        try:
            return super().invoke(ctx)
        except Exception as error:
            if variable := ctx.meta.get("forebay.url_from_variable"):
                _note_variable(error, variable)
            raise
        except KeyboardInterrupt:
            click.echo("stopped by SIGINT", err=True)
            sys.exit(128 + signal.SIGINT)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        if signal.getsignal(signal.SIGINT) is end_at_once:  # a command may have to clean up
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return command


def _note_variable(error: Exception, variable: str) -> None:
    from forebay.contracts.errors import CoordinatorError  # noqa: PLC0415 - see the top

    if isinstance(error, CoordinatorError) or " server at " in str(error):
        error.add_note(f"The server's URL is that of the variable {variable}.")


@click.group(cls=_LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks and debug logs.")
@click.version_option(__version__)
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Share the capacity of model providers over many processes, fairly, through Redis."""
    from forebay.logs import log_to_stderr  # noqa: PLC0415 - a command runs; see the top

    ctx.obj = debug
    log_to_stderr("debug" if debug else "warning")


def main() -> None:
    """Run the command line and exit."""
    debug = "--debug" in sys.argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that a terminal cannot show
    try:
        cli(prog_name="forebay", standalone_mode=not debug)
    except click.ClickException as error:  # wrong usage, which click tells by itself else
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - told below, whatever it is
        if debug:
            traceback.print_exc()
        else:
            is_terminal = sys.stderr.isatty()
            for line in error_lines(error, wraps=is_terminal):
                click.echo(line, err=True)
        sys.exit(exit_code_of(error))


def error_lines(error: Exception, *, wraps: bool) -> list[str]:
    """Return an error as lines: a sentence, and below it each mistake of a workflow.

    Args:
        error: what ended the command.
        wraps: whether no line is longer than ``WIDTH``, as in a terminal; words stay whole.
    """
    lines = [f"Error: {sentence_of(error)}", *(f"  {one}" for one in mistakes_of(error))]
    if not wraps:
        return lines
    return [
        part
        for line in lines
        for part in textwrap.wrap(
            line, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
    ]


def exit_code_of(error: Exception) -> int:
    """Return the exit code of a command that ended with an error."""
    from forebay.contracts.errors import RunStopped  # noqa: PLC0415 - a command ran; see the top

    return 4 if isinstance(error, RunStopped) else 1


def mistakes_of(error: Exception) -> Sequence[str]:
    """Return the mistakes that an error lists, if it is of a workflow file with several."""
    from forebay.contracts.errors import WorkflowError  # noqa: PLC0415 - a command ran; see the top

    if not isinstance(error, WorkflowError) or len(error.sentences) == 1:
        return ()
    more = len(error.sentences) - MOST_MISTAKES
    return [*error.sentences[:MOST_MISTAKES], *([f"and {more} more"] if more > 0 else [])]


def sentence_of(error: Exception) -> str:
    """Return an error as one sentence; an unexpected one with its place in the code."""
    from pydantic import ValidationError  # noqa: PLC0415 - a command ran; see the top

    from forebay.contracts.errors import ForebayError, WorkflowError  # noqa: PLC0415

    match error:
        case WorkflowError() if len(error.sentences) > 1:
            text = f"the workflow has {len(error.sentences)} mistakes, and nothing was started:"
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
    return " ".join([*text.split("\n"), *getattr(error, "__notes__", ())])
