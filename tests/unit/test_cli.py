"""The command line where extras are missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import structlog
from click.testing import CliRunner

from forebay.cli import cli, main


@pytest.fixture(autouse=True)
def _without_extras(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("jinja2", "matplotlib", "uvicorn"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in list(sys.modules):
        if name.startswith(("forebay.commands", "forebay.demo", "forebay.mock", "forebay.workers")):
            monkeypatch.delitem(sys.modules, name)
    yield
    structlog.reset_defaults()  # which the command line had configured


def test_help_works_and_says_what_is_missing() -> None:
    shown = CliRunner().invoke(cli, ["--help"])
    assert shown.exit_code == 0
    assert "pip install 'forebay[run]'" in shown.output
    assert "reset" in shown.output


def test_worker_of_an_arq_application_needs_no_extra() -> None:
    shown = CliRunner().invoke(cli, ["worker", "--help"])
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize(("command", "extra"), [("run", "run"), ("demo", "demo")])
def test_command_names_its_own_extra(command: str, extra: str) -> None:
    shown = CliRunner().invoke(cli, [command, "--whatever", "x"])
    assert shown.exit_code == 1
    assert f"pip install 'forebay[{extra}]'" in shown.output


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("absent"), "KeyError: 'absent'"),
        (OSError(28, "No space left on device", "/x"), "No space left on device: '/x'"),
        (ValueError(), "ValueError: without a message"),
        (RuntimeError("two\nlines"), "RuntimeError: two lines"),
    ],
)
def test_an_error_that_nobody_expected_is_one_line_with_its_place_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    said: str,
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["forebay"])
    monkeypatch.setattr("forebay.cli.cli", fail)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: ")
    assert said in line
    assert "test_cli.py:" in line
    assert "forebay --debug" in line


def test_debug_shows_the_traceback_of_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise KeyError("absent")

    monkeypatch.setattr(sys, "argv", ["forebay", "--debug"])
    monkeypatch.setattr("forebay.cli.cli", fail)
    with pytest.raises(KeyError):
        main()
