"""A server that loses a run's state: the run fails in a sentence, nothing is deleted.

Rules: design 05, *Drivers*.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forebay.contracts.errors import RunLost
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.mock_provider.server import MockProviderServer
from forebay.mock_provider.truth import ProviderTruth
from forebay.runtime import start_worker, stop_workers
from forebay.workers.runs.allowlist import options_for
from forebay.workers.runs.driver import RunDriver
from tests.support import wait_until
from tests.support_runs import POOL, load_run, provider_address, start_forebay

RECORDS = 240
WORKFLOW = """
name = "w"
buffer_size = 10
output.path = "out.jsonl"
[providers.local]
base_url = "{base_url}"
[models.writer]
provider = "local"
model = "mock-large"
max_parallel_requests = 8
[[columns]]
generator = "seed"
names = ["id"]
path = "seed.csv"
[[columns]]
generator = "llm_text"
name = "text"
model = "writer"
prompt = "{{{{ id }}}}"
"""


@pytest.fixture
def provider() -> Iterator[MockProviderServer]:
    truth = ProviderTruth(latency_median_seconds=0.1)
    with MockProviderServer(truth, seed=7) as provider:
        yield provider


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path / "data") as server:
        yield server


def flush(server: EmbeddedServer) -> None:
    with open_sync(parse_url(server.url)) as client:
        client.flushall()


def restart_without_data(server: EmbeddedServer) -> None:
    server.kill()
    for file in Path(server.data_dir).rglob("*.aof*"):
        file.unlink()
    server.restart()


def lines(paths: Iterator[Path]) -> int:
    return sum(path.read_text().count("\n") for path in paths)


@pytest.mark.parametrize("lose", [flush, restart_without_data])
@pytest.mark.parametrize("workers", [0, 1])
async def test_a_run_whose_state_is_lost_fails_and_deletes_nothing(
    server: EmbeddedServer,
    provider: MockProviderServer,
    tmp_path: Path,
    lose: Callable[[EmbeddedServer], None],
    workers: int,
) -> None:
    (tmp_path / "flow.toml").write_text(WORKFLOW.format(base_url=provider.base_url))
    (tmp_path / "seed.csv").write_text("id\n" + "".join(f"{n}\n" for n in range(RECORDS)))
    (tmp_path / "out.jsonl").write_text('{"id":"of an earlier run"}\n')
    with contextlib.ExitStack() as stack:
        if not workers:
            options = ("--allow-host", "127.0.0.1", "--allow-path", str(tmp_path))
            stack.callback(stop_workers, [start_worker(server.url, *options)])
        words = (
            "run",
            "flow.toml",
            "--no-report",
            "--fresh",
            "--url",
            server.url,
            "--workers",
            workers,
        )
        running = start_forebay(*words, cwd=tmp_path)
        stack.callback(running.kill)
        await wait_until(lambda: any(tmp_path.glob("*.parts/*.dropped.jsonl")), timeout=30)
        await asyncio.to_thread(lose, server)
        _out, said = await asyncio.to_thread(running.communicate, timeout=30)

    assert running.returncode == 1, said
    assert "the server lost its state" in said
    assert "forebay resume" not in said, "it cannot go on"
    check_kept(tmp_path, said)


def check_kept(folder: Path, said: str) -> None:
    assert (folder / "out.jsonl").read_text() == '{"id":"of an earlier run"}\n'
    (parts,) = folder.glob("*.parts")
    kept = lines(parts.glob("*.records.jsonl"))
    assert 0 < kept < RECORDS
    assert f"{kept} of {RECORDS} records were finished and 0 dropped" in said
    assert str(parts) in said


async def test_a_run_that_was_cancelled_elsewhere_fails_and_says_so(
    server: EmbeddedServer, provider: MockProviderServer, tmp_path: Path
) -> None:
    spec = load_run(provider, tmp_path / "out.jsonl", "run")
    async with await ServerConnection.open(server.url) as connection:
        driver = RunDriver(connection, spec)
        driving = asyncio.create_task(driver.drive())

        async def is_there() -> bool:
            return bool(await connection.client.exists(POOL["runs"]))

        await wait_until(is_there)
        assert await driver._tracker.cancel("run")
        with pytest.raises(RunLost, match="cancelled elsewhere"):
            await asyncio.wait_for(driving, 10)
    assert (tmp_path / "out.jsonl.run.parts").is_dir()


async def test_cells_that_are_gone_from_the_server_fail_the_run(
    server: EmbeddedServer, provider: MockProviderServer, tmp_path: Path
) -> None:
    spec = load_run(provider, tmp_path / "out.jsonl", "run")
    worker = start_worker(
        server.url, *options_for(spec.workflow), environ=provider_address(provider)
    )
    try:
        async with await ServerConnection.open(server.url) as connection:
            driver = RunDriver(connection, spec)
            read = driver._tracker.read_row_group

            async def read_after_loss(*args: object) -> object:
                await connection.client.delete(POOL["cells"])
                return await read(*args)

            driver._tracker.read_row_group = read_after_loss
            with pytest.raises(RunLost, match="cells of row group"):
                await asyncio.wait_for(driver.drive(), 30)
    finally:
        await asyncio.to_thread(stop_workers, [worker])
    assert not (tmp_path / "out.jsonl").exists()
