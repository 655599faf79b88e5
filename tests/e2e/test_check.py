"""`forebay check`: all mistakes of a workflow at once, and models that answer or do not."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from forebay.commands.check import check_command
from forebay.commands.plan import plan_command
from forebay.commands.preview import preview_command
from forebay.coordinator.runs.plan import CELL_FUNCTION
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.mock_provider.server import MockProviderServer
from forebay.mock_provider.truth import ProviderTruth
from forebay.workers.runs.allowlist import Allowlist
from tests.support import wait_until
from tests.support_arq import working
from tests.support_runs import POOL, WORKFLOW, forebay, provider_address


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


def serving(url: str, workers: int) -> bool:
    """Whether so many workers have said what they serve."""
    with open_sync(parse_url(url)) as client:
        return client.hget(POOL["functions"], CELL_FUNCTION) == str(workers).encode()


async def test_keys_are_looked_for_in_the_workers_too_which_say_names_alone(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(WORKFLOW.parent / "messages.csv", tmp_path)
    text = WORKFLOW.read_text().replace("# api_key_env", "api_key_env")
    (tmp_path / "flow.toml").write_text(text)
    monkeypatch.setenv("LOCAL_API_KEY", "the-secret-key")
    words = [str(tmp_path / "flow.toml"), "--url", redis_url]

    async def checked() -> Result:
        return await asyncio.to_thread(CliRunner().invoke, check_command, words)

    assert "pool default has no worker yet" in (await checked()).output
    with_key = Allowlist.of(env=["LOCAL_API_KEY"], hosts=["127.0.0.1"])
    async with working(redis_url, allowed=Allowlist.of(hosts=["127.0.0.1"])):
        await wait_until(lambda: serving(redis_url, 1))
        lacking = await checked()
        assert "none of the 1 workers of pool default has the variable" in str(lacking.exception)
        assert "no mistake" not in lacking.output
        async with working(redis_url, allowed=with_key):
            await wait_until(lambda: serving(redis_url, 2))
            done = await checked()
            assert done.exit_code == 0, done.output
            told = "  key LOCAL_API_KEY is there in 1 of 2 workers of pool default"
            assert done.output.splitlines()[-1] == told
            with open_sync(parse_url(redis_url)) as client:
                stored = [client.dump(key) for key in client.scan_iter()]
            assert not any(b"the-secret-key" in value for value in stored)
        await wait_until(lambda: serving(redis_url, 1))
        assert "none of the 1 workers" in str((await checked()).exception)


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
