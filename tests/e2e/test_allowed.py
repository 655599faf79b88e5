"""What a worker was not started with, no run gets: it is refused before anything of it runs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forebay.contracts.runs import RunSpec
from forebay.contracts.tasks import RunCell
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.runtime import start_worker, stop_workers
from forebay.workers.arq.open_worker import open_worker
from forebay.workers.runs.allowlist import options_for
from forebay.workers.runs.cells import CellsDeferred, CellsMade, CellsOutcome
from forebay.workers.runs.driver import RunDriver
from forebay.workers.runs.workflow_file import load_workflow
from tests.support import wait_until
from tests.support_answers import answers
from tests.support_raw_provider import RawProvider
from tests.support_runs import POOL, audits, forebay, remains

KEY = {"BETA_KEY": "sk-secret"}


@pytest.fixture
def elsewhere():
    with RawProvider(answers) as provider:
        yield provider


def write_workflow(folder: Path, provider: RawProvider, records: int = 4) -> Path:
    (folder / "seed.csv").write_text("text\n" + "a\n" * records)
    document = {
        "name": "w",
        "output": {"path": "out.jsonl"},
        "providers": {"beta": {"base_url": provider.base_url, "api_key_env": "BETA_KEY"}},
        "models": {"m": {"provider": "beta", "model": "large", "max_parallel_requests": 4}},
        "columns": [
            {"generator": "seed", "names": ["text"], "path": "seed.csv"},
            {"generator": "llm_text", "name": "made", "model": "m", "prompt": "{{ text }}"},
        ],
    }
    path = folder / "flow.yaml"
    path.write_text(json.dumps(document))  # YAML is a superset of JSON
    return path


class Fleet:
    """Workers of one server, each started with its own options."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str, environ: dict[str, str] | None = None) -> None:
        given = KEY if environ is None else environ
        self.workers.append(start_worker(self.url, *options, environ=given))

    def run(self, workflow: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return forebay("run", workflow, "--url", self.url, *options, cwd=self.folder, environ=KEY)


@pytest.fixture
def fleet(redis_url, tmp_path):
    fleet = Fleet(redis_url, tmp_path)
    yield fleet
    stop_workers(fleet.workers)


async def leaves_nothing(url: str) -> None:
    await wait_until(lambda: not remains(url))
    assert (await audits(url))[0].ok


def refused(done: subprocess.CompletedProcess[str], fleet: Fleet) -> str:
    """Return the one sentence of a refusal, which names a worker; nothing was written."""
    assert done.returncode == 1, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1, done.stderr
    assert any(f":{worker.pid} " in f"{said[0]} ".replace(";", " ") for worker in fleet.workers)
    assert [path.name for path in fleet.folder.glob("out*")] == []
    return said[0]


async def test_a_worker_that_was_started_with_nothing_sends_nothing_anywhere(
    fleet, provider, tmp_path
):
    fleet.start()
    done = fleet.run(write_workflow(tmp_path, provider))
    said = refused(done, fleet)
    assert f"may not send variable BETA_KEY to {provider.host}" in said
    assert f"nor read the seed file {tmp_path}/seed.csv" in said
    assert f"--allow-env BETA_KEY={provider.host} --allow-path {tmp_path}" in said
    assert "sk-secret" not in done.stderr
    assert provider.asked == []
    await leaves_nothing(fleet.url)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--allow-host", "{host}", "--allow-path", "{folder}"),
            "send variable BETA_KEY to {host}",
        ),
        (("--allow-env", "BETA_KEY", "--allow-path", "{folder}"), "call {host}"),
        (("--allow-env", "BETA_KEY={host}"), "read the seed file {folder}/seed.csv"),
        (
            (
                "--allow-env",
                "BETA_KEY={other}",
                "--allow-host",
                "{host}",
                "--allow-path",
                "{folder}",
            ),
            "send variable BETA_KEY to {host}",
        ),
    ],
)
async def test_what_is_missing_is_named_and_nothing_runs(
    fleet, provider, elsewhere, tmp_path, options, said
):
    names = {"host": provider.host, "other": elsewhere.host, "folder": tmp_path}
    for _ in range(2):
        fleet.start(*(option.format(**names) for option in options))
    sentence = refused(fleet.run(write_workflow(tmp_path, provider)), fleet)
    assert said.format(**names) in sentence
    assert provider.asked == elsewhere.asked == []
    await leaves_nothing(fleet.url)


async def test_a_variable_that_a_worker_lacks_is_named_with_the_worker(fleet, provider, tmp_path):
    fleet.start(
        "--allow-env", f"BETA_KEY={provider.host}", "--allow-path", str(tmp_path), environ={}
    )
    sentence = refused(fleet.run(write_workflow(tmp_path, provider)), fleet)
    assert "variable BETA_KEY is not set in worker " in sentence
    assert provider.asked == []
    await leaves_nothing(fleet.url)


async def test_workers_that_may_not_leave_a_run_to_those_that_may(fleet, provider, tmp_path):
    fleet.start()
    fleet.start("--allow-env", f"BETA_KEY={provider.host}", "--allow-path", str(tmp_path))
    fleet.start("--allow-host", provider.host)

    def are_members() -> bool:
        return len(members(fleet.url)) == 3

    await wait_until(are_members, timeout=30)
    done = fleet.run(write_workflow(tmp_path, provider))
    assert done.returncode == 0, done.stderr
    assert "4 of 4 records written" in done.stdout
    assert {one.headers["authorization"] for one in provider.asked} == {"Bearer sk-secret"}
    assert len(provider.asked) == 4
    await leaves_nothing(fleet.url)


def members(url: str) -> list[bytes]:
    with open_sync(parse_url(url)) as client:
        return client.zrange(POOL["members"], 0, -1)


async def test_workers_that_a_run_starts_may_do_what_its_workflow_asks(fleet, provider, tmp_path):
    done = fleet.run(write_workflow(tmp_path, provider), "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert len(provider.asked) == 4


async def test_workers_that_a_run_starts_do_nothing_for_another_workflow(
    fleet, provider, elsewhere, tmp_path
):
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder in (mine, other):
        folder.mkdir()
    workflow = load_workflow(write_workflow(mine, provider), environ=KEY)
    fleet.start(*options_for(workflow))
    done = fleet.run(write_workflow(other, elsewhere))
    assert f"may not send variable BETA_KEY to {elsewhere.host}" in refused(done, fleet)
    assert elsewhere.asked == []


def test_a_worker_opened_from_python_takes_an_allowlist(fleet, provider, tmp_path):
    script = (
        "import asyncio, sys, forebay\n"
        "async def main():\n"
        "    url, path, host = sys.argv[1:]\n"
        "    allowed = forebay.Allowlist.of(env=['BETA_KEY'], paths=[path], hosts=[host])\n"
        "    worker = await forebay.open_worker(url, allowed=allowed)\n"
        "    await worker.async_run()\n"
        "asyncio.run(main())\n"
    )
    arguments = [sys.executable, "-c", script, fleet.url, str(tmp_path), provider.host]
    with subprocess.Popen(arguments, env={**os.environ, **KEY}) as process:
        try:
            done = fleet.run(write_workflow(tmp_path, provider))
        finally:
            process.kill()
    assert done.returncode == 0, done.stderr
    assert len(provider.asked) == 4


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--allow-host", "https://a.example/v1", "is no host, expected HOST or HOST:PORT"),
        ("--allow-env", "sk-a-key", "names no environment variable; expected NAME"),
    ],
)
def test_an_option_of_another_form_is_told_in_one_sentence(
    redis_url, tmp_path, option, value, said
):
    done = forebay("worker", "--url", redis_url, option, value, cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


class Refusing:
    """Leaves the first cells to others, then makes them; keeps which try each was."""

    def __init__(self) -> None:
        self.tries: list[int] = []

    async def make(self, cell: RunCell, job_try: int) -> CellsOutcome:
        self.tries.append(job_try)
        if len(self.tries) < 3:
            return CellsDeferred(delay_seconds=0.0, gives_back_try=True)
        return CellsMade(values={number: {"text": '"a"'} for number in range(4)})

    async def aclose(self) -> None:
        """Nothing to close."""


async def test_a_cell_that_a_worker_leaves_to_others_was_no_try(
    redis_url, provider, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # where its output goes
    maker = Refusing()
    workflow = load_workflow(write_workflow(tmp_path, provider), environ=KEY)
    workflow = workflow.model_copy(update={"columns": workflow.columns[:1]})
    worker = await open_worker(redis_url, cells=lambda _tracker, _requests: maker)
    working = asyncio.create_task(worker.async_run())
    try:
        async with await ServerConnection.open(redis_url) as connection:
            run = RunSpec(run_id="r", tenant="t", workflow=workflow)
            summary = await RunDriver(connection, run).drive()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await worker.close()
    assert summary.written == 4
    assert maker.tries == [1, 1, 1]
