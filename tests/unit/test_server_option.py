"""``--url`` and the variable that stands for it, the same for every command."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from forebay.cli import COMMANDS, cli, main
from forebay.contracts.errors import ConfigurationError

NOTHING_THERE = "redis://127.0.0.1:1"
WORKFLOW = str(Path(__file__).parents[2] / "examples/support_triage/workflow.toml")
ARGUMENTS: Mapping[str, list[str]] = {
    "apply": ["night.toml"],
    "attach": ["run-1"],
    "cancel": ["run-1"],
    "explain": ["task-1"],
    "check": [WORKFLOW, "--check-models"],
    "plan": [WORKFLOW],
    "preview": [WORKFLOW],
    "reset": ["local", "mock-large"],
    "resume": ["run-1"],
    "run": ["flow.toml"],
    "set-cap": ["local", "mock-large", "4"],
    "set-limit": ["gpu", "1"],
}
WITHOUT_A_SERVER = {"acl", "classify", "demo", "mock-provider", "replay"}
WITH_A_SERVER = sorted(COMMANDS.keys() - WITHOUT_A_SERVER)
WITH_A_DEFAULT = {"check", "plan", "preview", "run"}
"""Commands that take a private server, or none, where no server is named."""


def forebay(name: str, *, variable: str | None, url: str | None = None) -> Result:
    words = [name, *ARGUMENTS.get(name, []), *(["--url", url] if url else [])]
    return CliRunner().invoke(cli, words, env={"FOREBAY_URL": variable})


@pytest.mark.parametrize("name", WITH_A_SERVER)
def test_help_of_every_command_with_a_server_names_the_variable(name: str) -> None:
    said = " ".join(CliRunner().invoke(cli, [name, "--help"]).output.split())
    assert "--url" in said
    assert "env var: FOREBAY_URL" in said


@pytest.mark.parametrize("name", sorted(WITHOUT_A_SERVER))
def test_no_other_command_has_the_option(name: str) -> None:
    assert "--url" not in CliRunner().invoke(cli, [name, "--help"]).output


@pytest.mark.parametrize("name", WITH_A_SERVER)
def test_the_variable_stands_for_the_option_and_errors_name_it(name: str) -> None:
    shown = forebay(name, variable="redis:/wrong")
    assert isinstance(shown.exception, ConfigurationError)
    assert str(shown.exception).startswith("FOREBAY_URL: server URL 'redis:/wrong' cannot be used")


@pytest.mark.parametrize("name", WITH_A_SERVER)
def test_the_option_goes_before_the_variable(name: str) -> None:
    shown = forebay(name, variable="redis:/unread", url="redis:/wrong")
    assert isinstance(shown.exception, ConfigurationError)
    assert str(shown.exception).startswith("--url: server URL 'redis:/wrong' cannot be used")


@pytest.mark.parametrize("name", sorted({*WITH_A_SERVER} - WITH_A_DEFAULT))
def test_a_missing_server_names_option_and_variable(name: str) -> None:
    shown = forebay(name, variable=None)
    assert shown.exit_code == 2
    assert "Missing option '--url' (env var: 'FOREBAY_URL')" in shown.output


def test_an_error_of_the_server_says_that_the_variable_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["forebay", "snapshot"])
    monkeypatch.setenv("FOREBAY_URL", NOTHING_THERE)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"no answer from the server at {NOTHING_THERE}/0" in line
    assert line.endswith("The server's URL is that of the variable FOREBAY_URL.")
