"""`forebay check`: all mistakes of a workflow at once, and models that answer or do not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from forebay.commands.check import check_command
from forebay.commands.plan import plan_command
from forebay.commands.preview import preview_command
from forebay.mock_provider.server import MockProviderServer
from forebay.mock_provider.truth import ProviderTruth
from tests.support_runs import WORKFLOW, forebay, provider_address


def test_each_mistake_is_a_line_with_file_line_and_key(tmp_path: Path) -> None:
    shutil.copy(WORKFLOW.parent / "messages.csv", tmp_path)
    text = WORKFLOW.read_text().replace("{{ summary }}", "{{ sumary }}")
    text = text.replace('model = "judge"', 'model = "jugde"')
    (tmp_path / "flow.toml").write_text(text.replace("buffer_size", "bufer_size"))
    for command in ("check", "run"):
        done = forebay(command, "flow.toml", cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            "Error: the workflow has 3 mistakes, and nothing was started:",
            "  flow.toml:5: bufer_size: unknown key; did you mean 'buffer_size'?",
            (
                "  flow.toml:53: columns[2].model (column 'triage'): unknown model alias 'jugde';"
                " did you mean 'judge'?"
            ),
            (
                "  flow.toml:63: columns[2].prompt (column 'triage'): template line 8: no column"
                " makes 'sumary'; did you mean 'summary'?"
            ),
        ]
    assert not (tmp_path / "out").exists()


def test_a_health_check_says_of_each_model_whether_it_answers(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(WORKFLOW), "--check-models", "--url", redis_url]
    with MockProviderServer(ProviderTruth(), seed=7) as provider:
        for name, value in provider_address(provider).items():
            monkeypatch.setenv(name, value)
        done = CliRunner().invoke(check_command, words)
        assert (done.exit_code, done.output.splitlines()[-1]) == (0, "  local/mock-large answers")
        assert provider.state.counters.ok == 1
        address = provider.base_url.removeprefix("http://").removesuffix("/v1")
    done = CliRunner().invoke(check_command, words)
    assert done.exit_code == 1
    refused = f"  local/mock-large {address} of local/mock-large refused the connection"
    assert done.output.splitlines()[-1] == refused
    done = CliRunner().invoke(check_command, [*words[:-1], "redis://127.0.0.1:1"])
    assert "127.0.0.1:1" in str(done.exception)
    assert done.output == ""


def test_a_preview_shows_prompts_and_answers_and_a_plan_what_they_would_cost(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(WORKFLOW.parent / "messages.csv", tmp_path)
    prices = "temperature = 0.3\ninput_price = 1.0\noutput_price = 2.0"
    flow = tmp_path / "flow.toml"
    flow.write_text(WORKFLOW.read_text().replace("temperature = 0.3", prices))
    monkeypatch.chdir(tmp_path)
    with MockProviderServer(ProviderTruth(), seed=7) as provider:
        for name, value in provider_address(provider).items():
            monkeypatch.setenv(name, value)
        words = [str(flow), "--url", redis_url]
        shown = CliRunner().invoke(preview_command, [*words, "--records", "2"])
        assert shown.exit_code == 0, shown.output
        assert provider.state.counters.ok == 4
        lines = shown.output.splitlines()
        assert [line for line in lines if line.startswith("record ")] == ["record 0", "record 1"]
        assert "  summary: call of writer" in lines
        assert any(line.startswith("    answer    ") for line in lines)
        assert max(map(len, lines)) <= 80
        planned = CliRunner().invoke(plan_command, [*words, "--sample", "2", "--json"])
        assert planned.exit_code == 0, planned.output
        expected = json.loads(planned.output)["expected"]
        assert expected["calls"]["value"] == 480
        assert expected["cost"]["value"] > 0
    failing = CliRunner().invoke(preview_command, [*words, "--records", "1"])
    assert failing.exit_code == 3
    assert "summary: would be dropped: " in failing.output
    assert not (tmp_path / "out").exists()
