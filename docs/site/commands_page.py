"""The page docs/reference/commands.md: every command with its arguments, options and exit codes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import click

import forebay.cli
from forebay.cli import COMMANDS, cli

_HEAD: Final = """# Commands

Made from the commands by `python -m docs.site.reference`; a test keeps it current.
[cli.md](../cli.md) says which command answers which question. `forebay COMMAND --help` prints
the same, with examples.
"""


class Option(NamedTuple):
    """An option of a command.

    Attributes:
        names: as they are typed, with the name of the value.
        default: in words; empty without one.
        variable: the environment variable that stands for it; empty without one.
        help: the meaning.
    """

    names: str
    default: str
    variable: str
    help: str


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield each command with its name."""
    context = click.Context(cli, info_name="forebay")
    for name in sorted(COMMANDS):
        command = cli.get_command(context, name)
        if command is None:
            raise LookupError(f"command {name} cannot be imported; correct forebay.cli.COMMANDS")
        yield name, command


def options_of(command: click.Command) -> Iterator[Option]:
    """Yield the options of a command, in the order of its help."""
    context = click.Context(command, info_name=command.name, show_default=False)
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            names = "/".join((*option.opts, *option.secondary_opts))
            value = (
                ""
                if option.is_flag or option.count
                else f" {option.make_metavar(context).removesuffix(' RANGE')}"
            )
            yield Option(
                f"{names}{value}",
                _default_of(option),
                str(option.envvar or ""),
                " ".join(((option.help or "").strip(), *_range_of(option))).strip(),
            )


def _range_of(option: click.Option) -> Iterator[str]:
    """Yield the bounds of a number in words."""
    if isinstance(option.type, click.IntRange | click.FloatRange):
        low, high = option.type.min, option.type.max
        words = [
            *(
                [f"{'above' if option.type.min_open else 'from'} {low:,}"]
                if low is not None
                else ()
            ),
            *(
                [f"{'below' if option.type.max_open else 'to'} {high:,}"]
                if high is not None
                else ()
            ),
        ]
        yield f"({' '.join(words)})"


def commands_page() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *_exit_codes(), *_all_commands()])


def _exit_codes() -> Iterator[str]:
    text = (forebay.cli.__doc__ or "").partition("Exit codes:")[2].partition("(docs/runs.md)")[0]
    yield "## Exit codes\n"
    for code in re.sub(r"\s+", " ", text).strip().split("; "):
        number, _, meaning = code.partition(" ")
        yield f"* {code}" if number == "128" else f"* `{number}`: {meaning}"
    yield "\nA command that gives a code a meaning of its own lists it below.\n"


def _all_commands() -> Iterator[str]:
    yield "## Options before the command\n"
    yield from _table(cli)
    yield "## All commands\n"
    for name, command in commands():
        yield f"### `forebay {name}`\n"
        context = click.Context(command, info_name=f"forebay {name}")
        yield f"`forebay {' '.join((name, *command.collect_usage_pieces(context)))}`\n"
        yield f"{(inspect.cleandoc(command.help or '')).partition(chr(10) * 2)[0]}\n"
        yield from _table(command)
        yield from _codes_of(command)


def _table(command: click.Command) -> Iterator[str]:
    options = list(options_of(command))
    if not options:
        return
    yield "| option | default | variable | meaning |"
    yield "| --- | --- | --- | --- |"
    for one in options:
        variable = f"`{one.variable}`" if one.variable else ""
        yield f"| {_code(one.names)} | {one.default} | {variable} | {_cell(one.help)} |"
    yield ""


def _codes_of(command: click.Command) -> Iterator[str]:
    """Yield the exit codes that the help of a command lists."""
    section = (
        inspect.cleandoc(command.help or "").partition("Exit codes:\n")[2].partition("\n\n")[0]
    )
    if section:
        yield "Exit codes:\n"
        for line in re.sub(r"\n {5,}", " ", section).splitlines():
            number, meaning = re.split(r"\s{2,}", line.strip(), maxsplit=1)
            yield f"* `{number}`: {_cell(meaning)}"
        yield ""


def _default_of(option: click.Option) -> str:
    if option.required:
        return "required"
    default = option.default
    if default is True and option.secondary_opts:
        return _code(option.opts[0])
    if default is None or default is False or default in ((), "") or callable(default):
        return ""
    if "UNSET" in repr(default):
        return ""
    return _code(str(default))


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*")
