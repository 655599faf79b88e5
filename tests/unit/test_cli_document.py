"""docs/cli.md names every command and every exit code that there is."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

import forebay.cli
from forebay.cli import COMMANDS, cli

DOCUMENT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def test_every_command_is_listed_and_no_other() -> None:
    section = DOCUMENT.partition("## All commands")[2].partition("##")[0]
    assert re.findall(r"`([a-z-]+)`", section) == sorted(COMMANDS)


def test_every_command_that_is_named_is_there() -> None:
    assert set(re.findall(r"`forebay ([a-z][a-z-]+)", DOCUMENT)) <= COMMANDS.keys()


def test_exit_codes_are_those_of_the_module() -> None:
    told = set(re.findall(r"^\| (\d) \|", DOCUMENT, re.MULTILINE))
    module = (forebay.cli.__doc__ or "").partition("Exit codes:")[2].partition("128")[0]
    assert told == set(re.findall(r"\b(\d)\b", module))


def test_bash_completes_the_commands() -> None:
    environ = {
        "_FOREBAY_COMPLETE": "bash_complete",
        "COMP_WORDS": "forebay set-",
        "COMP_CWORD": "1",
    }
    shown = CliRunner().invoke(cli, prog_name="forebay", env=environ)
    assert shown.output.split() == ["plain,set-cap", "plain,set-limit"]
