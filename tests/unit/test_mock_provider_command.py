from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from forebay.commands import mock_provider
from forebay.commands.mock_provider import mock_provider_command


@pytest.fixture
def started(monkeypatch):
    """Run the command up to its start; gives a function that returns what it would serve."""
    caught = {}
    monkeypatch.setattr(
        mock_provider, "_run", lambda truth, **more: caught.update(more, truth=truth)
    )

    def run(*arguments, **more):
        result = CliRunner().invoke(mock_provider_command, list(arguments), **more)
        return result, caught

    return run


def test_options_override_the_schedule_file_that_overrides_the_config_file(started, tmp_path):
    config, schedule = tmp_path / "config.toml", tmp_path / "schedule.toml"
    config.write_text(
        "concurrency = 1\nerror_rate = 0.5\n[[schedule]]\nat_seconds=1\nerror_rate=0\n"
    )
    schedule.write_text("[[schedule]]\nat_seconds = 2\nconcurrency = 9\n")
    result, caught = started(
        "--config", str(config), "--schedule", str(schedule), "--concurrency", "4", "--seed", "3"
    )
    assert result.exit_code == 0, result.output
    truth = caught["truth"]
    assert (truth.concurrency, truth.error_rate) == (4, 0.5)
    assert [step.at_seconds for step in truth.schedule] == [2]
    assert caught["seed"] == 3


def test_the_help_names_both_apis_and_shows_the_schedule_as_it_is_written():
    told = CliRunner().invoke(mock_provider_command, ["--help"]).output
    assert "Anthropic" in told
    assert "      [[schedule]]\n      at_seconds = 30\n" in told
    assert "\\b" not in told


def test_every_option_reaches_its_field(started):
    result, caught = started(
        *("--rpm", "60", "--tpm", "900", "--latency", "0.1", "--sigma", "0.2"),
        *("--error-rate", "0.3", "--invalid-json-rate", "0.4", "--retry-after", "0.5"),
    )
    assert result.exit_code == 0, result.output
    assert caught["truth"].model_dump(exclude_defaults=True) == {
        "requests_per_minute": 60,
        "tokens_per_minute": 900,
        "latency_median_seconds": 0.1,
        "latency_sigma": 0.2,
        "error_rate": 0.3,
        "invalid_json_rate": 0.4,
        "retry_after_seconds": 0.5,
    }


def test_the_key_comes_from_the_environment(started):
    result, caught = started("--api-key-env", "MOCK_KEY", env={"MOCK_KEY": "k"})
    assert result.exit_code == 0, result.output
    assert caught["api_key"] == "k"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--concurrency", "-1"], "--concurrency -1: concurrency: Input should be"),
        (["--error-rate", "2"], "--error-rate 2.0: error_rate: Input should be"),
        (["--rpm", "0"], "--rpm 0: requests_per_minute"),
        (["--port", "70000"], "--port"),
        (["--config", "/no/such/file"], "does not exist"),
        (["--api-key-env", "NO_SUCH_KEY"], "set it to the key"),
        (["--host", "256.1.1.1"], "choose another host"),
        (["--log", "/no/such/folder/log"], "give a path that can be written"),
    ],
)
def test_a_wrong_option_is_one_sentence_with_a_remedy(arguments, said):
    result = CliRunner().invoke(mock_provider_command, arguments)
    assert result.exit_code in {1, 2}
    assert said in result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("concurrency = 3", "put other fields of the truth into --config"),
        ("[[schedule]]\nat_seconds = 1\nlatency = 3", "schedule step 1: latency: unknown field"),
        ("schedule = 3", "schedule: "),
    ],
)
def test_a_wrong_schedule_file_is_named(started, tmp_path, text, said):
    path = tmp_path / "steps.toml"
    path.write_text(text)
    result, caught = started("--schedule", str(path))
    assert result.exit_code == 1
    assert str(path) in result.output
    assert said in result.output
    assert caught == {}


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_extra_the_message_says_what_to_install(missing):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from forebay.commands.mock_provider import mock_provider_command as command\n"
        "command([])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: the mock provider needs {missing}")
    assert "run pip install '.[mock]' in " in done.stderr
    assert "Traceback" not in done.stderr
