"""A user's own packages and modules, of our folders' names and of our dependencies'."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.coordinator.keys import pool_shard
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection
from forebay.runtime import start_worker, stop_workers
from forebay.workers.arq.pool import create_pool
from tests.support import wait_until
from tests.support_installs import (
    BARE_NAMES,
    WORKFLOW,
    Environment,
    plain_tree,
    user_environ,
    wheel_of,
)

START_SECONDS = 20.0
"""Above what a process takes to start on a busy machine."""
OWN = "OWNER = 'the user'\n"
JOBS = """
import contracts, coordinator, forebay, lua, workers

async def owners(ctx):
    return [module.OWNER for module in (contracts, coordinator, lua, workers)]
"""
SETTINGS = """
class WorkerSettings:
    functions = [owners]
    job_completion_wait = 0
"""
TEST = """
import contracts, coordinator, forebay, lua, workers
from forebay.contracts.errors import ForebayError

def test_each_import_gets_its_own():
    assert {module.OWNER for module in (contracts, coordinator, lua, workers)} == {"the user"}
    assert issubclass(forebay.TaskFailed, ForebayError)
    assert forebay.connect and forebay.create_pool and forebay.open_worker and forebay.transport
"""
OF_OURS = ("arq", "click", "forebay", "httpx2", "hiredis", "jinja2", "pydantic", "redis")
OF_PYTHON = ("secrets", "signal", "statistics", "threading")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return wheel_of(plain_tree(folder / "tree"), folder / "built")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel, what a run needs, and pytest for the user."""
    folder = tmp_path_factory.mktemp("installed") / "env"
    environment = Environment(folder, "forebay", "forebay[embedded,run]", "pytest")
    environment.install(str(wheel))
    return environment


@pytest.fixture(scope="module")
def without_extras(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel, in which a user's jinja2 is the only one."""
    environment = Environment(tmp_path_factory.mktemp("without-extras") / "env", "forebay")
    environment.install(str(wheel))
    return environment


@pytest.fixture(params=["packages", "modules"])
def application(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with four packages, or four modules, of our folders' names."""
    for name in BARE_NAMES:
        if request.param == "packages":
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(OWN)
        else:
            (tmp_path / f"{name}.py").write_text(OWN)
    if request.param == "packages":
        (tmp_path / "workers" / "jobs.py").write_text(JOBS)
        (tmp_path / "workers" / "settings.py").write_text(
            "from workers.jobs import owners\n" + SETTINGS
        )
    else:
        (tmp_path / "workers.py").write_text(OWN + JOBS + SETTINGS)
    (tmp_path / "test_own.py").write_text(TEST)
    return tmp_path


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with modules of the user's that must be taken for nobody else's."""
    for name in (*BARE_NAMES, *OF_OURS, *OF_PYTHON):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('the {name} of a user')\n")
    return tmp_path


@contextlib.contextmanager
def started(command: list[str | Path], cwd: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=user_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def settings_in(application: Path) -> str:
    is_package = (application / "workers").is_dir()
    return "workers.settings.WorkerSettings" if is_package else "workers.WorkerSettings"


@pytest.mark.parametrize("way", ["command", "module"])
async def test_a_worker_runs_the_users_own_workers(
    way: str, installed: Environment, application: Path, redis_url: str
) -> None:
    program = [installed.forebay] if way == "command" else [installed.python, "-m", "forebay"]
    command = [*program, "worker", settings_in(application), "--url", redis_url]
    async with await create_pool(redis_url) as pool:
        job = await pool.enqueue_job("owners")
        assert job is not None
        with started(command, application) as process:
            assert await job.result(timeout=START_SECONDS, poll_delay=0.02) == ["the user"] * 4
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 0, err
    assert out.splitlines()[-1].startswith("stopped; ")


def test_the_users_own_pytest_finds_the_users_own_modules(
    installed: Environment, application: Path
) -> None:
    options = ("-q", "-W", "error", "-p", "no:cacheprovider")
    ran = installed.run(installed.python, "-m", "pytest", *options, cwd=application)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


# --- a folder whose modules have the names of what we import


async def test_a_worker_that_a_command_starts_takes_nothing_from_the_current_folder(
    hostile: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hostile)
    worker = start_worker(redis_url)
    try:
        async with await ServerConnection.open(redis_url) as connection:
            members = pool_shard("default")["members"]

            async def is_member_or_over() -> bool:
                is_member = await connection.client.zcard(members) == 1
                return is_member or worker.poll() is not None

            await wait_until(is_member_or_over, timeout=START_SECONDS)
            assert worker.poll() is None
    finally:
        stop_workers([worker])


def test_an_embedded_server_takes_nothing_from_the_current_folder(
    hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hostile)
    monkeypatch.setenv("PYTHONPATH", str(hostile))
    with EmbeddedServer() as server:
        assert server.url.startswith("unix://")


def test_a_run_takes_nothing_from_the_current_folder(installed: Environment, hostile: Path) -> None:
    (hostile / "flow.toml").write_text(WORKFLOW)
    (hostile / "seed.csv").write_text("id\n1\n2\n")
    ran = installed.run(installed.forebay, "run", "flow.toml", cwd=hostile)
    assert ran.returncode == 0, ran.stderr
    assert (hostile / "records.jsonl").read_text().splitlines() == [
        '{"id":"1","twice":"11"}',
        '{"id":"2","twice":"22"}',
    ]


@pytest.mark.parametrize("environment", ["installed", "without_extras"])
async def test_a_worker_with_settings_takes_no_dependency_from_the_current_folder(
    environment: str, request: pytest.FixtureRequest, hostile: Path, redis_url: str
) -> None:
    installed = request.getfixturevalue(environment)
    (hostile / "app.py").write_text("async def owners(ctx):\n    return 'app'\n" + SETTINGS)
    command: list[str | Path] = [installed.forebay, "worker", "app.WorkerSettings"]
    async with await create_pool(redis_url) as pool:
        job = await pool.enqueue_job("owners")
        assert job is not None
        with started([*command, "--url", redis_url], hostile):
            assert await job.result(timeout=START_SECONDS, poll_delay=0.02) == "app"


def test_settings_in_a_folder_that_is_gone_are_refused_in_words(
    installed: Environment, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = 'rmdir "$PWD" && exec "$0" worker app.WorkerSettings --url redis://127.0.0.1:1'
    ran = installed.run("/bin/sh", "-c", program, str(installed.forebay), cwd=gone)
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: SETTINGS 'app.WorkerSettings' cannot be imported (")
    assert len(ran.stderr.splitlines()) == 1
