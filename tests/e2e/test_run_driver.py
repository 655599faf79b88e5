"""A run's driver where its files, its pool or its columns' names are unusual.

Rules: design 05, *Drivers*.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from forebay.cli import cli
from forebay.commands.kept import worker_command
from forebay.contracts.errors import RunNotWritten
from forebay.contracts.runs import RunProgress, RunSpec
from forebay.contracts.tasks import TaskAdmissionError
from forebay.coordinator.keys import pool_shard
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.workers.runs.allowlist import Allowlist
from forebay.workers.runs.driver import RunDriver
from forebay.workers.runs.files import RunFiles
from forebay.workers.runs.run_cells import RunCells
from forebay.workers.runs.workflow_file import load_workflow
from tests.support import wait_until
from tests.support_arq import working
from tests.support_runs import forebay, remains, start_forebay

POOL = pool_shard("default")
ALLOWED = Allowlist.of(paths=["/"], hosts=["127.0.0.1"])
HEAD = """
name = "letters"
buffer_size = 1
output.path = "out/o.jsonl"
providers.local.base_url = "http://127.0.0.1:1/v1"
models.m = {provider = "local", model = "m", max_parallel_requests = 2}
[[columns]]
generator = "seed"
names = ["id"]
path = "seed.csv"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed.csv").write_text("id\na\nb\n")
    return tmp_path


def run_of(folder: Path, **columns: str) -> RunSpec:
    text = HEAD
    for name, template in columns.items():
        text += (
            f"[[columns]]\ngenerator = 'expression'\nname = '{name}'\ntemplate = '''{template}'''\n"
        )
    (folder / "flow.toml").write_text(text)
    workflow = load_workflow(folder / "flow.toml", environ={})
    return RunSpec(run_id="run", tenant="t", workflow=workflow)


def makes_cells(url: str, **settings: str):
    allowed = Allowlist.of(paths=["."], hosts=["127.0.0.1:1"])
    return working(url, cells=partial(RunCells, environ={}, allowed=allowed), **settings)


async def test_columns_may_have_the_names_of_marks_in_the_store(folder, redis_url):
    run = run_of(folder, **{"#": "1{{ id }}", "!": "2{{ id }}", "a/b": "3", "%21": "4"})
    async with makes_cells(redis_url), await ServerConnection.open(redis_url) as connection:
        summary = await RunDriver(connection, run).drive()
    assert (summary.written, summary.dropped) == (2, 0)
    rows = [json.loads(line) for line in summary.output.read_text().splitlines()]
    assert rows[0] == {"id": "a", "#": "1a", "!": "2a", "a/b": "3", "%21": "4"}


async def test_a_skipped_cell_is_null_in_the_output_and_its_condition_is_no_column(
    folder, redis_url
):
    run = run_of(folder, text="1{{ id }}", behind="2{{ text }}", beside="3{{ text is none }}")
    text = (folder / "flow.toml").read_text() + "propagate_skip = false\n"
    text = text.replace("name = 'text'", "name = 'text'\nskip_when = \"id == 'a'\"")
    (folder / "flow.toml").write_text(f"row_group_admission = 'additive'\n{text}")
    workflow = load_workflow(folder / "flow.toml", environ={})
    run = run.model_copy(update={"workflow": workflow})
    async with makes_cells(redis_url), await ServerConnection.open(redis_url) as connection:
        summary = await RunDriver(connection, run).drive()
    rows = [json.loads(line) for line in summary.output.read_text().splitlines()]
    assert rows == [
        {"id": "a", "text": None, "behind": None, "beside": "3True"},
        {"id": "b", "text": "1b", "behind": "21b", "beside": "3False"},
    ]


async def test_a_batch_sees_its_row_group_without_dropped_records_behind_other_cells(
    folder, redis_url
):
    (folder / "seed.csv").write_text("id\na\nb\nc\nd\ne\n")
    (folder / "own_batch.py").write_text(
        "def beside(records, models):\n    return [[r['text'] for r in records]] * len(records)\n"
    )
    run_of(folder, text="{{ id }}{% if id == 'b' %}{{ '\\ud800' }}{% endif %}")
    text = (folder / "flow.toml").read_text().replace("buffer_size = 1", "buffer_size = 3")
    text += "[[columns]]\ngenerator = 'python'\nname = 'all'\nneeds = ['text']\nbatch = true\n"
    (folder / "flow.toml").write_text(text + "function = 'own_batch:beside'\n")
    workflow = load_workflow(folder / "flow.toml", environ={})
    run = RunSpec(run_id="run", tenant="t", workflow=workflow)
    allowed = Allowlist.of(paths=["."], hosts=["127.0.0.1:1"], code=["own_batch"])
    cells = partial(RunCells, environ={}, allowed=allowed)
    async with (
        working(redis_url, cells=cells),
        await ServerConnection.open(redis_url) as connection,
    ):
        summary = await RunDriver(connection, run).drive()
    rows = [json.loads(line) for line in summary.output.read_text().splitlines()]
    assert [(row["id"], row["all"]) for row in rows] == [
        ("a", ["a", "c"]), ("c", ["a", "c"]), ("d", ["d", "e"]), ("e", ["d", "e"]),
    ]  # fmt: skip


async def test_a_text_that_cannot_be_stored_drops_its_record_and_ends_no_worker(folder, redis_url):
    half = "{% if id == 'a' %}{{ '\\ud800' }}{% endif %}{{ id }}"
    async with (
        makes_cells(redis_url) as worker,
        await ServerConnection.open(redis_url) as connection,
    ):
        summary = await RunDriver(connection, run_of(folder, text=half)).drive()
        assert not worker.main_task.done()
    assert (summary.written, summary.dropped) == (1, 1)
    (dropped,) = map(json.loads, summary.dropped_file.read_text().splitlines())
    assert dropped["reason"] == "template_error in template: a lone surrogate in its text"


async def test_a_run_whose_files_cannot_be_written_is_kept_and_goes_on_when_they_can(
    folder, redis_url
):
    def spoil(progress: RunProgress) -> None:
        if progress.ready_to_write:
            shutil.rmtree(folder / "out", ignore_errors=True)

    async with makes_cells(redis_url), await ServerConnection.open(redis_url) as connection:
        run = run_of(folder)
        driver = RunDriver(connection, run, on_progress=spoil)
        with pytest.raises(RunNotWritten, match="cannot be written"):
            await driver.drive()
        assert remains(redis_url)
        summary = await RunDriver(connection, run).drive()
        assert (summary.written, summary.dropped) == (2, 0)
        await wait_until(lambda: not remains(redis_url))


async def test_a_run_that_cannot_be_resumed_here_is_left_as_it_is(folder, redis_url):
    """Its own server would be deleted, and the run cancelled."""
    (folder / "own_code.py").write_text("def same(record, models):\n    return record['id']\n")
    run_of(folder)
    text = (folder / "flow.toml").read_text() + "[[columns]]\ngenerator = 'python'\n"
    (folder / "flow.toml").write_text(f"{text}name = 'p'\nfunction = 'own_code:same'\n")
    workflow = load_workflow(folder / "flow.toml", environ={})
    run = RunSpec(run_id="letters-1", tenant="t", workflow=workflow)
    files = RunFiles(Path(workflow.output.path), run.run_id)
    async with await ServerConnection.open(redis_url) as connection:
        driving = asyncio.create_task(RunDriver(connection, run).drive())
        await wait_until(lambda: connection.client.hexists(POOL["runs"], "letters-1"))
        driving.cancel()
        await asyncio.wait([driving])
        files.begin()
        files.server.mkdir()
        (folder / "own_code.py").unlink()
        words = ("resume", run.run_id, "--url", redis_url)
        failed = await asyncio.to_thread(forebay, *words, cwd=folder)
        assert "own_code:same cannot be imported" in failed.stderr
        assert files.server.is_dir()
        assert await connection.client.hexists(POOL["runs"], "letters-1")
        assert (await called("cancel", *words[1:])).exit_code == 0


async def test_a_run_that_was_never_submitted_is_begun_by_the_same_command(folder, redis_url):
    run = run_of(folder)
    files = RunFiles(Path(run.workflow.output.path), "letters-00000000")
    files.begin()
    words = ("run", "flow.toml", "--no-report", "--url", redis_url)
    async with makes_cells(redis_url):
        done = await asyncio.to_thread(forebay, *words, "--resume", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 records written" in done.stdout
    assert not files.parts.exists()


async def test_a_run_that_its_pool_refuses_leaves_neither_claim_nor_folder(folder, redis_url):
    async with await ServerConnection.open(redis_url) as connection:
        tasks = TaskAdmissionController(connection)
        await tasks.set_state("draining")
        with pytest.raises(TaskAdmissionError, match="draining"):
            await RunDriver(connection, run_of(folder)).drive()
        assert await connection.client.hgetall(POOL["claims"]) == {}
        assert list((folder / "out").iterdir()) == []
        await tasks.close()


async def test_a_run_without_a_worker_says_what_it_waits_for(folder, redis_url):
    run = run_of(folder)
    words = ("run", "flow.toml", "--no-report", "--url", redis_url, "--pool", "a b")
    running = asyncio.create_task(asyncio.to_thread(forebay, *words, cwd=folder))
    claims = pool_shard("a b")["claims"]
    async with await ServerConnection.open(redis_url) as connection:

        async def is_submitted():
            return await connection.client.exists(claims)

        await wait_until(is_submitted, timeout=20)
    async with makes_cells(redis_url, pool="a b"):
        done = await running
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[:2] == [
        "pool a b has no worker, for which the run waits; start one:",
        f"  {worker_command(redis_url, 'a b', run)}",
    ]


async def test_a_run_whose_only_worker_goes_says_so_and_goes_on_when_one_comes(folder, redis_url):
    async with a_run_left_half_way(folder, redis_url) as (running, tasks):
        said = await asyncio.to_thread(lines_until, running, "has no worker")
        async with makes_cells(redis_url):
            said += await asyncio.to_thread(lines_until, running, "has a worker; the run goes on")
            await tasks.set_state("open")
            out, _ = await asyncio.to_thread(running.communicate, timeout=120)
    assert running.returncode == 0, said
    assert "400 of 400 records written" in out


async def test_a_run_that_every_worker_left_may_not_make_says_why_and_goes_on(folder, redis_url):
    async with a_run_left_half_way(folder, redis_url) as (running, tasks):
        await tasks.set_state("open")
        nothing = partial(RunCells, environ={}, allowed=Allowlist.of(paths=[], hosts=[]))
        async with working(redis_url, cells=nothing):
            said = await asyncio.to_thread(lines_until, running, "goes on with the run: worker ")
        assert "--allow-path" in said[-1]
        async with makes_cells(redis_url):
            out, _ = await asyncio.to_thread(running.communicate, timeout=120)
    assert running.returncode == 0, said
    assert "400 of 400 records written" in out


@contextlib.asynccontextmanager
async def a_run_left_half_way(folder, redis_url):
    """Yield a run's command and its pool, paused: most of its cells are left, and no worker."""
    (folder / "seed.csv").write_text("id\n" + "".join(f"{n}\n" for n in range(400)))
    run_of(folder, text="{{ id }}")
    async with await ServerConnection.open(redis_url) as connection:
        tasks = TaskAdmissionController(connection)
        running = start_forebay("run", "flow.toml", "--no-report", "--url", redis_url, cwd=folder)
        try:
            async with makes_cells(redis_url, max_jobs=1):
                await wait_until(lambda: connection.client.exists(POOL["checkpoints"]), timeout=60)
                await tasks.set_state("paused")
            yield running, tasks
        finally:
            with running:
                running.kill()
            await tasks.close()


def lines_until(running, text):
    """Read what a command says up to a line that holds a text."""
    lines = []
    while not lines or text not in lines[-1]:
        line = running.stderr.readline()
        assert line, f"it ended without saying {text!r}: {lines}"
        lines.append(line)
    return lines


async def test_a_run_is_listed_watched_and_given_up_by_the_commands_that_name_it(folder, redis_url):
    """A run without a worker, whose driver is killed."""
    run_of(folder, text="{{ id }}")
    words = ("flow.toml", "--url", redis_url)
    running = start_forebay("run", *words, cwd=folder)
    try:
        said = await asyncio.to_thread(lines_until, running, "limited by")
        assert said[-1] == "    limited by no worker: the pool has none that makes cells\n"
        (run,) = await listed(redis_url)
        assert run["owner"].endswith(f":{running.pid}")
        assert (run["state"], run["workflow"], run["tenant"]) == ("running", "letters", "default")
        assert (run["records"], run["done"], run["dropped"], run["calls"]) == (2, 0, 0, 0)
        assert run["age_seconds"] >= 0
        assert run["cost"] == 0
        for command in (("resume", run["run_id"], "--url", redis_url), ("run", *words, "--fresh")):
            refused = await called(*command)
            assert "expected one without a driver; watch it" in str(refused.exception)
        beside = await called("run", *words)
        assert f"is driven by {run['owner']}, expected" in str(beside.exception)
        assert "not over" not in beside.output
    finally:
        with running:
            running.kill()
    attached = start_forebay("attach", run["run_id"], "--url", redis_url, cwd=folder)
    with attached:
        assert run["run_id"] in (await asyncio.to_thread(attached.stdout.readline))
        async with makes_cells(redis_url):
            fresh = await asyncio.to_thread(forebay, "run", *words, "--fresh", cwd=folder)
        assert fresh.returncode == 0, fresh.stderr
        assert f"run {run['run_id']} is given up" in fresh.stderr
        rest, _ = await asyncio.to_thread(attached.communicate, timeout=60)
    assert rest.splitlines()[-1] == f"run {run['run_id']} is over"
    assert await listed(redis_url) == []
    again = await called("run", *words)
    assert "holds 2 records of an earlier run" in str(again.exception)


async def test_a_run_that_workers_make_is_watched_from_beside_until_it_is_over(folder, redis_url):
    (folder / "waiting_code.py").write_text(
        "import asyncio, pathlib\n\n\n"
        "async def waits(record, models):\n"
        "    while record['id'] == 'b' and not pathlib.Path('go').exists():\n"
        "        await asyncio.sleep(0.02)\n"
    )
    run_of(folder)
    text = (folder / "flow.toml").read_text() + "[[columns]]\ngenerator = 'python'\nname = 'p'\n"
    (folder / "flow.toml").write_text(f"{text}function = 'waiting_code:waits'\nneeds = ['id']\n")
    workflow = load_workflow(folder / "flow.toml", environ={})
    run = RunSpec(run_id="letters-1", tenant="t", workflow=workflow)
    allowed = Allowlist.of(paths=["."], hosts=["127.0.0.1:1"], code=["waiting_code"])
    cells = partial(RunCells, environ={}, allowed=allowed)
    async with (
        working(redis_url, cells=cells),
        await ServerConnection.open(redis_url) as connection,
    ):
        driving = asyncio.create_task(RunDriver(connection, run).drive())
        await wait_until(lambda: list((folder / "out").glob("*/*.dropped.jsonl")))
        (before,) = await listed(redis_url)
        attached = start_forebay("attach", "letters-1", "--url", redis_url, cwd=folder)
        with attached:
            said = await asyncio.to_thread(lines_until, attached, "limited by")
            assert "1/2 records" in said[-2]
            (beside,) = await listed(redis_url)
            assert (beside["driver"], beside["owner"]) == (before["driver"], before["owner"])
            (folder / "go").write_text("")
            out, _ = await asyncio.to_thread(attached.communicate, timeout=60)
        assert (attached.returncode, out.splitlines()[-1]) == (0, "run letters-1 is over")
        assert (await driving).written == 2


async def test_a_run_is_not_resumed_where_its_row_groups_are_not(folder, redis_url):
    async with a_run_left_half_way(folder, redis_url):
        await wait_until(lambda: list((folder / "out").glob("*/*.dropped.jsonl")))
    (run,) = await listed(redis_url)
    elsewhere = ("--output", str(folder / "elsewhere" / "o.jsonl"))
    done = await called("resume", run["run_id"], *elsewhere, "--url", redis_url)
    assert f"wrote them to {folder}/elsewhere" in str(done.exception)
    assert "of which 0 are here" in str(done.exception)


async def called(*words):
    """Run a command of this process that neither drives nor waits."""
    return await asyncio.to_thread(CliRunner().invoke, cli, words)


async def listed(url):
    done = await called("runs", "--json", "--url", url)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]
