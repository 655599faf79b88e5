"""The command line before a command runs: fast, and whole where no extra is installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from forebay.cli import COMMANDS, cli, error_lines, main
from forebay.contracts.errors import ConfigurationError, RunStopped, WorkflowError
from tests.support_extras import answer_of

LOADED = """
import contextlib, io, json, sys
code = 0
sys.argv[0] = "forebay"
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    try:
        from forebay.cli import main
        main()
    except SystemExit as end:
        code = end.code
print(json.dumps({"code": code, "modules": sorted(sys.modules)}))
"""
SAID = """
import json, sys
from click.testing import CliRunner
from forebay.cli import cli
said = []
for arguments in json.loads(sys.argv[1]):
    shown = CliRunner().invoke(cli, arguments)
    said.append([shown.exit_code, shown.output, str(shown.exception or "")])
print(json.dumps(said))
"""


def said_without_extras(*commands: list[str]) -> list[tuple[int, str, str]]:
    """Run commands one after another; return exit code, output and exception of each."""
    said = answer_of(SAID, json.dumps(commands), extras=False)
    return [(code, output, error) for code, output, error in said]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 0), (["--whatever"], 2), (["whatever"], 2), (["--debug", "--version"], 0)],
)
def test_nothing_but_click_is_imported_before_a_command_is_known(
    arguments: list[str], code: int
) -> None:
    found = answer_of(LOADED, *arguments)
    assert found["code"] == code
    names = set(found["modules"])
    assert {name for name in names if name.partition(".")[0] == "forebay"} == {
        "forebay",
        "forebay.cli",
        "forebay.interrupts",
    }
    heavy = {"arq", "asyncio", "importlib.metadata", "pydantic", "redis", "structlog"}
    assert names & heavy - ({"structlog"} if arguments == ["whatever"] else set()) == set()


def test_help_lists_every_command_where_no_extra_is_installed() -> None:
    [(code, output, _)] = said_without_extras(["--help"])
    assert code == 0
    listed = output.partition("Commands:\n")[2]
    assert [line.split()[0] for line in listed.splitlines()] == sorted(COMMANDS)
    assert "Run a workflow to its end" in listed


def test_every_command_has_its_help_where_no_extra_is_installed() -> None:
    said = said_without_extras(*([name, "--help"] for name in COMMANDS))
    for name, (code, output, _) in zip(COMMANDS, said, strict=True):
        assert (code, output.splitlines()[0].split()[2]) == (0, name)
        assert "Options:" in output


def test_wrong_usage_of_every_command_is_named_where_no_extra_is_installed() -> None:
    said = said_without_extras(*([name, "--whatever"] for name in COMMANDS))
    for code, output, _ in said:
        assert code == 2
        assert "No such option" in output


@pytest.mark.parametrize(
    ("arguments", "begins", "extra"),
    [
        (["run", "flow.toml"], "forebay run needs httpx2, jinja2, jsonschema_rs, rich, exp", "run"),
        (
            ["demo"],
            "forebay demo needs httpx2, jinja2, jsonschema_rs, rich, starlette, uvicorn",
            "demo",
        ),
        (["mock-provider"], "the mock provider needs starlette, uvicorn, expected", "mock"),
        (
            ["proxy", "--url", "redis://127.0.0.1:1", "--upstream", "https://api.openai.com"],
            "the proxy needs httpx2, starlette, uvicorn, expected",
            "proxy",
        ),
        (
            ["worker", "--url", "redis://127.0.0.1:1"],
            "forebay worker without SETTINGS needs httpx2",
            "run",
        ),
    ],
    ids=["run", "demo", "mock-provider", "proxy", "worker"],
)
def test_a_command_that_runs_names_what_to_install(
    arguments: list[str], begins: str, extra: str
) -> None:
    [(code, output, error)] = said_without_extras(arguments)
    said = output.removeprefix("Error: ") or error
    assert code == 1
    assert said.startswith(begins)
    assert f"run pip install '.[{extra}]' in /" in said


def test_a_worker_of_an_arq_application_needs_no_extra() -> None:
    [(code, _, error)] = said_without_extras(
        ["worker", "no_such_module.WorkerSettings", "--url", "redis://127.0.0.1:1"]
    )
    assert (code, error.partition(" (")[0]) == (
        1,
        "SETTINGS 'no_such_module.WorkerSettings' cannot be imported",
    )


def test_the_demo_refuses_in_words_a_folder_that_it_cannot_make(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    shown = CliRunner().invoke(cli, ["demo", "--out", str(tmp_path / "file" / "demo")])
    assert isinstance(shown.exception, ConfigurationError)
    said = str(shown.exception)
    assert said.startswith(f"--out {tmp_path}/file/demo: this folder cannot be made (Not a dir")
    assert said.endswith("name another.")


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


def test_an_error_fits_a_terminal_and_is_one_line_in_a_pipe() -> None:
    mistakes = WorkflowError("flow.toml:5: bufer_size: unknown key; did you mean x? " * 2, "two")
    address = "embedded:///" + "a" * 90
    long = ConfigurationError(f"the run {address} is not there, expected one; begin it anew.")
    assert error_lines(long, wraps=False) == [f"Error: {long}"]
    wrapped = error_lines(long, wraps=True)
    assert all(len(line) <= 80 for line in wrapped if address not in line)
    assert " ".join(line.strip() for line in wrapped) == f"Error: {long}"
    lines = error_lines(mistakes, wraps=True)
    assert (len(lines), lines[0][:6], lines[-1]) == (4, "Error:", "  two")
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(("error", "code"), [(KeyError("absent"), 1), (RunStopped("told to"), 4)])
def test_debug_shows_the_traceback_of_an_error_and_keeps_its_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["forebay", "--debug"])
    monkeypatch.setattr("forebay.cli.cli", fail)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert "in fail" in said


@pytest.mark.parametrize(
    "arguments",
    [["nope"], ["snapshot"], ["snapshot", "--nope"], ["run", "--weight", "x", "flow.toml"]],
)
@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_wrong_usage_is_told_without_a_traceback_with_debug_too(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    debug: list[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["forebay", *debug, *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("Usage: forebay ")
    assert "Traceback" not in said
