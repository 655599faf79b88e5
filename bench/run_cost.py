"""Runs: the cost of a cell's bookkeeping for a worker, and of a run in server memory.

A run of cells that do nothing is made at several sizes, each by one worker process on a server of
its own. Its CPU seconds, less those of a run of one record, are divided by the cells.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.figures import Figure, Iterations, of_rounds, ratios
from bench.harness import InvariantBrokenError, Outcome, Progress, new_runner, repeat
from bench.jobs_queue import check_books
from forebay.contracts.runs import RunSpec
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.snapshots import audit_pool
from forebay.runtime import start_worker, stop_workers
from forebay.workers.runs.driver import RunDriver
from forebay.workers.runs.workflow_file import load_workflow

COLUMNS: Final = 4
"""Cells of each record, besides the seed."""
LOOK_SECONDS: Final = 0.1
MOST_MS: Final = 1.0
MOST_MEGABYTES: Final = 200.0
MOST_GROWTH: Final = 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The parameters of a run of the scenario.

    Attributes:
        few: cells of the small run.
        many: cells of the large one.
        rounds: how often.
    """

    few: int = 1_000
    many: int = 1_000_000
    rounds: int = 1


FULL: Final = Inputs()
SMOKE: Final = Inputs(few=40, many=400)


def _workflow(folder: Path, records: int) -> Path:
    seed = "id\n" + "".join(f"{number}\n" for number in range(records))
    (folder / "seed.csv").write_text(seed)
    columns = "".join(
        f"[[columns]]\ngenerator = 'expression'\nname = 'c{number}'\ntemplate = 'x'\n"
        for number in range(COLUMNS)
    )
    path = folder / "flow.toml"
    path.write_text(
        f"name = 'noop'\noutput.path = '{folder / 'out.jsonl'}'\n"
        f"[[columns]]\ngenerator = 'seed'\nnames = ['id']\npath = 'seed.csv'\n{columns}"
    )
    return path


@contextlib.asynccontextmanager
async def _peak_of(connection: ServerConnection) -> AsyncIterator[Callable[[], float]]:
    """Yield a function that returns the largest growth of the server's memory, in megabytes."""

    async def used() -> int:
        return int((await connection.client.info("memory"))["used_memory"])

    before = peak = await used()

    async def look() -> None:
        nonlocal peak
        while True:
            peak = max(peak, await used())
            await asyncio.sleep(LOOK_SECONDS)

    looking = asyncio.create_task(look())
    try:
        yield lambda: (peak - before) / 1e6
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def _drive(url: str, run: RunSpec) -> float:
    async with await ServerConnection.open(url) as connection, _peak_of(connection) as peak:
        summary = await RunDriver(connection, run).drive()
        report = await audit_pool(connection, "default")
        if summary.written != run.workflow.record_count or not report.ok:
            raise InvariantBrokenError(
                f"a run of {run.workflow.record_count} records wrote {summary.written}, and the"
                f" audit found {report.differences}; expected all, and none."
            )
        return peak()


def _cpu_of_ended_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _make(cells: int, keep: Callable[[dict[str, Any]], object]) -> tuple[float, float]:
    """Make a run of no-op cells; return the worker's CPU seconds, and megabytes at the peak.

    Args:
        cells: how many.
        keep: told of the pool as the run leaves it.
    """
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer() as server:
        workflow = load_workflow(_workflow(Path(folder), max(1, cells // COLUMNS)), environ={})
        run = RunSpec(run_id="run", tenant="bench", workflow=workflow)
        before = _cpu_of_ended_children()
        worker = start_worker(server.url, "--allow-path", folder)
        try:
            with new_runner() as runner:
                megabytes = runner.run(_drive(server.url, run))
        finally:
            stop_workers([worker])
        keep(check_books(server.url))
        return _cpu_of_ended_children() - before, megabytes


def _round(inputs: Inputs, keep: Callable[[dict[str, Any]], object]) -> dict[str, float]:
    idle, _ = _make(1, keep)
    few, _ = _make(inputs.few, keep)
    many, megabytes = _make(inputs.many, keep)
    return {
        "few.cell_ms": (few - idle) / inputs.few * 1000,
        "many.cell_ms": (many - idle) / inputs.many * 1000,
        "many.server_megabytes": megabytes,
    }


def figures(found: Iterations) -> list[Figure]:
    """Return the figures of the bookkeeping of runs with the aims of issue 18."""
    return [
        Figure(
            name="worker CPU of a cell that does nothing, in a large run",
            rounds=of_rounds(found, "many.cell_ms"),
            unit="ms",
            aim=MOST_MS,
        ),
        Figure(
            name="cost of a cell in a large run, in those of a small one",
            rounds=ratios(found, "many.cell_ms", "few.cell_ms"),
            aim=MOST_GROWTH,
        ),
        Figure(
            name="memory of the server that a large run takes at most",
            rounds=of_rounds(found, "many.server_megabytes"),
            unit="MB",
            aim=MOST_MEGABYTES,
        ),
    ]


def run(inputs: Inputs, progress: Progress) -> Outcome:
    """Run the scenario, each size on an embedded server of its own.

    Raises:
        InvariantBrokenError: records were lost, or the books of the pool do not agree.
    """
    kept: dict[str, Any] = {}
    iterations = repeat(
        "run_cost", inputs.rounds, lambda _number: _round(inputs, kept.update), progress
    )
    return Outcome(
        inputs=asdict(inputs),
        iterations=iterations,
        figures=figures(iterations),
        final_task_snapshots={"default": kept},
    )
