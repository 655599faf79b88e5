"""A run that a signal ends, wherever it was started, and what goes on with it (design 05)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.mock_provider.server import MockProviderServer
from forebay.mock_provider.truth import ProviderTruth
from tests.support import wait_until
from tests.support_runs import ROOT, forebay, read_records, start_forebay

RECORDS = 120
WORKFLOW = """
name = "w"
buffer_size = 5
output.path = "out.jsonl"
providers.local.base_url = "{base_url}"
models.writer = {{provider = "local", model = "mock-large", max_parallel_requests = 8}}
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
MOST_IN_FLIGHT = 8
IGNORING = "trap '' {name}; exec "
"""Shell in front of a command: a script's background ignores INT so, `nohup` HUP."""


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[MockProviderServer]:
    with MockProviderServer(ProviderTruth(latency_median_seconds=0.1)) as provider:
        (tmp_path / "flow.toml").write_text(WORKFLOW.format(base_url=provider.base_url))
        (tmp_path / "seed.csv").write_text("id\n" + "".join(f"{n}\n" for n in range(RECORDS)))
        yield provider


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path / "data") as server:
        yield server


@contextlib.contextmanager
def started(folder: Path, *words: str, shell: str = "exec ") -> Iterator[subprocess.Popen[str]]:
    """Start a forebay command below a shell, in a session of its own."""
    command = shlex.join([sys.executable, "-m", "forebay", *words])
    process = subprocess.Popen(
        ["sh", "-c", shell + command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def is_begun(folder: Path) -> bool:
    """Whether some row groups are written, and others are not."""
    return any(folder.glob("*.parts/*.dropped.jsonl"))


def names_in(folder: Path, pattern: str = "*") -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


def processes() -> dict[int, int]:
    """Return the parent of each process that has not ended."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, *_others = stat.read_text().rpartition(")")[2].split()
            if state != "Z":
                found[int(stat.parent.name)] = int(parent)
    return found


def children_of(pid: int) -> set[int]:
    """Return the processes that a process has started, and those that these have."""
    parents, found = processes(), {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def go_on_of(said: str) -> list[str]:
    """Return the words of the command that goes on, as it was said."""
    (line,) = re.findall(r"go on: +forebay (.*)", said)
    return shlex.split(line)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("shell", ["exec ", IGNORING.format(name="INT")])
async def test_a_signal_ends_a_run_with_its_children_and_says_how_to_go_on(
    provider: MockProviderServer, tmp_path: Path, number: signal.Signals, shell: str
) -> None:
    with started(tmp_path, "run", "flow.toml", "--no-report", shell=shell) as running:
        await wait_until(lambda: is_begun(tmp_path), timeout=60)
        children = children_of(running.pid)
        assert len(children) >= 4, "a watchdog with its server, two workers"
        running.send_signal(number)
        _out, said = await asyncio.to_thread(running.communicate, timeout=60)
        assert running.returncode == 128 + number, said
        await wait_until(lambda: not children & processes().keys())
    assert f"stopped by {number.name}" in said
    assert "Traceback" not in said
    (parts,) = names_in(tmp_path, "*.parts")
    assert f"kept:    {tmp_path / parts}" in said

    done = await asyncio.to_thread(forebay, *go_on_of(said), "--no-report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{RECORDS} of {RECORDS} records written" in done.stdout
    assert [row["id"] for row in read_records(tmp_path / "out.jsonl")] == [
        str(number) for number in range(RECORDS)
    ]
    calls = provider.state.counters.ok
    assert RECORDS <= calls <= RECORDS + MOST_IN_FLIGHT, "paid twice were only those in flight"
    assert names_in(tmp_path) == ["flow.toml", "out.jsonl", "seed.csv"]


async def test_nohup_keeps_a_run_alive_when_its_terminal_hangs_up(
    provider: MockProviderServer, tmp_path: Path
) -> None:
    with started(
        tmp_path, "run", "flow.toml", "--no-report", shell=IGNORING.format(name="HUP")
    ) as running:
        await wait_until(lambda: is_begun(tmp_path), timeout=60)
        running.send_signal(signal.SIGHUP)
        out, said = await asyncio.to_thread(running.communicate, timeout=90)
    assert running.returncode == 0, said
    assert f"{RECORDS} of {RECORDS} records written" in out


async def test_a_run_on_a_fleet_is_left_to_its_server_and_gone_on_with(
    provider: MockProviderServer, server: EmbeddedServer, tmp_path: Path
) -> None:
    with started(
        tmp_path, "run", "flow.toml", "--no-report", "--url", server.url, "--workers", "1"
    ) as running:
        await wait_until(lambda: is_begun(tmp_path), timeout=60)
        running.send_signal(signal.SIGTERM)
        _out, said = await asyncio.to_thread(running.communicate, timeout=60)
    assert running.returncode == 128 + signal.SIGTERM
    assert "kept:    the run in pool default of its server" in said
    (_word, run_id, *_options) = go_on_of(said)
    listed = await asyncio.to_thread(forebay, "runs", "--url", server.url, cwd=tmp_path)
    assert listed.stdout.startswith(f"{run_id}  workflow ")
    assert "unattended, last by " in listed.stdout
    done = await asyncio.to_thread(
        forebay, *go_on_of(said), "--no-report", "--workers", 1, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert f"{RECORDS} of {RECORDS} records written" in done.stdout
    listed = await asyncio.to_thread(forebay, "runs", "--url", server.url, cwd=tmp_path)
    assert listed.stdout == "pool default has no run\n"


async def test_a_run_is_resumed_by_one_driver_at_a_time_and_can_be_cancelled(
    provider: MockProviderServer, server: EmbeddedServer, tmp_path: Path
) -> None:
    where = ("--url", server.url)
    running = start_forebay(
        "run", "flow.toml", "--no-report", *where, "--workers", "1", cwd=tmp_path
    )
    try:
        await wait_until(lambda: is_begun(tmp_path), timeout=60)
        await asyncio.to_thread(provider.change_truth, latency_median_seconds=600.0)
        (parts,) = names_in(tmp_path, "*.parts")
        run_id = parts.removeprefix("out.jsonl.").removesuffix(".parts")
        second = await asyncio.to_thread(forebay, "resume", run_id, *where, cwd=tmp_path)
        assert second.returncode == 1
        assert "stop that process first" in second.stderr
        unknown = await asyncio.to_thread(forebay, "cancel", "other", *where, cwd=tmp_path)
        assert unknown.returncode == 1
        assert f"expected one of: {run_id}" in unknown.stderr
        cancelled = await asyncio.to_thread(forebay, "cancel", run_id, *where, cwd=tmp_path)
        assert cancelled.returncode == 0, cancelled.stderr
        _out, said = await asyncio.to_thread(running.communicate, timeout=60)
    finally:
        running.kill()
    assert running.returncode == 1
    assert "it was cancelled elsewhere" in said
    assert names_in(tmp_path, "*.parts") == [parts]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_ends_a_worker_in_order(
    server: EmbeddedServer, tmp_path: Path, number: signal.Signals
) -> None:
    with started(
        tmp_path, "worker", "--url", server.url, shell=IGNORING.format(name="INT")
    ) as worker:
        assert worker.stdout is not None
        assert "working for pool" in await asyncio.to_thread(worker.stdout.readline)
        worker.send_signal(number)
        out, said = await asyncio.to_thread(worker.communicate, timeout=60)
    assert worker.returncode == 0, said
    assert "stopped; of the tasks that ran then" in out


async def test_a_signal_ends_the_demo_with_its_children(tmp_path: Path) -> None:
    with started(tmp_path, "demo", shell=IGNORING.format(name="INT")) as demo:
        assert demo.stdout is not None
        await wait_until(lambda: len(children_of(demo.pid)) >= 6, timeout=60)
        children = children_of(demo.pid)
        demo.send_signal(signal.SIGINT)
        _out, said = await asyncio.to_thread(demo.communicate, timeout=60)
        assert demo.returncode == 128 + signal.SIGINT, said
        await wait_until(lambda: not children & processes().keys())
    assert "Traceback" not in said


async def test_any_command_that_a_script_has_put_into_its_background_ends_by_sigint(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    words = ("snapshot", "--watch", "--url", server.url)
    with started(tmp_path, *words, shell=IGNORING.format(name="INT")) as watching:
        assert watching.stdout is not None
        assert await asyncio.to_thread(watching.stdout.readline)
        watching.send_signal(signal.SIGINT)
        _out, said = await asyncio.to_thread(watching.communicate, timeout=60)
    assert (watching.returncode, said) == (128 + signal.SIGINT, "stopped by SIGINT\n")


async def test_a_run_that_is_killed_leaves_no_process(
    provider: MockProviderServer, tmp_path: Path
) -> None:
    with started(tmp_path, "run", "flow.toml", "--no-report") as running:
        await wait_until(lambda: is_begun(tmp_path), timeout=60)
        children = children_of(running.pid)
        running.kill()
        await wait_until(lambda: not children & processes().keys(), timeout=60)
    assert provider.state.counters.ok < RECORDS
