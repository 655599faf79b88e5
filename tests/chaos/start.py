"""The beginning of a chaos run: server, provider and fleet, each at work."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from forebay.contracts.settings import MemberSettings
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.controller import TaskAdmissionController
from forebay.workers.arq.pool import JobPool, create_pool
from tests.chaos import observers
from tests.chaos.caller import CAP
from tests.chaos.fleet import Fleet
from tests.chaos.observers import CapMove
from tests.chaos.pipes import Pipe
from tests.chaos.scene import POOL, TENANTS, USUAL_TRUTH, Scene
from tests.chaos.servers import Servers
from tests.support import wait_until

RECORDS: Final = 12
START_SECONDS: Final = 240.0
"""Within which every process has done something, on a busy machine."""
CLOCK_LOOKS: Final = 20
"""The shortest of so many ways to the provider and back tells what its clock says."""
WORKFLOW: Final = """
name = "chaos"
buffer_size = 4
max_concurrent_row_groups = 2

[output]
path = "out.jsonl"

[providers.local]
base_url = "{base_url}"

[models.writer]
provider = "local"
model = "mock-large"
max_parallel_requests = {cap}

[[columns]]
names = ["number"]
generator = "seed"
path = "seeds.csv"

[[columns]]
name = "text"
generator = "llm_text"
model = "writer"
prompt = "Say {{{{ number }}}}."
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The parameters of a chaos run.

    Attributes:
        seconds: of faults.
        jobs_per_second: how many arq jobs come.
        workers: of arq jobs; one more makes the cells of runs.
        callers: processes of SDK callers.
        seed: of jobs; the schedule has its own.
    """

    seconds: float
    jobs_per_second: float = 4.0
    workers: int = 2
    callers: int = 2
    seed: int = 1


async def begin(
    stack: contextlib.AsyncExitStack, folder: Path, given: Given
) -> tuple[Scene, JobPool, float]:
    """Begin server, provider and fleet; return also when the clock of the provider's log was 0."""
    pipes: list[Pipe] = []
    servers = Servers(folder, pipes)
    stack.callback(servers.close)
    await servers.until_ready()

    async def pipe() -> Pipe:
        made = Pipe(servers.primary.port)
        await made.open()
        stack.push_async_callback(made.close)
        pipes.append(made)
        return made

    base_url, zero = begin_provider(stack.enter_context(contextlib.ExitStack()), folder)
    _write_inputs(folder, base_url)
    fleet = Fleet(folder=folder, base_url=base_url)
    stack.callback(lambda: fleet.end("worker", "cells", "caller", "driver"))
    own = await pipe()
    patient = MemberSettings(ttl_seconds=3.0, call_timeout_seconds=2.0)
    connection = await stack.enter_async_context(await ServerConnection.open(own.url, patient))
    tasks = TaskAdmissionController(connection, POOL)
    stack.push_async_callback(tasks.close)
    jobs = await stack.enter_async_context(await create_pool(own.url))
    for _ in range(given.workers):
        fleet.add_worker(await pipe())
    fleet.add_cells_worker(await pipe())
    for number in range(given.callers):
        fleet.add_caller(await pipe(), ",".join(TENANTS), given.seed + 100 * number)
    fleet.add_driver(await pipe())
    scene = Scene(
        fleet=fleet,
        servers=servers,
        provider_url=base_url.removesuffix("/v1"),
        own=own,
        connection=connection,
        tasks=tasks,
        enqueue=_unset,
        read_results=_unset,
    )
    scene.caps.append(CapMove(0.0, 0.0, CAP))
    await scene.truth(**USUAL_TRUTH)
    await jobs.enqueue_job("innocent", 0.0, _job_id="first")
    await _until_at_work(fleet)
    return scene, jobs, zero


def _write_inputs(folder: Path, base_url: str) -> None:
    """Write the files that the processes of a run read and append to."""
    (folder / "weights").write_text("{}")
    (folder / "jobs").touch()
    (folder / "workflow.toml").write_text(WORKFLOW.format(base_url=base_url, cap=CAP))
    (folder / "seeds.csv").write_text("\n".join(["number", *map(str, range(RECORDS))]) + "\n")


async def _until_at_work(fleet: Fleet) -> None:
    """Wait until each caller and worker has made a call, and a job has ended."""
    folder = fleet.folder
    named = [member.name for member in fleet.of("caller", "cells")]

    def is_at_work() -> bool:
        seen = {call.process for call in observers.read_calls(json_lines(folder / "provider"), 0)}
        return seen >= set(named) and "end" in (folder / "jobs").read_text()

    await wait_until(is_at_work, timeout=START_SECONDS)


async def _unset(*_arguments: Any) -> None:
    raise AssertionError("no jobs yet")


def begin_provider(stack: contextlib.ExitStack, folder: Path) -> tuple[str, float]:
    """Start a provider whose log is a file in a folder; return its URL and when its clock was 0."""
    log = stack.enter_context((folder / "log").open("ab"))
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-m", "forebay", "mock-provider", "--log", folder / "provider"],
            stdout=subprocess.PIPE,
            stderr=log,
        )
    )
    stack.callback(process.terminate)
    assert process.stdout is not None
    base_url = process.stdout.readline().decode().split()[-1]
    looks = []
    for _ in range(CLOCK_LOOKS):
        before = time.monotonic()
        httpx.post(f"{base_url.removesuffix('/v1')}/truth", json={"concurrency": 12})
        took = time.monotonic() - before
        looks.append((took, before + took / 2 - json_lines(folder / "provider")[-1]["at"]))
    return base_url, min(looks)[1]


def json_lines(path: Path) -> list[Any]:
    """Return the lines of a file that are whole; a killed process may leave a part of one."""
    found = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found
